//! Finds the chunks of a job whose messages were lost, without flooding a queue in which they only
//! wait.

use longshore_broker::{Broker, Queue};
use longshore_ledger::{Error, Ledger, Sweep};
use longshore_protocol::{Epoch, JobId};
use tracing::debug;

use crate::health::Health;
use crate::performer::PUBLISH_WITHIN;

/// Most messages of a job that one sweep publishes again; the next one goes on.
const LIMIT: u32 = 1_000;

/// The epoch of chunks that nobody has handed back.
const FIRST: Epoch = Epoch(1);

/// Sweeps a job. Where `unless_in` names a queue (and how many chunks of other jobs wait in it)
/// that holds as many messages as chunks wait, none was lost: then only what was handed back by a
/// worker is left to publish.
pub(crate) async fn sweep(
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    health: &Health,
    job: JobId,
    unless_in: Option<(Queue, u64)>,
) -> Result<Option<Sweep>, Error> {
    let Some(mut sweep) = ledger.sweep(job, LIMIT, PUBLISH_WITHIN).await? else { return Ok(None) };
    if let Some((queue, others)) = unless_in
        && sweep.publish.iter().any(|message| message.epoch == FIRST)
    {
        let waiting = others + sweep.summary.queued_chunks;
        // If the broker does not say, publishing once too often is the smaller evil.
        let depth = health.note(broker.depth(&queue).await).ok().flatten();
        if depth.is_some_and(|depth| depth.ready >= waiting) {
            sweep.publish.retain(|message| message.epoch != FIRST);
        }
    }
    if !sweep.publish.is_empty() {
        debug!(%job, chunks = sweep.publish.len(), "published again");
    }
    Ok(Some(sweep))
}
