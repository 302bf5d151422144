//! Finds the chunks of a job whose messages were lost, without flooding a queue in which they only
//! wait.

use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{Error, Ledger, Sweep, SweepParams};
use longshore_protocol::{Epoch, JobId};
use tracing::debug;

use crate::executor::PUBLISH_WITHIN;
use crate::health::Health;

/// Most messages of a job that one sweep publishes again; the next one goes on.
const LIMIT: u32 = 1_000;

/// After this time without a claim a message is doubted, where doubt is called for: on a fleet that keeps up most chunks have
/// been claimed by then.
const DOUBT_AFTER: Duration = Duration::from_millis(200);

/// Sweeps a job.
pub(crate) async fn sweep(
    ledger: &dyn Ledger,
    job: JobId,
    doubt: bool,
) -> Result<Option<Sweep>, Error> {
    let suspect_lost = doubt.then_some(DOUBT_AFTER);
    let params = SweepParams { suspect_lost, ..SweepParams::new(LIMIT, PUBLISH_WITHIN) };
    let sweep = ledger.sweep(job, &params).await?;
    if let Some(sweep) = sweep.as_ref().filter(|sweep| !sweep.publish.is_empty()) {
        debug!(%job, chunks = sweep.publish.len(), "to be published again");
    }
    Ok(sweep)
}

/// If `queue` (in which so many chunks of other jobs wait) holds as many messages as chunks wait, none was lost: then only what was
/// handed back by a worker is left to publish.
pub(crate) async fn spare(
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
    // If the broker does not say, publishing once too often is the smaller evil.
    let depth = health.note(broker.depth(queue).await).ok().flatten();
    if depth.is_some_and(|depth| depth.ready >= waiting) {
        sweep.publish.retain(|message| message.epoch != Epoch::FIRST);
    }
}
