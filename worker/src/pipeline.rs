//! Takes a chunk from its message to the acknowledgement: claims it, runs it, or releases it.
//!
//! The steps are claim, resolve, run under a timeout, classify, commit, acknowledge.
//!
//! A granted chunk ends in one of three ways: it is committed to its end, the ledger says that this
//! worker does not hold it any more, or it is released. Anything else would leave the chunk with a
//! live worker that has forgotten it.
//!
//! Deliberately absent: what a task does (`task`), who decides that a chunk must stop
//! (`held_chunks`, `heartbeat`).

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Delivery, Settle};
use longshore_ledger::{Claim, ClaimParams, Error, Grant, Held, Ledger, ReleaseParams, Released};
use longshore_protocol::{ChunkMessage, NodeId, Outcome, OutcomeRun};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use crate::attempt::Interruption;
use crate::availability::Availability;
use crate::chunk::{Chunk, Unprepared};
use crate::commits::Commits;
use crate::heartbeat::LivenessReceiver;
use crate::held_chunks::{ChunkLease, HeldChunks, LeaseGuard};
use crate::plans::Plans;
use crate::prefetch::{Prefetcher, Slot};
use crate::records::Records;
use crate::results::UnwritableLocations;
use crate::retry::{LedgerHealth, retry_until};
use crate::task::Handlers;
use crate::{Config, Environment};

/// A chunk that can't run now is kept this long before it is released: its message comes back at
/// once, and the cause should have time to pass.
pub(crate) const STALL: Duration = Duration::from_secs(1);

/// A chunk of a task that this worker can't run is kept this long, without a slot, before it is
/// released: by then schedulers know about the task, and messages don't go round in circles.
const WRONG_NODE: Duration = Duration::from_millis(100);

/// What the log says of a task, once, until it is enabled again.
pub(crate) const TASK_DISABLED: &str = "task disabled: it can't be started on this host";

/// What all chunks of a worker share.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) environment: Arc<Environment>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) ledger_health: LedgerHealth,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) records: Arc<Records>,
    pub(crate) chunks: Arc<HeldChunks>,
    pub(crate) plans: Plans,
    pub(crate) locations: UnwritableLocations,
    pub(crate) prefetcher: Prefetcher,
    pub(crate) liveness: LivenessReceiver,
    /// Cancelled when nothing new is to be claimed.
    pub(crate) closing: CancellationToken,
    /// Cancelled when there is no more time, not even to release.
    pub(crate) over: CancellationToken,
    /// Cancelled when a chunk may have been left behind: then the ledger must not forget this node,
    /// since its silence is what frees the chunk.
    pub(crate) left_behind: CancellationToken,
}

/// A granted chunk and the slot for it.
struct Claimed<'a> {
    lease: LeaseGuard,
    grant: Grant,
    slot: Slot<'a>,
}

/// What to do with the message of a chunk that does not run here.
enum Disposition {
    /// The message is of no more use.
    Acknowledge,
    /// The message is for another worker, or for later.
    Requeue,
}

impl Pipeline {
    /// Takes a chunk through all steps, from its message to the acknowledgement. `is_prefetched`
    /// tells that the message was fetched ahead of the slots.
    pub(crate) async fn process(self: Arc<Self>, delivery: Delivery, is_prefetched: bool) {
        let Delivery { body, settle, .. } = delivery;
        let Some(message) = read(&body) else { return settle.ack().await };
        let Claimed { lease, grant, slot } = match self.acquire(&message, is_prefetched).await {
            Ok(claimed) => claimed,
            Err(Disposition::Acknowledge) => return settle.ack().await,
            Err(Disposition::Requeue) => return settle.requeue().await,
        };
        let work = async {
            let chunk = match self.prepare(&lease, &grant).await {
                Ok(chunk) => chunk,
                Err(reason) => return self.give_up(&lease, slot, reason).await,
            };
            let mut commits = Commits::new(&self, &chunk);
            self.run_blocking(&chunk, commits.batch()).await;
            // In order of index, so that the settled subtasks are always a prefix of the chunk.
            while let Some(index) = commits.next_index() {
                let started = Instant::now();
                let outcome = match chunk.instant_outcome() {
                    Some(outcome) => Ok(outcome),
                    None => {
                        let attempt = Box::pin(async {
                            let input = self.resolve(&chunk, index).await?;
                            self.run_under_timeout(&chunk, index, input).await
                        });
                        commits.beside(attempt).await
                    }
                };
                match self.classify(&chunk, outcome) {
                    Ok(run) => commits.add(run, started.elapsed()).await,
                    Err(reason) => {
                        self.interrupt(&chunk, &mut commits, reason).await;
                        break;
                    }
                }
            }
            // The next chunk gets the slot while the last subtasks of this one are committed.
            slot.free(chunk.since.elapsed());
            let committed = commits.finish().await;
            if committed < grant.to {
                self.release(&lease, chunk.part()).await;
            }
            debug!(from = grant.from, to = grant.to, committed, "chunk finished");
        };
        let span = info_span!("chunk", job = %message.job, chunk = %message.chunk);
        self.acknowledge(settle, Box::pin(work.instrument(span))).await;
    }

    /// Claims a chunk once the prefetcher admits it, and waits for its slot.
    async fn acquire(
        &self,
        message: &ChunkMessage,
        is_prefetched: bool,
    ) -> Result<Claimed<'_>, Disposition> {
        let admission = self.prefetcher.admit(message, is_prefetched).await;
        let admission = admission.ok_or(Disposition::Requeue)?;
        let (lease, grant) = self.claim(message).await?;
        let Some(slot) = admission.into_slot(lease.cancel()).await else {
            self.release(&lease, None).await;
            return Err(Disposition::Acknowledge);
        };
        Ok(Claimed { lease, grant, slot })
    }

    /// Claims a chunk, and fetches the job's plan meanwhile.
    async fn claim(&self, message: &ChunkMessage) -> Result<(LeaseGuard, Grant), Disposition> {
        let &ChunkMessage { job, chunk, .. } = message;
        // All tries carry the same token, so that a lost answer does no harm.
        let token = self.environment.token();
        let lease = self.chunks.hold(Held { job, chunk, token });
        let planned = self.plans.prepare(self.ledger.as_ref(), job);
        match tokio::join!(self.ask_for(message, &lease), planned).0 {
            Some(Ok(Claim::Granted(grant))) => {
                lease.granted();
                Ok((lease, grant))
            }
            Some(Ok(Claim::Stale { .. } | Claim::Gone)) => Err(Disposition::Acknowledge),
            Some(Err(error)) => {
                error!(%job, %chunk, %error, "claim failed");
                stall(&lease, "the claim failed").await;
                self.release(&lease, None).await;
                Err(Disposition::Requeue)
            }
            None => {
                // The answer to one of the tries may have been lost, and the chunk granted.
                self.release(&lease, None).await;
                Err(Disposition::Requeue)
            }
        }
    }

    /// Claims the chunk of a message, and tries until the ledger has answered.
    async fn ask_for(
        &self,
        message: &ChunkMessage,
        lease: &ChunkLease,
    ) -> Option<Result<Claim, Error>> {
        let Held { job, token, .. } = lease.held;
        let params = ClaimParams::of(message, token, self.node.clone());
        let ask = || self.ledger.claim(job, &params);
        retry_until(&self.ledger_health, "claim", &self.environment, lease.cancel(), ask).await
    }

    /// Releases a chunk that can't run, but not at once: its message comes back soon.
    async fn give_up(&self, lease: &ChunkLease, slot: Slot<'_>, reason: Unprepared) {
        match reason {
            Unprepared::NotYet(reason) => stall(lease, &reason).await,
            Unprepared::NotHere(reason) => {
                drop(slot);
                debug!(reason, "the chunk is released for another worker");
                let _ = tokio::time::timeout(WRONG_NODE, lease.cancel().cancelled()).await;
            }
        }
        self.release(lease, None).await;
    }

    /// What the ledger is to record for an attempt; the error tells why that is nothing.
    fn classify(
        &self,
        chunk: &Chunk<'_>,
        outcome: Result<Outcome, Interruption>,
    ) -> Result<OutcomeRun, Interruption> {
        let outcome = match outcome {
            Ok(outcome) | Err(Interruption::Unresolvable(outcome)) => outcome,
            Err(reason) => return Err(reason),
        };
        self.availability.started(chunk.task());
        Ok(chunk.classifier.classify(outcome, self.environment.random()))
    }

    /// Deals with an attempt that ends its chunk.
    async fn interrupt(&self, chunk: &Chunk<'_>, commits: &mut Commits<'_>, reason: Interruption) {
        match reason {
            Interruption::Stopped | Interruption::Unresolvable(_) => {}
            Interruption::NotStarted(reason) => {
                if self.availability.disable(chunk.task(), reason.clone()) {
                    warn!(task = chunk.task(), reason, "{TASK_DISABLED}");
                }
            }
            Interruption::Blocked(reason) => {
                commits.flush().await;
                stall(chunk.lease, &reason).await;
            }
        }
    }

    /// Acknowledges a message once the work on its chunk is done, or has gone on for long: the
    /// claim is durable then, and RabbitMQ must not wait for the end of a long chunk. Nor does the
    /// work wait for the acknowledgement: it could not even be stopped while that is stuck.
    async fn acknowledge(
        &self,
        settle: Box<dyn Settle>,
        mut work: impl Future<Output = ()> + Unpin,
    ) {
        if tokio::time::timeout(self.config.ack_after, &mut work).await.is_ok() {
            return settle.ack().await;
        }
        tokio::join!(settle.ack(), work);
    }

    /// Releases the subtasks that are not settled, in parts of `part` if that is given. After a
    /// fence this is what lets the chunk run elsewhere.
    async fn release(&self, lease: &ChunkLease, part: Option<u64>) {
        let Held { job, chunk, token } = lease.held;
        let params = ReleaseParams { part, ..ReleaseParams::new(chunk, token) };
        let call = || self.ledger.release(job, &params);
        let (health, environment) = (&self.ledger_health, &self.environment);
        match retry_until(health, "release", environment, &self.over, call).await {
            Some(Ok(Released::Queued)) => debug!(%job, %chunk, "the rest is released"),
            Some(Ok(Released::Fenced)) => {}
            Some(Err(error)) => {
                error!(%job, %chunk, %error, "release failed");
                self.left_behind.cancel();
            }
            None => self.left_behind.cancel(),
        }
    }
}

/// Reads a chunk message. A message that can't be read is dropped: the sweep publishes every chunk
/// that waits again.
pub(crate) fn read(body: &[u8]) -> Option<ChunkMessage> {
    match serde_json::from_slice::<ChunkMessage>(body) {
        Ok(message) if message.v == ChunkMessage::VERSION => Some(message),
        Ok(message) => {
            warn!(version = message.v, "chunk message of another version dropped");
            None
        }
        Err(error) => {
            warn!(%error, bytes = body.len(), "unreadable chunk message dropped");
            None
        }
    }
}

/// Keeps a chunk for a while before it is released.
async fn stall(lease: &ChunkLease, reason: &str) {
    warn!(job = %lease.held.job, chunk = %lease.held.chunk, reason, "the chunk can't run now");
    tokio::select! {
        biased;
        () = lease.cancel().cancelled() => {}
        () = tokio::time::sleep(STALL) => {}
    }
}
