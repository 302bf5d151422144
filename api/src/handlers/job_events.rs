//! Live events of one job as server-sent events: the job, then each change, until it has ended.
//!
//! Each event carries the whole job, so a stream that begins anew needs no history: the id of an
//! event is a hash of its job, by which a client that comes back is not told again what it has. A
//! client that has the end already gets 204, which tells browsers not to come back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream::{Stream, StreamExt, unfold};
use longshore_producer::{Error, Job};
use longshore_protocol::{JobSummary, rendezvous};
use serde_json::json;
use tokio::time::{Instant, Interval};

use super::Outcome;
use super::events::{LAST_EVENT_ID, checks, respond};
use crate::Shared;
use crate::access::Caller;
use crate::call::Call;

/// The shortest time between two events.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn events(call: Call) -> Outcome {
    let last = call.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let last = last.map(str::to_owned);
    let (job, summary) = call.job().await?;
    let (id, _) = event_of(&summary);
    if summary.state.is_terminal() && last.as_ref() == Some(&id) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let follower = Follower {
        shared: call.shared,
        caller: call.caller,
        progress: Box::pin(job.progress()),
        job,
        name: "snapshot",
        last,
        not_before: Instant::now(),
        checks: checks(),
        is_over: false,
    };
    let events = unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<Event, Infallible>(event), follower))
    });
    respond(events)
}

/// The id and the data of the event of a job.
fn event_of(summary: &JobSummary) -> (String, String) {
    let data = serde_json::to_string(summary).expect("views are JSON");
    (format!("{:016x}", rendezvous::hash(data.as_bytes())), data)
}

type Progress = Pin<Box<dyn Stream<Item = Result<JobSummary, Error>> + Send>>;

struct Follower {
    shared: Arc<Shared>,
    caller: Caller,
    job: Job,
    progress: Progress,
    /// The name of the next event.
    name: &'static str,
    /// The id of the last event that the client has.
    last: Option<String>,
    not_before: Instant,
    checks: Interval,
    is_over: bool,
}

impl Follower {
    /// The next event; `None` once the stream has to end.
    async fn next(&mut self) -> Option<Event> {
        while !self.is_over {
            let (not_before, progress) = (self.not_before, &mut self.progress);
            let next = async {
                tokio::time::sleep_until(not_before).await;
                progress.next().await
            };
            tokio::select! {
                () = self.shared.stop.cancelled() => return None,
                _ = self.checks.tick() => {
                    if !self.shared.guard.is_valid(&self.caller).await {
                        return None;
                    }
                }
                progress = next => match progress? {
                    Ok(summary) => {
                        let event = self.event(&summary);
                        if event.is_some() {
                            return event;
                        }
                    }
                    Err(Error::NotFound(_)) => {
                        self.is_over = true;
                        let gone = json!({ "id": self.job.id() }).to_string();
                        return Some(Event::default().event("job_gone").data(gone));
                    }
                    Err(_) => return None,
                },
            }
        }
        None
    }

    /// The event of a job; `None` if the client has it.
    fn event(&mut self, summary: &JobSummary) -> Option<Event> {
        self.is_over = summary.state.is_terminal();
        self.not_before = Instant::now() + AT_MOST_EVERY;
        let (id, data) = event_of(summary);
        let name = std::mem::replace(&mut self.name, "job");
        if self.last.replace(id.clone()).as_ref() == Some(&id) {
            return None;
        }
        Some(Event::default().id(id).event(name).data(data))
    }
}
