//! Brings events to the engine and has its actions performed, many at a time.
//!
//! Nothing here waits for an action: each runs as a task of its own, and its answer is the engine's
//! next event. How many are under way is bounded by the engine (calls about jobs) and by the
//! windows (publishes).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Event as Hint;
use longshore_protocol::Timestamp;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::trace;

use crate::engine::{self, Engine, Event};
use crate::performer::Performer;

/// The engine is asked at least so often, whatever it says about its next wake.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Events taken in before the actions of the first of them begin.
const BATCH: usize = 256;

/// Works until `stop`; then lets what is under way come to its end.
pub(crate) async fn run(
    settings: engine::Config,
    performer: Performer,
    mut inbox: Receiver<Event>,
    stop: CancellationToken,
) {
    let performer = Arc::new(performer);
    let mut engine = Engine::new(settings);
    let mut tasks: JoinSet<Option<Event>> = JoinSet::new();
    let start = Instant::now();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let now = Timestamp::default().plus(start.elapsed());
        let wake = engine.next_wake().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
        tokio::select! {
            // In a fixed order, so that a run can be repeated. Nobody starves: answers are taken in below too.
            biased;
            () = stop.cancelled() => break,
            count = inbox.recv_many(&mut batch, BATCH) => {
                // The loops that send are only dropped at shutdown.
                if count == 0 { break }
            }
            Some(done) = tasks.join_next() => batch.extend(answer(done)),
            () = tokio::time::sleep(wake) => batch.push(Event::Tick),
        }
        // As many as were under way, which the engine bounds.
        while let Some(done) = tasks.try_join_next() {
            batch.extend(answer(done));
        }
        let now = Timestamp::default().plus(start.elapsed());
        for event in coalesced(&mut batch) {
            for action in engine.step(now, event) {
                trace!(?action, "to do");
                let performer = performer.clone();
                tasks.spawn(async move { performer.perform(action).await });
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// A task that panicked takes the scheduler down with it: its answer would be missing for ever.
fn answer(done: Result<Option<Event>, tokio::task::JoinError>) -> Option<Event> {
    match done {
        Ok(event) => event,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The events without repeated hints that a window has room: thousands a second say the same.
fn coalesced(batch: &mut Vec<Event>) -> impl Iterator<Item = Event> {
    let mut told = BTreeSet::new();
    batch.drain(..).filter(move |event| match event {
        Event::Hint(Hint::Room { job }) => told.insert(*job),
        _ => true,
    })
}
