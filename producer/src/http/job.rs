//! One job of a server. What each call does is said at [`crate::Job`].

use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use longshore_ledger::Cancelled;
use longshore_protocol::document::JobDocument;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{JobAnswer, JobDetails, RetryRequest, StateAfter};
use longshore_protocol::{Audit, ErrorEntry, JobId, JobMap, JobSummary, Reason, Recovery};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::lines::{self, ResultLine};
use super::request::Request;
use super::{Server, ServerError};
use crate::Error;
use crate::timers::{OutageTimer, PollInterval};

/// The longest time that one request waits for the end of a job. Proxies often break connections
/// that are silent for 60 s.
const POLL: Duration = Duration::from_secs(25);

/// How long one request for progress waits for the end of a job.
const PROGRESS_POLL: Duration = Duration::from_millis(250);

/// The shortest time between two requests for progress.
const REPORT_AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// The longest time between two reports of progress.
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// The time for the answer to a request that waits, beside the wait.
const ANSWER: Duration = Duration::from_secs(30);

/// Results of subtasks, each with its index.
type Results = BoxStream<'static, Result<(u64, Box<RawValue>), Error>>;

/// A job of a server.
#[derive(Clone)]
pub(crate) struct Job {
    server: Server,
    id: JobId,
}

impl Job {
    pub(super) fn new(server: Server, id: JobId) -> Self {
        Self { server, id }
    }

    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    pub(crate) async fn summary(&self) -> Result<JobSummary, Error> {
        // The job alone would come with its reasons, for which the server reads much more.
        Ok(self.poll(Duration::ZERO).await?)
    }

    pub(crate) async fn details(&self) -> Result<JobDetails, Error> {
        self.read(Request::get(&[&"jobs", &self.id])).await
    }

    pub(crate) async fn wait(&self) -> Result<JobSummary, Error> {
        let (mut outage, mut interval) = (OutageTimer::default(), PollInterval::new());
        loop {
            let begun = Instant::now();
            match outage.tolerate(self.poll(POLL).await)? {
                Some(summary) if summary.state.is_terminal() => return Ok(summary),
                // A server that stops answers before the time is over.
                Some(_) if begun.elapsed() >= POLL / 2 => {}
                Some(_) | None => tokio::time::sleep(interval.next()).await,
            }
        }
    }

    pub(crate) fn progress(&self) -> BoxStream<'static, Result<JobSummary, Error>> {
        let progress = Progress { job: self.clone(), outage: OutageTimer::default(), last: None };
        try_unfold(progress, |mut progress| async move {
            Ok(progress.next().await?.map(|summary| (summary, progress)))
        })
        .boxed()
    }

    pub(crate) fn results_in(&self, indices: Range<u64>) -> Results {
        self.lines(indices, lines::usual_silence(), |request| request)
    }

    pub(crate) fn follow_results(&self, indices: Range<u64>) -> Results {
        self.lines(indices, None, |request| request.with("follow", true))
    }

    fn lines(
        &self,
        indices: Range<u64>,
        silence: Option<Duration>,
        change: impl Fn(Request) -> Request + Send + 'static,
    ) -> Results {
        let (id, Range { start, end }) = (self.id, indices);
        let request = move |from: u64| {
            let request = Request::get(&[&"jobs", &id, &"results"]);
            // The last item may have had the last index.
            change(request.with("from", from.min(end)).with("to", end))
        };
        let found = lines::resumed(self.server.clone(), start, silence, request);
        found
            .map(|line: Result<ResultLine, ServerError>| {
                let ResultLine { index, result } = line?;
                Ok((index, result))
            })
            .boxed()
    }

    pub(crate) async fn value(&self) -> Result<Box<RawValue>, Error> {
        #[derive(Deserialize)]
        struct Value {
            result: Box<RawValue>,
        }
        let value: Value = self.read(Request::get(&[&"jobs", &self.id, &"value"])).await?;
        Ok(value.result)
    }

    pub(crate) async fn document(&self) -> Result<JobDocument, Error> {
        let text = self.server.text(&Request::get(&[&"jobs", &self.id, &"document"])).await;
        JobDocument::parse(text.map_err(of_server)?.as_bytes()).map_err(|error| Error::Corrupt {
            job: self.id,
            detail: format!("its document: {error}"),
        })
    }

    pub(crate) fn errors(&self) -> BoxStream<'static, Result<ErrorEntry, Error>> {
        let id = self.id;
        let request = move |from| Request::get(&[&"jobs", &id, &"errors"]).with("from", from);
        let found = lines::resumed(self.server.clone(), 0, lines::usual_silence(), request);
        found.map(|entry| entry.map_err(of_server)).boxed()
    }

    pub(crate) async fn recoveries(&self) -> Result<Vec<Recovery>, Error> {
        self.read(Request::get(&[&"jobs", &self.id, &"recoveries"])).await
    }

    pub(crate) async fn reasons(&self) -> Result<Vec<Reason>, Error> {
        Ok(self.details().await?.reasons)
    }

    pub(crate) async fn map(&self, indices: Range<u64>, cells: u64) -> Result<JobMap, Error> {
        let Range { start, end } = indices;
        let request = Request::get(&[&"jobs", &self.id, &"map"]).with("from", start);
        self.read(request.with("to", end).with("cells", cells)).await
    }

    pub(crate) async fn audit(&self) -> Result<Audit, Error> {
        self.read(Request::get(&[&"jobs", &self.id, &"audit"])).await
    }

    pub(crate) async fn pause(&self) -> Result<JobState, Error> {
        self.state_after(Request::post(&[&"jobs", &self.id, &"pause"])).await
    }

    pub(crate) async fn resume(&self) -> Result<JobState, Error> {
        self.state_after(Request::post(&[&"jobs", &self.id, &"resume"])).await
    }

    pub(crate) async fn retry(&self, indices: Option<&[u64]>) -> Result<JobState, Error> {
        let body = RetryRequest { indices: indices.map(<[u64]>::to_vec) };
        self.state_after(Request::post(&[&"jobs", &self.id, &"retry"]).json(&body)).await
    }

    pub(crate) async fn cancel(&self) -> Result<Cancelled, Error> {
        let answer: JobAnswer = self.read(Request::post(&[&"jobs", &self.id, &"cancel"])).await?;
        Ok(match answer.admitted {
            Some(false) => Cancelled::BeforeAdmission,
            _ => Cancelled::Ended,
        })
    }

    pub(crate) async fn delete(&self) -> Result<(), Error> {
        let _: JobAnswer = self.read(Request::delete(&[&"jobs", &self.id])).await?;
        Ok(())
    }

    async fn state_after(&self, request: Request) -> Result<JobState, Error> {
        let answer: JobAnswer = self.read(request).await?;
        match answer.state {
            Some(StateAfter::State(state)) => Ok(state),
            _ => Err(ServerError::unreadable(&self.server, &"the job's state is missing").into()),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        self.server.json(&request).await.map_err(of_server)
    }

    /// The job once it has ended, or as it is when the time is over.
    async fn poll(&self, timeout: Duration) -> Result<JobSummary, ServerError> {
        let request = Request::get(&[&"jobs", &self.id, &"wait"])
            .with("timeout", format_args!("{}ms", timeout.as_millis()))
            .within(timeout + ANSWER);
        self.server.json(&request).await
    }
}

struct Progress {
    job: Job,
    outage: OutageTimer,
    last: Option<(JobSummary, Instant)>,
}

impl Progress {
    async fn next(&mut self) -> Result<Option<JobSummary>, Error> {
        let mut poll = Duration::ZERO;
        if let Some((last, at)) = &self.last {
            if last.state.is_terminal() {
                return Ok(None);
            }
            tokio::time::sleep_until(*at + REPORT_AT_MOST_EVERY).await;
            poll = PROGRESS_POLL;
        }
        let mut interval = PollInterval::new();
        loop {
            let Some(summary) =
                self.outage.tolerate(self.job.poll(poll).await).map_err(of_server)?
            else {
                tokio::time::sleep(interval.next()).await;
                continue;
            };
            let is_due = self
                .last
                .as_ref()
                .is_none_or(|(last, at)| *last != summary || at.elapsed() >= REPORT_AT_LEAST_EVERY);
            if is_due {
                self.last = Some((summary.clone(), Instant::now()));
                return Ok(Some(summary));
            }
            poll = PROGRESS_POLL;
        }
    }
}

/// The error of a call about a job or a worker. Those that programs tell apart are the same as
/// those of a client that uses the ledger itself.
pub(super) fn of_server(error: ServerError) -> Error {
    let problem = error.problem();
    let is_missing =
        error.status() == Some(404) && problem.kind == longshore_protocol::ErrorKind::NotFound;
    match (problem.job, &problem.node) {
        (Some(job), _) if is_missing => Error::NotFound(job),
        (_, Some(node)) if is_missing => Error::NodeNotFound(node.clone()),
        _ => Error::Server(error),
    }
}
