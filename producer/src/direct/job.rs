//! One job straight in the ledger: waits for its end, reads what is known of it, and controls it.
//!
//! What each call does is said at [`crate::Job`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, Stream, try_unfold};
use futures_util::{StreamExt, pin_mut};
use longshore_ledger::op::MAX_RECOVERIES;
use longshore_ledger::{
    BlockedParams, Cancelled, ControlError, ErrorsParams, Ledger, MapParams, RetryParams,
};
use longshore_protocol::document::{JobDocument, Results};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobDetails;
use longshore_protocol::{
    Audit, BlockedScope, ErrorEntry, JobId, JobMap, JobSummary, Reason, Recovery, ReduceTree,
    ResultsPage, SchedulerRecord,
};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::hints::{JobHints, Notification};
use super::{Jobs, follow, results};
use crate::timers::{MissingTimer, OutageTimer, PollInterval};
use crate::{Error, NoValue};

/// The shortest time between two reports of progress.
const REPORT_AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// The longest time between two reports of progress.
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// A scheduler registers twice a second; one that has not for this long feeds no queue.
pub(super) const SCHEDULER_ALIVE: Duration = Duration::from_secs(5);

/// The number of errors that one call to the ledger asks for.
const ERRORS_A_PAGE: usize = 500;

/// A job, by its id. Cheap to clone; dropping it does not affect the job.
#[derive(Clone)]
pub(crate) struct Job {
    jobs: Jobs,
    id: JobId,
    /// A scheduler has accepted the job, as the ledger showed.
    accepted: bool,
    /// The hints since the job was submitted here, for the first caller that waits.
    since: Arc<Mutex<Option<JobHints>>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Job {
    pub(crate) fn new(jobs: Jobs, id: JobId) -> Self {
        Self { jobs, id, accepted: false, since: Arc::default() }
    }

    /// An accepted job, with the hints since it was submitted, if that was just now.
    pub(crate) fn accepted(self, since: Option<JobHints>) -> Self {
        Self { accepted: true, since: Arc::new(Mutex::new(since)), ..self }
    }

    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    pub(crate) async fn summary(&self) -> Result<JobSummary, Error> {
        match self.jobs.ledger().job(self.id).await? {
            Some(summary) => Ok(summary),
            None => Err(absent(self.jobs.ledger().as_ref(), self.id).await),
        }
    }

    pub(crate) async fn wait(&self) -> Result<JobSummary, Error> {
        Ok(self.end(false).await?.0)
    }

    pub(crate) async fn outcome(
        &self,
    ) -> Result<
        (JobSummary, impl Stream<Item = Result<(u64, Box<RawValue>), Error>> + Send + use<>),
        Error,
    > {
        let (summary, first) = self.end(true).await?;
        let results = self.results_of(&summary, 0..u64::MAX, first).await?;
        Ok((summary, results))
    }

    /// Waits until the job has ended. Gives the first page of its results too, if that is wanted
    /// and took no further round trip.
    async fn end(&self, with_results: bool) -> Result<(JobSummary, Option<ResultsPage>), Error> {
        let since = self.since.lock().take().filter(JobHints::is_complete);
        let is_complete = since.is_some();
        let mut hints = since.unwrap_or_else(|| self.jobs.hints(self.id));
        let mut interval = PollInterval::new();
        let mut poller = Poller::of(self);
        let mut notification = Notification::Nothing;
        if is_complete {
            notification = hints.ended(interval.next()).await;
        }
        loop {
            if let Notification::End(end) = notification {
                return Ok((end.summary.clone(), end.results.clone()));
            }
            let is_hinted = matches!(notification, Notification::State(_));
            let first = async {
                let ledger = self.jobs.ledger().as_ref();
                // An error shows again when the results are read.
                if is_hinted && with_results {
                    results::first_page(ledger, self.id).await.ok()
                } else {
                    None
                }
            };
            let (summary, first) = tokio::join!(poller.poll(), first);
            if let Some(summary) = summary?.filter(|summary| summary.state.is_terminal()) {
                return Ok((summary, first));
            }
            notification = hints.ended(interval.next()).await;
        }
    }

    pub(crate) fn progress(
        &self,
    ) -> impl Stream<Item = Result<JobSummary, Error>> + Send + 'static {
        let progress =
            Progress { poller: Poller::of(self), hints: self.jobs.hints(self.id), last: None };
        try_unfold(progress, |mut progress| async move {
            Ok(progress.next().await?.map(|summary| (summary, progress)))
        })
    }

    pub(crate) fn results(
        &self,
    ) -> impl Stream<Item = Result<(u64, Box<RawValue>), Error>> + Send + 'static {
        let job = self.clone();
        let found = async move {
            let ledger = Arc::clone(job.jobs.ledger());
            // Most jobs have one page of results, so it is read before their number is known.
            let (summary, first) =
                tokio::join!(job.summary(), results::first_page(&*ledger, job.id));
            job.results_of(&summary?, 0..u64::MAX, Some(first?)).await
        };
        futures_util::stream::once(found).flat_map(|found| match found {
            Ok(results) => results.left_stream(),
            Err(error) => futures_util::stream::iter([Err(error)]).right_stream(),
        })
    }

    pub(crate) fn results_in(
        &self,
        indices: Range<u64>,
    ) -> impl Stream<Item = Result<(u64, Box<RawValue>), Error>> + Send + 'static {
        let job = self.clone();
        let found = async move {
            let summary = job.summary().await?;
            job.results_of(&summary, indices, None).await
        };
        futures_util::stream::once(found).flat_map(|found| match found {
            Ok(results) => results.left_stream(),
            Err(error) => futures_util::stream::iter([Err(error)]).right_stream(),
        })
    }

    pub(crate) fn follow_results(
        &self,
        indices: Range<u64>,
    ) -> BoxStream<'static, Result<(u64, Box<RawValue>), Error>> {
        follow::stream(self.clone(), indices)
    }

    pub(super) fn ledger(&self) -> &dyn Ledger {
        self.jobs.ledger().as_ref()
    }

    /// Follows the hints about the job from now on.
    pub(super) fn hints(&self) -> JobHints {
        self.jobs.hints(self.id)
    }

    /// The results of a job with this summary, of which the first page may have been read.
    pub(super) async fn results_of(
        &self,
        summary: &JobSummary,
        indices: Range<u64>,
        first: Option<ResultsPage>,
    ) -> Result<impl Stream<Item = Result<(u64, Box<RawValue>), Error>> + Send + use<>, Error> {
        self.check_results(summary).await?;
        let Range { start, end } = indices;
        let end = end.min(summary.counts.total);
        Ok(results::stream(self.jobs.source(), self.id, start..end, first))
    }

    /// Fails if the job had results that were lost.
    async fn check_results(&self, summary: &JobSummary) -> Result<(), Error> {
        let had_some = summary.restored_at.is_some() && summary.counts.done > 0;
        if had_some && self.document().await?.results != Results::Discard {
            return Err(Error::ResultsLost(self.id));
        }
        Ok(())
    }

    pub(crate) async fn value(&self) -> Result<Box<RawValue>, Error> {
        let summary = self.summary().await?;
        let no_value = |reason| Error::NoValue { job: self.id, reason };
        if !summary.state.is_success() {
            return Err(no_value(NoValue::Unfinished(summary.state)));
        }
        let document = self.document().await?;
        let reduce = document.reduce.ok_or_else(|| no_value(NoValue::NotReduced))?;
        if document.results == Results::Discard {
            return Err(no_value(NoValue::Discarded));
        }
        if summary.restored_at.is_some() {
            return Err(Error::ResultsLost(self.id));
        }
        let root = ReduceTree::new(summary.counts.total, reduce.fan_in).root();
        let found = results::stream(self.jobs.source(), self.id, root..root + 1, None);
        pin_mut!(found);
        match found.next().await {
            Some(result) => Ok(result?.1),
            None => Err(self.corrupt("the result of the reduce's root is missing")),
        }
    }

    pub(crate) async fn document(&self) -> Result<JobDocument, Error> {
        let stored = self.jobs.ledger().document(self.id).await?;
        let stored = stored.ok_or(Error::NotFound(self.id))?;
        JobDocument::parse(stored.document.as_bytes())
            .map_err(|error| self.corrupt(format!("its document: {error}")))
    }

    pub(crate) fn errors(&self) -> impl Stream<Item = Result<ErrorEntry, Error>> + Send + 'static {
        let job = self.clone();
        let start = (job, Vec::new().into_iter(), Some(0));
        try_unfold(start, |(job, mut page, mut next)| async move {
            loop {
                if let Some(entry) = page.next() {
                    return Ok(Some((entry, (job, page, next))));
                }
                let Some(from) = next else {
                    return Ok(None);
                };
                if from == 0 {
                    // The ledger gives no errors for an unknown job, which has to be an error here.
                    job.summary().await?;
                }
                let params = ErrorsParams::new(from, ERRORS_A_PAGE);
                let entries = job.jobs.ledger().errors(job.id, &params).await?;
                let is_full = entries.len() == ERRORS_A_PAGE;
                next = entries.last().filter(|_| is_full).map(|entry: &ErrorEntry| entry.index + 1);
                page = entries.into_iter();
            }
        })
    }

    pub(crate) async fn details(&self) -> Result<JobDetails, Error> {
        let job = self.summary().await?;
        let (recovered, reasons) = tokio::try_join!(self.recoveries(), self.reasons())?;
        Ok(JobDetails { job, recovered, reasons })
    }

    pub(crate) async fn recoveries(&self) -> Result<Vec<Recovery>, Error> {
        Ok(self.jobs.ledger().recoveries(self.id, MAX_RECOVERIES).await?)
    }

    pub(crate) async fn reasons(&self) -> Result<Vec<Reason>, Error> {
        let job = self.summary().await?;
        if job.state.is_terminal() {
            return Ok(Vec::new());
        }
        let ledger = self.jobs.ledger();
        let task = self.present_task(&job).await?;
        let stalled = Reason::stalled(&ledger.stalls(self.id).await?);
        let no_worker = match job.state.feeds() && job.running_chunks == 0 {
            true => Reason::no_worker(&job.queue, &task, &ledger.nodes().await?),
            false => None,
        };
        let found = [stalled, no_worker, self.blocked(&job, task).await?];
        let mut reasons: Vec<Reason> = Vec::new();
        for reason in found.into_iter().flatten() {
            if reasons.iter().all(|known| known.code != reason.code) {
                reasons.push(reason);
            }
        }
        Ok(reasons)
    }

    /// The task that the job runs now: its own, or the one that combines results.
    async fn present_task(&self, job: &JobSummary) -> Result<String, Error> {
        let reduce = match job.state.is_reducing() {
            true => self.document().await?.reduce,
            false => None,
        };
        Ok(reduce.map_or_else(|| job.task.clone(), |reduce| reduce.task))
    }

    /// What blocks the job as its scheduler published it, or that no scheduler is alive. What
    /// blocks the job itself comes before what blocks all jobs that the same workers can run.
    async fn blocked(&self, job: &JobSummary, task: String) -> Result<Option<Reason>, Error> {
        let ledger = self.jobs.ledger();
        let now = ledger.now().await?;
        let is_alive = |it: &SchedulerRecord| now.since(it.beat_at) < SCHEDULER_ALIVE;
        if !ledger.schedulers().await?.iter().any(is_alive) {
            return Ok(Some(Reason::no_scheduler()));
        }
        let scopes = [BlockedScope::Job(self.id), BlockedScope::Task(task), BlockedScope::Queue];
        let blocked = ledger.blocked(&BlockedParams::new(&job.queue, scopes)).await?;
        let published = blocked.into_iter().flatten().find_map(|it| Reason::blocked(job, it));
        Ok(published.or_else(|| Reason::paused(job)))
    }

    pub(crate) async fn map(&self, indices: Range<u64>, cells: u64) -> Result<JobMap, Error> {
        let summary = self.summary().await?;
        if summary.restored_at.is_some() {
            return Err(Error::MapLost(self.id));
        }
        let params = MapParams::new(indices, cells).within(summary.counts.total);
        self.ledger().map(self.id, &params).await?.ok_or(Error::NotFound(self.id))
    }

    pub(crate) async fn audit(&self) -> Result<Audit, Error> {
        self.jobs.ledger().audit(self.id).await?.ok_or(Error::NotFound(self.id))
    }

    pub(crate) async fn pause(&self) -> Result<JobState, Error> {
        self.control(self.jobs.ledger().pause(self.id).await)
    }

    pub(crate) async fn resume(&self) -> Result<JobState, Error> {
        self.control(self.jobs.ledger().resume(self.id).await)
    }

    pub(crate) async fn cancel(&self) -> Result<Cancelled, Error> {
        self.control(self.jobs.ledger().cancel(self.id).await)
    }

    pub(crate) async fn retry(&self, indices: Option<&[u64]>) -> Result<JobState, Error> {
        let params = indices.map_or_else(RetryParams::all, RetryParams::only);
        self.control(self.jobs.ledger().retry(self.id, &params).await)
    }

    pub(crate) async fn delete(&self) -> Result<(), Error> {
        self.control(self.jobs.ledger().delete(self.id).await)
    }

    fn control<T>(&self, answer: Result<T, ControlError>) -> Result<T, Error> {
        answer.map_err(|error| Error::from_control(self.id, error))
    }

    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::Corrupt { job: self.id, detail: detail.into() }
    }
}

/// Polls a job, and tolerates outages of the ledger and losses of its data.
pub(super) struct Poller {
    job: Job,
    /// The job was found before, or is known to be accepted.
    known: bool,
    outage: OutageTimer,
    missing: MissingTimer,
}

impl Poller {
    pub(super) fn of(job: &Job) -> Self {
        let (outage, missing) = (OutageTimer::default(), MissingTimer::default());
        Self { job: job.clone(), known: job.accepted, outage, missing }
    }

    /// The job's summary; `None` while the ledger is unavailable, or has lost the job and may get
    /// it back.
    pub(super) async fn poll(&mut self) -> Result<Option<JobSummary>, Error> {
        let (ledger, id) = (self.job.jobs.ledger(), self.job.id);
        let Some(found) = self.outage.tolerate(ledger.job(id).await)? else { return Ok(None) };
        if found.is_some() {
            self.known = true;
            self.missing.reset();
            return Ok(found);
        }
        if !self.known {
            return Err(absent(ledger.as_ref(), id).await);
        }
        let not_found = Error::NotFound(id);
        match self.outage.tolerate(ledger.missing(&[id]).await)? {
            // The job was deleted, or restored meanwhile, which a second read shows.
            Some(missing) if missing.is_empty() => {
                match self.outage.tolerate(ledger.job(id).await)? {
                    Some(None) => Err(not_found),
                    found => Ok(found.flatten()),
                }
            }
            Some(_) if !self.missing.tolerates() => Err(not_found),
            _ => Ok(None),
        }
    }
}

/// The error for a job that the ledger does not have.
async fn absent(ledger: &dyn Ledger, job: JobId) -> Error {
    match tokio::join!(ledger.pending_cancel(job), ledger.postponed(job)) {
        (Ok(Some(at)), _) => Error::Cancelled { job, at },
        (_, Ok(Some(reason))) => Error::Postponed { job, reason },
        (Ok(None), Ok(None)) => Error::NotFound(job),
        (Err(error), _) | (_, Err(error)) => Error::Ledger(error),
    }
}

struct Progress {
    poller: Poller,
    hints: JobHints,
    last: Option<(JobSummary, Instant)>,
}

impl Progress {
    async fn next(&mut self) -> Result<Option<JobSummary>, Error> {
        if let Some((last, at)) = &self.last {
            if last.state.is_terminal() {
                return Ok(None);
            }
            tokio::time::sleep_until(*at + REPORT_AT_MOST_EVERY).await;
        }
        loop {
            if let Some(summary) = self.poller.poll().await? {
                let is_due = self.last.as_ref().is_none_or(|(last, at)| {
                    *last != summary || at.elapsed() >= REPORT_AT_LEAST_EVERY
                });
                if is_due {
                    self.last = Some((summary.clone(), Instant::now()));
                    return Ok(Some(summary));
                }
            }
            self.hints.changed(REPORT_AT_MOST_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use longshore_ledger::Admission;
    use longshore_protocol::{Blocked, Counts, ReasonCode, Timestamp};

    use super::*;

    #[test]
    fn what_was_published_yields_to_what_the_job_itself_says() {
        let id = JobId::from_uuid(uuid::Uuid::from_u128(7));
        let job = |state, waiting, running_chunks| JobSummary {
            running_chunks,
            counts: Counts { waiting, ..Counts::new(10) },
            state,
            ..Admission::plain(id, 10).accepted(Timestamp::default())
        };
        let says = |job: &JobSummary, reason| {
            let since = Timestamp::from_millis(5);
            Reason::blocked(job, Blocked { reason, since }).map(|it| (it.code, it.subtasks))
        };
        use ReasonCode::{FairShare, MaxParallel, Paused, SlotsBusy};
        let running = job(JobState::Running, 4, 1);
        assert_eq!(says(&running, SlotsBusy), Some((SlotsBusy, Some(4))));
        assert_eq!(says(&job(JobState::Queued, 10, 0), SlotsBusy), Some((FairShare, Some(10))));
        assert_eq!(says(&job(JobState::Running, 0, 1), SlotsBusy), None, "nothing waits");
        assert_eq!(says(&running, Paused), None, "it was resumed since");
        let paused = job(JobState::Paused, 4, 0);
        assert_eq!(says(&paused, MaxParallel), None, "it was paused since");
        assert_eq!(says(&paused, Paused), Some((Paused, Some(4))));
    }
}
