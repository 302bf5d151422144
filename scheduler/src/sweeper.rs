//! Sweeps one job: finds the chunks whose messages were lost, not those whose messages still wait.
//!
//! So a sweep does not flood a queue.

use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{Error, Ledger, Sweep, SweepParams};
use longshore_protocol::{Epoch, JobId};
use tracing::debug;

use crate::executor::PUBLISH_WITHIN;
use crate::health::Health;

/// The most messages of a job that one sweep publishes again; the next sweep goes on.
const LIMIT: u32 = 1_000;

/// After this time without a claim a message counts as lost, where messages are suspected lost: on
/// a fleet that keeps up, most chunks have been claimed by then.
const SUSPECT_AFTER: Duration = Duration::from_millis(200);

/// Sweeps a job; `None` if the ledger has no such job.
pub(crate) async fn sweep(
    ledger: &dyn Ledger,
    job: JobId,
    suspect_lost: bool,
) -> Result<Option<Sweep>, Error> {
    let suspect_lost = suspect_lost.then_some(SUSPECT_AFTER);
    let params = SweepParams { suspect_lost, ..SweepParams::new(LIMIT, PUBLISH_WITHIN) };
    let sweep = ledger.sweep(job, &params).await?;
    if let Some(sweep) = sweep.as_ref().filter(|sweep| !sweep.publish.is_empty()) {
        debug!(%job, chunks = sweep.publish.len(), "overdue chunks are published again");
    }
    Ok(sweep)
}

/// Leaves out messages that still wait. If `queue`, in which `others` chunks of other jobs wait,
/// holds as many messages as chunks wait, none was lost; then only chunks that a worker released
/// are to be published.
pub(crate) async fn drop_queued(
    broker: &dyn Broker,
    health: &Health,
    sweep: &mut Sweep,
    queue: &Queue,
    others: u64,
) {
    if sweep.publish.iter().all(|message| message.epoch != Epoch::FIRST) {
        return;
    }
    let waiting = others + sweep.summary.queued_chunks;
    // If the broker does not answer, to publish once too often is the smaller evil.
    let depth = health.note(broker.depth(queue).await).ok().flatten();
    if depth.is_some_and(|depth| depth.ready >= waiting) {
        sweep.publish.retain(|message| message.epoch != Epoch::FIRST);
    }
}
