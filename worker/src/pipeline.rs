//! A chunk from the message to the acknowledgement: claim, resolve, run under a time-out, judge,
//! commit, acknowledge.
//!
//! Whatever happens, a chunk that was granted ends in one of three ways: it is committed to its
//! end, the ledger says that it is ours no more, or it is released. Anything else would leave it
//! with a live worker that has forgotten it.
//!
//! Deliberately absent: what a task does (`task`), who decides that a chunk must stop (`holdings`,
//! `heart`).

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Delivery;
use longshore_ledger::{Claim, Committed, Error, Grant, HandBack, Held, Ledger};
use longshore_protocol::document::Results;
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, NodeId, Outcome, Plan, Run, Token, runs_len, split_results,
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, instrument, warn};

use crate::Config;
use crate::attempt::{Ended, attempt};
use crate::backoff::insist;
use crate::batch::{Batch, Judge, Settled};
use crate::config::REDUCE_FACTOR;
use crate::heart::Pulse;
use crate::holdings::{Ending, Hold, Holdings, Taken};
use crate::plans::{self, Plans};
use crate::task::{Handler, Handlers};

/// A chunk that can't run here and now, for no fault of its own, is kept this long before it is
/// released: it comes back at once, and the trouble should have a chance to pass.
const STALL: Duration = Duration::from_secs(1);

/// How often a result object is written again before its subtasks are failed attempts.
const WRITES: u32 = 3;

/// What every slot of a worker shares.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) plans: Plans,
    pub(crate) slots: Semaphore,
    pub(crate) pulse: watch::Receiver<Pulse>,
    /// Cancelled when nothing new is to be claimed.
    pub(crate) closing: CancellationToken,
    /// Cancelled when there is no more time, even to release.
    pub(crate) over: CancellationToken,
    /// Cancelled when a chunk may have been left behind: then the ledger must not forget this node,
    /// since its silence is what frees the chunk.
    pub(crate) left_behind: CancellationToken,
}

/// A granted chunk, ready to run.
pub(crate) struct Chunk<'a> {
    pub(crate) hold: &'a Hold,
    pub(crate) grant: &'a Grant,
    pub(crate) plan: Arc<Plan>,
    pub(crate) handler: Option<&'a dyn Handler>,
    pub(crate) judge: Judge,
}

/// What became of the try to claim a chunk.
enum Claimed {
    Granted(Taken, Grant),
    /// There is nothing to do; the message has served.
    Nothing,
    /// The worker stops before the ledger answered.
    GaveUp,
}

impl Pipeline {
    /// Works off one delivery.
    pub(crate) async fn work_off(self: Arc<Self>, delivery: Delivery) {
        let Delivery { body, settle, .. } = delivery;
        let Some(message) = read(&body) else { return settle.ack().await };
        let Some(_slot) = self.slot().await else { return settle.requeue().await };
        let (hold, grant) = match self.claim(&message).await {
            Claimed::Granted(hold, grant) => (hold, grant),
            Claimed::Nothing => return settle.ack().await,
            Claimed::GaveUp => return settle.requeue().await,
        };
        let mut work = Box::pin(self.work(&hold, &grant));
        if tokio::time::timeout(self.config.ack_after, &mut work).await.is_ok() {
            return settle.ack().await;
        }
        // The claim is durable, so the message has served; the broker must not wait for a long
        // task.
        settle.ack().await;
        work.await;
    }

    /// Runs what was granted, and gives back what did not run.
    #[instrument(name = "chunk", skip_all, fields(job = %hold.held.job, chunk = %hold.held.chunk))]
    async fn work(&self, hold: &Hold, grant: &Grant) {
        let mut batch = Batch::new(grant.from, self.config.commit_every);
        match self.prepare(hold, grant).await {
            Ok(chunk) => self.run(&chunk, &mut batch).await,
            Err(reason) => stall(hold, &reason).await,
        }
        if batch.next() < grant.to || hold.is_abandoned() {
            self.release(hold).await;
        }
        debug!(from = grant.from, to = grant.to, next = batch.next(), "chunk left");
    }

    /// Subtask by subtask, in order of index, so that what is settled is always a prefix.
    async fn run(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        while batch.next() < chunk.grant.to && chunk.hold.goes_on() {
            let begun = Instant::now();
            match attempt(self, chunk, batch).await {
                Ended::Outcome(outcome) => {
                    batch.push(chunk.judge.judge(outcome, rand::random()), begun.elapsed());
                }
                Ended::Stopped => break,
                Ended::Stuck(reason) => {
                    self.commit(chunk, batch).await;
                    return stall(chunk.hold, &reason).await;
                }
            }
            if batch.is_due() {
                self.commit(chunk, batch).await;
            }
            // Ten thousand instant subtasks would keep everybody else from this thread.
            tokio::task::coop::consume_budget().await;
        }
        self.commit(chunk, batch).await;
    }

    /// Waits for a slot and a beating heart. `None` if the message should go to somebody else.
    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        let ready = async {
            let permit = self.slots.acquire().await.ok()?;
            let mut pulse = self.pulse.clone();
            pulse.wait_for(|pulse| *pulse == Pulse::Beating).await.ok()?;
            Some(permit)
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            // Behind long tasks a message would wait until RabbitMQ loses its patience with us.
            permit = tokio::time::timeout(self.config.ack_after, ready) => permit.ok().flatten(),
        }
    }

    async fn claim(&self, message: &ChunkMessage) -> Claimed {
        let &ChunkMessage { job, chunk, epoch, .. } = message;
        // Drawn before the first try and repeated by the others, so that a lost answer does no
        // harm.
        let token = Token::from_bytes(rand::random());
        let hold = self.holdings.take(Held { job, chunk, token });
        let ask = || self.ledger.claim(job, chunk, epoch, token, &self.node);
        match insist("claim", hold.cancel(), ask).await {
            Some(Ok(Claim::Granted(grant))) => {
                hold.granted();
                Claimed::Granted(hold, grant)
            }
            Some(Ok(Claim::Stale | Claim::Gone)) => Claimed::Nothing,
            Some(Err(error)) => {
                error!(%job, %chunk, %error, "claim failed");
                stall(&hold, "the claim failed").await;
                self.release(&hold).await;
                Claimed::GaveUp
            }
            None => {
                // One of the tries may have been granted all the same.
                self.release(&hold).await;
                Claimed::GaveUp
            }
        }
    }

    /// Finds the plan and the handler. The error says why the chunk can't run now.
    async fn prepare<'a>(&'a self, hold: &'a Hold, grant: &'a Grant) -> Result<Chunk<'a>, String> {
        let job = hold.held.job;
        let plan = loop {
            match self.plans.get(self.ledger.as_ref(), job, &grant.digest).await {
                Ok(plan) => break plan,
                Err(plans::Error::Ledger(Error::Unavailable { .. })) if hold.goes_on() => {
                    tokio::time::sleep(STALL / 4).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        let document = plan.document();
        let is_reduce = grant.from >= plan.total();
        // Subtasks and reduce nodes never share a chunk, so one handler serves all of it.
        let handler = self.handlers.find(plan.task(grant.from));
        let factor = if is_reduce { REDUCE_FACTOR } else { 1 };
        let judge = Judge {
            retry: document.retry.clone(),
            attempt: grant.attempt,
            deferrals: grant.deferrals,
            max_result: self.config.max_result.saturating_mul(factor),
            // A reduction needs what it combines, whatever becomes of it in the end.
            keep_results: document.results != Results::Discard || document.reduce.is_some(),
        };
        Ok(Chunk { hold, grant, plan, handler, judge })
    }

    /// Commits what is settled so far, and insists until the ledger has answered or the chunk is
    /// not ours any more.
    pub(crate) async fn commit(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        let Some(settled) = batch.take() else { return };
        let hold = chunk.hold;
        if hold.is_abandoned() {
            return;
        }
        let Held { job, chunk: id, token } = hold.held;
        let commit = self.store(chunk, settled).await;
        let ask = || self.ledger.commit(job, id, token, &commit);
        let end = commit.from + runs_len(&commit.runs);
        match insist("commit", hold.abandoned(), ask).await {
            Some(Ok(Committed::Settled { state })) if state.is_terminal() => {
                hold.end(Ending::Abandon);
            }
            Some(Ok(Committed::Settled { state: JobState::Paused })) => hold.end(Ending::Yield),
            Some(Ok(Committed::Settled { .. })) => {}
            Some(Ok(Committed::Fenced)) => {
                info!(from = commit.from, to = end, "the chunk is somebody else's; not committed");
                hold.end(Ending::Abandon);
            }
            Some(Err(error)) => {
                error!(from = commit.from, to = end, %error, "commit failed");
                hold.end(Ending::Abandon);
                tokio::time::sleep(STALL).await;
            }
            None => hold.end(Ending::Abandon),
        }
    }

    /// Writes results to where the job wants them, and leaves pointers in their place.
    async fn store(&self, chunk: &Chunk<'_>, settled: Settled) -> longshore_ledger::Commit {
        let Settled { from, runs, busy } = settled;
        let runs = split_results(from, runs);
        let Results::Url(prefix) = &chunk.plan.document().results else {
            return longshore_ledger::Commit { from, runs, busy };
        };
        let mut stored = Vec::with_capacity(runs.len());
        let mut index = from;
        for run in runs {
            let to = index + run.len();
            match run {
                Run::Success { count, results: Some(lines) } => {
                    let name = format!("{}/{index:013}-{to:013}.jsonl", chunk.hold.held.job);
                    match write(prefix, &name, lines).await {
                        Ok(url) => {
                            let results = Some(format!("@{url}"));
                            stored.push(Run::Success { count, results });
                        }
                        Err(outcome) => stored.extend(
                            (index..to).map(|_| chunk.judge.judge(outcome.clone(), rand::random())),
                        ),
                    }
                }
                other => stored.push(other),
            }
            index = to;
        }
        longshore_ledger::Commit { from, runs: stored, busy }
    }

    /// Hands back what is not settled. After a fence this is what lets the chunk run elsewhere.
    async fn release(&self, hold: &Hold) {
        let Held { job, chunk, token } = hold.held;
        let ask = || self.ledger.release(job, chunk, token);
        match insist("release", &self.over, ask).await {
            Some(Ok(HandBack::Queued)) => debug!(%job, %chunk, "the rest is released"),
            Some(Ok(HandBack::Fenced)) => {}
            Some(Err(error)) => {
                error!(%job, %chunk, %error, "release failed");
                self.left_behind.cancel();
            }
            None => self.left_behind.cancel(),
        }
    }
}

/// Reads a chunk message. What can't be read is dropped: the sweep publishes every chunk that waits
/// again.
fn read(body: &[u8]) -> Option<ChunkMessage> {
    match serde_json::from_slice::<ChunkMessage>(body) {
        Ok(message) if message.v == ChunkMessage::VERSION => Some(message),
        Ok(message) => {
            warn!(version = message.v, "a chunk message of another version is dropped");
            None
        }
        Err(error) => {
            warn!(%error, bytes = body.len(), "a message that is no chunk is dropped");
            None
        }
    }
}

async fn stall(hold: &Hold, reason: &str) {
    warn!(job = %hold.held.job, chunk = %hold.held.chunk, reason, "can't run the chunk now");
    tokio::select! {
        () = hold.cancel().cancelled() => {}
        () = tokio::time::sleep(STALL) => {}
    }
}

/// Writes one result object; the error is the outcome of each subtask whose result it would have
/// held.
async fn write(prefix: &str, name: &str, lines: String) -> Result<String, Outcome> {
    let bytes = lines.into_bytes();
    let mut tries = 1;
    loop {
        match longshore_storage::write(prefix, name, bytes.clone()).await {
            Ok(url) => return Ok(url),
            Err(error) if error.is_permanent() || tries == WRITES => {
                let retry = !error.is_permanent();
                return Err(Outcome::Failure { error: format!("results: {error}"), retry });
            }
            Err(error) => {
                warn!(%error, "can't write results; trying again");
                tokio::time::sleep(STALL * tries).await;
                tries += 1;
            }
        }
    }
}
