//! Runs the engine: passes events to it in batches, and starts its actions without waiting.
//!
//! Nothing here waits for an action: each runs as a task of its own, and its answer is the engine's
//! next event. The engine bounds how many are in flight (calls about jobs, revokes), and the
//! windows do (publishes).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Event as LedgerEvent;
use longshore_protocol::{Hint, JobSummary, Timestamp};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::trace;

use crate::engine::{self, Engine, Event, JobSpec};
use crate::executor::Executor;

/// The engine takes a step at least once in this time, whatever it says about its next wake.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The most events that are received at once.
const BATCH: usize = 256;

/// Admissions that wait for the engine's answer. The admitter handles fewer documents at once.
const ADMISSIONS: usize = 128;

/// A job that is about to be admitted.
pub(crate) struct AdmissionRequest {
    /// The job as the ledger will store it, but for its times.
    summary: JobSummary,
    spec: JobSpec,
    /// Receives the size of the first chunk.
    reply: oneshot::Sender<Option<u64>>,
}

/// How the admitter talks to the engine.
pub(crate) struct EngineHandle {
    events: Sender<Event>,
    admissions: Sender<AdmissionRequest>,
}

impl EngineHandle {
    /// A handle, and what [`run`] receives from it.
    pub(crate) fn new(events: Sender<Event>) -> (Self, Receiver<AdmissionRequest>) {
        let (admissions, requests) = mpsc::channel(ADMISSIONS);
        (Self { events, admissions }, requests)
    }

    /// See [`Engine::begin_admission`].
    pub(crate) async fn begin_admission(&self, summary: JobSummary, spec: JobSpec) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        let _ = self.admissions.send(AdmissionRequest { summary, spec, reply }).await;
        // At shutdown there is no answer; then no chunk is opened.
        answer.await.ok().flatten()
    }

    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}

/// Works until `stop`; then waits for the actions that are in flight.
pub(crate) async fn run(
    config: engine::Config,
    executor: Executor,
    (mut inbox, mut admissions): (Receiver<Event>, Receiver<AdmissionRequest>),
    stop: CancellationToken,
) {
    let executor = Arc::new(executor);
    let mut engine = Engine::new(config);
    let mut tasks: JoinSet<Option<Event>> = JoinSet::new();
    let start = Instant::now();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let now = Timestamp::default().plus(start.elapsed());
        let wake = engine.next_wake().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
        tokio::select! {
            // In a fixed order, so that a run can be repeated. None starves: there are no more
            // admissions than documents are handled at once, and answers are received below too.
            biased;
            () = stop.cancelled() => break,
            Some(AdmissionRequest { summary, spec, reply }) = admissions.recv() => {
                let now = Timestamp::default().plus(start.elapsed());
                let _ = reply.send(engine.begin_admission(now, summary, spec));
                continue;
            }
            count = inbox.recv_many(&mut batch, BATCH) => {
                // The senders are only dropped at shutdown.
                if count == 0 { break }
            }
            Some(done) = tasks.join_next() => batch.extend(answer(done)),
            () = tokio::time::sleep(wake) => batch.push(Event::Tick),
        }
        // No more than were in flight, which the engine bounds.
        while let Some(done) = tasks.try_join_next() {
            batch.extend(answer(done));
        }
        let now = Timestamp::default().plus(start.elapsed());
        for event in coalesced(&mut batch) {
            for action in engine.step(now, event) {
                trace!(?action, "action decided");
                let executor = executor.clone();
                tasks.spawn(async move { executor.execute(action).await });
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// A task that panicked stops the scheduler: its answer would be missing for ever.
fn answer(done: Result<Option<Event>, tokio::task::JoinError>) -> Option<Event> {
    match done {
        Ok(event) => event,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The events without repeated hints that the window of a job has room: thousands a second say the
/// same.
fn coalesced(batch: &mut Vec<Event>) -> impl Iterator<Item = Event> {
    let mut seen = BTreeSet::new();
    batch.drain(..).filter(move |event| match event {
        Event::Hint(LedgerEvent::Hint(Hint::Room { job })) => seen.insert(*job),
        _ => true,
    })
}
