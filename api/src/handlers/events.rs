//! Live events as server-sent events: the present, then each change.
//!
//! A stream is told the present when it begins, unless the client names the last event that it has
//! and this process still has those that follow it; and again when it falls too far behind.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use longshore_protocol::wire::{NodeView, Present};
use longshore_protocol::{ErrorKind, JobFilter};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Outcome;
use crate::Shared;
use crate::access::Caller;
use crate::call::Call;
use crate::events::{Change, GAP, Place};
use crate::lines::Live;
use crate::refusal::Refusal;

/// The jobs of which a stream is told at its beginning, the newest ones.
const MAX_PRESENT: usize = 200;

/// The interval of the comments that keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The interval of the checks that the caller's token is still valid.
const CHECK_TOKEN: Duration = Duration::from_secs(5);

/// The header by which a browser names the last event that it has.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

pub(crate) async fn events(call: Call) -> Outcome {
    let after = call.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let after = after.and_then(Place::parse);
    let mut stream = Stream::begin(Arc::clone(&call.shared), call.caller.clone(), after.as_ref());
    call.shared.hub.ready().await;
    if stream.is_behind {
        // A ledger that is away is reported as such, and not by a stream that ends.
        let present = stream.present().await?;
        stream.waiting.push_back(present);
        stream.is_behind = false;
    }
    let events = unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<Event, Infallible>(event), stream))
    });
    respond(events)
}

/// An answer of these events.
pub(super) fn respond(
    events: impl futures_util::Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Outcome {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response: Response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.extensions_mut().insert(Live);
    response.headers_mut().insert("x-accel-buffering", "no".parse().map_err(|_| bug())?);
    Ok(response)
}

fn bug() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Bug, "a header can't be sent")
}

/// Ticks when a stream has to check that its caller's token is still valid.
pub(super) fn checks() -> Interval {
    let mut checks = interval_at(Instant::now() + CHECK_TOKEN, CHECK_TOKEN);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks
}

/// A stream of one client.
struct Stream {
    shared: Arc<Shared>,
    caller: Caller,
    receiver: broadcast::Receiver<Arc<Change>>,
    /// Events that are to be sent next.
    waiting: VecDeque<Event>,
    /// The number of the next change.
    next: u64,
    /// The client has to be told the present.
    is_behind: bool,
    checks: Interval,
}

impl Stream {
    fn begin(shared: Arc<Shared>, caller: Caller, after: Option<&Place>) -> Self {
        let subscription = shared.hub.subscribe(after);
        let mut stream = Self {
            shared,
            caller,
            receiver: subscription.receiver,
            waiting: VecDeque::new(),
            next: subscription.next,
            is_behind: false,
            checks: checks(),
        };
        let missed = subscription.missed.filter(|missed| missed.iter().all(|it| it.name != GAP));
        stream.is_behind = missed.is_none();
        for change in missed.into_iter().flatten() {
            let event = stream.event(&change);
            stream.waiting.extend(event);
        }
        stream
    }

    /// The event of a change; `None` for one that the caller may not see.
    fn event(&self, change: &Change) -> Option<Event> {
        let shows = match &change.tenant {
            _ if change.name == GAP => false,
            Some(tenant) => self.caller.shows(tenant),
            None => self.caller.tenants().is_none(),
        };
        let event = || {
            let id = self.shared.hub.id(change.number);
            Event::default().id(id).event(change.name).data(&change.data)
        };
        shows.then(event)
    }

    /// The present: the newest jobs, and the workers if the caller is not bound to tenants.
    async fn present(&mut self) -> Result<Event, Refusal> {
        let tenants = self.caller.tenants();
        let filter =
            JobFilter { tenants: tenants.clone().unwrap_or_default(), ..JobFilter::default() };
        let page = self.shared.client.jobs().list(&filter, None, MAX_PRESENT).await?;
        let nodes = match tenants {
            Some(_) => None,
            None => {
                let nodes = self.shared.client.nodes().list().await?;
                Some(nodes.iter().map(NodeView::from).collect())
            }
        };
        let present = Present { jobs: page.jobs, nodes };
        let data = serde_json::to_string(&present).expect("views are JSON");
        let id = self.shared.hub.id(self.next.saturating_sub(1));
        Ok(Event::default().id(id).event("snapshot").data(data))
    }

    /// The next event; `None` once the stream has to end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_behind {
                self.is_behind = false;
                let present = self.present().await.ok()?;
                self.waiting.push_back(present);
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return None,
                _ = self.checks.tick() => {
                    if !self.shared.guard.is_valid(&self.caller).await {
                        return None;
                    }
                }
                change = self.receiver.recv() => match change {
                    Ok(change) => {
                        self.next = change.number + 1;
                        self.is_behind = change.name == GAP;
                        self.waiting.extend(self.event(&change));
                    }
                    Err(RecvError::Lagged(_)) => {
                        let subscription = self.shared.hub.subscribe(None);
                        (self.receiver, self.next) = (subscription.receiver, subscription.next);
                        self.is_behind = true;
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}
