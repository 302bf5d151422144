//! A chunk from the message to the acknowledgement: claim, resolve, run under a time-out, judge,
//! commit, acknowledge.
//!
//! Whatever happens, a chunk that was granted ends in one of three ways: it is committed to its
//! end, the ledger says that it is ours no more, or it is released. Anything else would leave it
//! with a live worker that has forgotten it.
//!
//! Deliberately absent: what a task does (`task`), who decides that a chunk must stop (`holdings`,
//! `heart`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_broker::Delivery;
use longshore_ledger::{
    Claim, ClaimParams, CommitParams, Committed, Error, Grant, Held, Ledger, ReleaseParams,
    Released,
};
use longshore_protocol::document::{self, Results};
use longshore_protocol::{ChunkMessage, Epoch, NodeId, Plan};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, instrument, warn};

use crate::attempt::{Ended, attempt};
use crate::availability::Availability;
use crate::backoff::{Reach, insist};
use crate::batch::{Batch, Judge, Settled};
use crate::commits::{Commits, Put};
use crate::config::{MAX_LEDGER_RESULT, REDUCE_FACTOR};
use crate::heart::Wrist;
use crate::holdings::{Ending, Hold, Holdings, Taken};
use crate::metrics;
use crate::pace::{Gait, Pace};
use crate::passed::Passed;
use crate::plans::{self, Plans};
use crate::records::Records;
use crate::results::{Stored, UnwritableLocations};
use crate::task::{Computing, Handler, Handlers};
use crate::{Config, Machine};

/// A chunk that can't run here and now, for no fault of its own, is kept this long before it is
/// released: it comes back at once, and the trouble should have a chance to pass.
const STALL: Duration = Duration::from_secs(1);

/// A chunk of a task that this worker can't run is kept this long, without a slot, before it is
/// released: by then schedulers know more, and nobody is kept busy with messages that go round.
const WRONG_PLACE: Duration = Duration::from_millis(100);

/// A chunk that was handed out before (its node was lost, say) has waited enough: where all slots
/// are busy its message goes on to somebody else after this time; not quite so soon when this
/// worker has passed it on already, since then all may be busy.
const PASS_ON: Duration = Duration::from_millis(10);
const PASS_ON_AGAIN: Duration = Duration::from_millis(60);

/// What was fetched or claimed ahead of the slots waits so long for one; then others get it.
const WAIT_AHEAD: Duration = Duration::from_millis(100);

/// A chunk of automatic size is meant to take a quarter of a second, in the largest fleets a
/// second. One that takes longer, and will for [`MUCH`] more, has subtasks that are not like those
/// by which its size was found. What is left is cut into parts of about [`PART`].
const TOO_LONG: Duration = Duration::from_secs(1);
const MUCH: Duration = Duration::from_millis(500);
const PART: Duration = Duration::from_millis(250);

/// What the log says of a task, once, until it is enabled again.
pub(crate) const TASK_DISABLED: &str = "task disabled: it can't be started on this machine";

/// What every slot of a worker shares.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) machine: Arc<Machine>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) reach: Reach,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) records: Arc<Records>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) plans: Plans,
    pub(crate) locations: UnwritableLocations,
    pub(crate) slots: Semaphore,
    /// For chunks that are claimed before they have a slot.
    pub(crate) ahead: Semaphore,
    /// How many it has.
    pub(crate) places_ahead: u32,
    pub(crate) pace: Pace,
    pub(crate) passed: Passed,
    pub(crate) wrist: Arc<Wrist>,
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
    pub(crate) handler: &'a dyn Handler,
    pub(crate) judge: Judge,
    since: Instant,
    /// How many subtasks are to be a part of what is left, once the chunk takes too long.
    part: OnceLock<u64>,
    /// URLs of the result objects that were written and not committed yet.
    pub(crate) written: Mutex<Vec<String>>,
}

impl Chunk<'_> {
    /// Ends the hold if the chunk takes too long, going by how long each of its newest subtasks
    /// took, so that others have a part of what is left. A size that the job's owner chose stays,
    /// and a suspect is with us alone.
    fn share_if_too_long(&self, left: u64, each: Duration) {
        let is_chosen = matches!(self.plan.document().chunk, document::Chunk::Fixed(_))
            && self.grant.from < self.plan.total();
        let is_long = self.since.elapsed() >= TOO_LONG
            && each.as_secs_f64() * left as f64 >= MUCH.as_secs_f64();
        if left > 1 && is_long && !is_chosen && !self.grant.is_suspect() {
            let part = (PART.as_secs_f64() / each.as_secs_f64()) as u64;
            debug!(left, ?each, part, "the chunk takes too long; others shall have a part of it");
            let _ = self.part.set(part.max(1));
            self.hold.end(Ending::Yield);
        }
    }

    /// The task, if its subtasks may follow one another on one thread: of a suspect each is
    /// committed before the next begins, and a reduce node needs results first, a file is looked at
    /// first.
    fn computing(&self) -> Option<&Computing> {
        let free = !self.grant.is_suspect()
            && self.grant.from < self.plan.total()
            && self.plan.unchanged_file(self.grant.from).is_none();
        self.handler.computing().filter(|_| free)
    }

    fn task(&self) -> &str {
        self.plan.task(self.grant.from)
    }
}

/// A granted chunk and a slot for it.
struct Ready<'a> {
    hold: Taken,
    grant: Grant,
    slot: SemaphorePermit<'a>,
}

/// Why a granted chunk does not run.
enum Unprepared {
    /// Something can't be read now.
    NotYet(String),
    /// This worker can't run the task.
    NotHere(String),
}

/// What to do with a message instead of working on its chunk.
enum Instead {
    /// There is nothing to do; the message has served.
    Acknowledge,
    /// It is for somebody else, or for later.
    Requeue,
}

impl Pipeline {
    /// Works off one delivery, which may have been fetched ahead of the slots.
    pub(crate) async fn work_off(self: Arc<Self>, delivery: Delivery, is_ahead: bool) {
        let Delivery { body, settle, .. } = delivery;
        let Some(message) = read(&body) else { return settle.ack().await };
        let ready = match (self.pace.gait(), message.epoch) {
            (Gait::Run, Epoch::FIRST) => self.take_ahead(&message).await,
            (Gait::Walk, _) if is_ahead => Err(Instead::Requeue),
            _ => self.take(&message).await,
        };
        let Ready { hold, grant, slot } = match ready {
            Ok(ready) => ready,
            Err(Instead::Acknowledge) => return settle.ack().await,
            Err(Instead::Requeue) => return settle.requeue().await,
        };
        let mut work = Box::pin(self.work(&hold, &grant, slot));
        if tokio::time::timeout(self.config.ack_after, &mut work).await.is_ok() {
            return settle.ack().await;
        }
        // The claim is durable, so the message has served; the broker must not wait for a long
        // task. Nor the task for the broker: it could not even be stopped while an acknowledgement
        // is stuck.
        tokio::join!(settle.ack(), work);
    }

    /// Waits for a slot, then claims.
    async fn take(&self, message: &ChunkMessage) -> Result<Ready<'_>, Instead> {
        let patience = match (message.epoch != Epoch::FIRST, self.passed.knows(message)) {
            (true, false) => PASS_ON,
            (true, true) => PASS_ON_AGAIN,
            // Behind long tasks a message would wait until RabbitMQ loses its patience with us.
            (false, _) => self.config.ack_after,
        };
        let Some(slot) = self.place(&self.slots, 1, patience).await else {
            self.passed.note(message);
            return Err(Instead::Requeue);
        };
        let (hold, grant) = self.claim(message).await?;
        Ok(Ready { hold, grant, slot })
    }

    /// Claims, then waits for a slot; but not for long, since others may have one.
    async fn take_ahead(&self, message: &ChunkMessage) -> Result<Ready<'_>, Instead> {
        let weight = self.pace.weight(self.places_ahead, self.config.slots);
        let Some(_ahead) = self.place(&self.ahead, weight, WAIT_AHEAD).await else {
            self.pace.slow_down();
            return Err(Instead::Requeue);
        };
        let (hold, grant) = self.claim(message).await?;
        let slot = tokio::select! {
            biased;
            () = hold.cancel().cancelled() => None,
            slot = tokio::time::timeout(WAIT_AHEAD, self.slots.acquire()) => slot.ok(),
        };
        if let Some(Ok(slot)) = slot {
            return Ok(Ready { hold, grant, slot });
        }
        self.pace.slow_down();
        self.release(&hold, None).await;
        Err(Instead::Acknowledge)
    }

    /// Runs what was granted, and gives back what did not run.
    #[instrument(name = "chunk", skip_all, fields(job = %hold.held.job, chunk = %hold.held.chunk))]
    async fn work(&self, hold: &Hold, grant: &Grant, slot: SemaphorePermit<'_>) {
        // A suspect's subtasks are committed one by one: should one kill us, it is known which.
        let suspect = grant.is_suspect();
        let commit_every = if suspect { Duration::ZERO } else { self.config.commit_every };
        let mut batch = Batch::new(grant.from, commit_every);
        let part = match self.prepare(hold, grant).await {
            Ok(chunk) => {
                self.run(&chunk, &mut batch, slot).await;
                chunk.part.into_inner()
            }
            Err(Unprepared::NotYet(reason)) => {
                stall(hold, &reason).await;
                None
            }
            Err(Unprepared::NotHere(reason)) => {
                drop(slot);
                debug!(reason, "the chunk is handed back");
                let _ = tokio::time::timeout(WRONG_PLACE, hold.cancel().cancelled()).await;
                None
            }
        };
        if batch.committed() < grant.to {
            self.release(hold, part).await;
        }
        debug!(from = grant.from, to = grant.to, next = batch.next(), "chunk left");
    }

    /// Subtask by subtask, in order of index, so that what is settled is always a prefix. The slot
    /// is free for the next chunk while the last of it is committed.
    async fn run(&self, chunk: &Chunk<'_>, batch: &mut Batch, slot: SemaphorePermit<'_>) {
        let since = Instant::now();
        if let Some(task) = chunk.computing() {
            self.compute(chunk, batch, task).await;
        }
        let mut commits = Commits::new(self, chunk);
        while batch.next() < chunk.grant.to && chunk.hold.goes_on() {
            let begun = Instant::now();
            match attempt(self, chunk, batch, &mut commits).await {
                Ended::Outcome(outcome) => {
                    self.availability.started(chunk.task());
                    batch.push(chunk.judge.judge(outcome, self.machine.share()), begun.elapsed());
                }
                Ended::Stopped => break,
                Ended::NotStarted(reason) => {
                    if self.availability.disable(chunk.task(), reason.clone()) {
                        warn!(task = chunk.task(), reason, "{TASK_DISABLED}");
                    }
                    break;
                }
                Ended::Stuck(reason) => {
                    commits.finish(batch).await;
                    self.commit(chunk, batch).await;
                    stall(chunk.hold, &reason).await;
                    break;
                }
            }
            if batch.is_due() && batch.next() < chunk.grant.to {
                commits.catch_up(batch).await;
            }
            // Ten thousand instant subtasks would keep everybody else from this thread.
            tokio::task::coop::consume_budget().await;
        }
        self.pace.took(since.elapsed());
        drop(slot);
        commits.finish(batch).await;
        self.commit_rest(chunk, batch).await;
    }

    /// Waits for so many places of this kind and a beating heart. `None` if the message should go
    /// to somebody else.
    async fn place<'a>(
        &self,
        places: &'a Semaphore,
        count: u32,
        patience: Duration,
    ) -> Option<SemaphorePermit<'a>> {
        let ready = async {
            let permit = places.acquire_many(count).await.ok()?;
            self.wrist.beating().await;
            Some(permit)
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            permit = tokio::time::timeout(patience, ready) => permit.ok().flatten(),
        }
    }

    /// Claims, and fetches the job's plan meanwhile.
    async fn claim(&self, message: &ChunkMessage) -> Result<(Taken, Grant), Instead> {
        let &ChunkMessage { job, chunk, .. } = message;
        // Drawn before the first try and repeated by the others, so that a lost answer does no
        // harm.
        let token = self.machine.token();
        let hold = self.holdings.take(Held { job, chunk, token });
        let planned = self.plans.prepare(self.ledger.as_ref(), job);
        match tokio::join!(self.ask_for(message, &hold), planned).0 {
            Some(Ok(Claim::Granted(grant))) => {
                hold.granted();
                Ok((hold, grant))
            }
            Some(Ok(Claim::Stale { .. } | Claim::Gone)) => Err(Instead::Acknowledge),
            Some(Err(error)) => {
                error!(%job, %chunk, %error, "claim failed");
                stall(&hold, "the claim failed").await;
                self.release(&hold, None).await;
                Err(Instead::Requeue)
            }
            None => {
                // One of the tries may have been granted all the same.
                self.release(&hold, None).await;
                Err(Instead::Requeue)
            }
        }
    }

    /// Insists on an answer.
    async fn ask_for(&self, message: &ChunkMessage, hold: &Hold) -> Option<Result<Claim, Error>> {
        let Held { job, chunk, token } = hold.held;
        let claim = ClaimParams::new(chunk, message.epoch, token, self.node.clone());
        let ask = || self.ledger.claim(job, &claim);
        insist(&self.reach, "claim", &self.machine, hold.cancel(), ask).await
    }

    /// Finds the plan and the handler.
    async fn prepare<'a>(
        &'a self,
        hold: &'a Hold,
        grant: &'a Grant,
    ) -> Result<Chunk<'a>, Unprepared> {
        let job = hold.held.job;
        // In an outage of the ledger the plan is waited for.
        let plan = loop {
            match self.plans.get(self.ledger.as_ref(), job, &grant.digest).await {
                Ok(plan) => break plan,
                Err(plans::Error::Ledger(Error::Unavailable { .. })) if hold.goes_on() => {
                    tokio::time::sleep(STALL / 4).await;
                }
                Err(error) => return Err(Unprepared::NotYet(error.to_string())),
            }
        };
        let document = plan.document();
        if let Some(reason) = self.unwritable(&document.results) {
            return Err(Unprepared::NotYet(reason));
        }
        let is_reduce = grant.from >= plan.total();
        // Subtasks and reduce nodes never share a chunk, so one handler serves all of it.
        let task = plan.task(grant.from);
        if let Some(reason) = self.availability.why_disabled(task) {
            return Err(Unprepared::NotHere(reason));
        }
        let Some(handler) = self.handlers.find(task) else {
            return Err(Unprepared::NotHere(format!("the worker has no task `{task}`")));
        };
        if self.config.exclusive.contains(task) {
            hold.make_exclusive();
            if self.wrist.is_fenced() {
                hold.end(Ending::Abandon);
            }
        }
        let factor = if is_reduce { REDUCE_FACTOR } else { 1 };
        let most = match document.results {
            Results::Url(_) => usize::MAX,
            Results::Keep | Results::Discard => MAX_LEDGER_RESULT,
        };
        let judge = Judge {
            retry: document.retry.clone(),
            attempt: grant.attempt,
            deferrals: grant.deferrals,
            max_result: self.config.max_result.saturating_mul(factor).min(most),
            // A reduction needs what it combines, whatever becomes of it in the end.
            keep_results: document.results != Results::Discard || document.reduce.is_some(),
        };
        Ok(Chunk {
            hold,
            grant,
            plan,
            handler,
            judge,
            since: Instant::now(),
            part: OnceLock::new(),
            written: Mutex::default(),
        })
    }

    /// Commits what is settled so far, and insists until the ledger has answered or the chunk is
    /// not ours any more. Results that can't be written now stay in the batch.
    pub(crate) async fn commit(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        if self.try_commit(chunk, batch).await.is_err() {
            // The slot is for others while results wait to be written.
            chunk.hold.end(Ending::Yield);
        }
    }

    /// The same; the error says why results can't be written.
    pub(crate) async fn try_commit(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let Some(settled) = batch.take() else { return Ok(()) };
        match self.put(chunk, settled).await {
            Put::Taken(end) => batch.commit(end),
            Put::Refused => {}
            Put::Unwritten(settled, error) => {
                batch.put_back(settled);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Commits this, and insists until the ledger has answered or the chunk is not ours any more.
    pub(crate) async fn put(&self, chunk: &Chunk<'_>, settled: Settled) -> Put {
        let hold = chunk.hold;
        if hold.is_abandoned() {
            return Put::Refused;
        }
        let Held { job, chunk: id, token } = hold.held;
        let commit = match self.store(chunk, settled).await {
            Stored::Ready(commit) => commit,
            Stored::Lost => return Put::Refused,
            Stored::Unwritten(settled, error) => return Put::Unwritten(settled, error),
        };
        let params = CommitParams::new(id, token, commit);
        let ask = || self.ledger.commit(job, &params);
        let commit = &params.commit;
        let end = commit.end();
        let answer = insist(&self.reach, "commit", &self.machine, hold.abandoned(), ask).await;
        if let Some(Ok(committed)) = &answer {
            metrics::committed(commit, committed);
            if matches!(committed, Committed::Settled { .. }) {
                let tried = &chunk.grant.tried;
                self.records.count(chunk.task(), &commit.runs, tried, &self.node);
            }
        }
        self.tidy_up(chunk, &commit, answer.as_ref().and_then(|answer| answer.as_ref().ok()));
        let is_settled = matches!(answer, Some(Ok(Committed::Settled { .. })));
        match answer {
            Some(Ok(Committed::Settled { state })) if state.is_terminal() => {
                hold.end(Ending::Abandon);
            }
            Some(Ok(Committed::Settled { state })) if state.is_paused() => hold.end(Ending::Yield),
            Some(Ok(Committed::Settled { .. })) => {
                let each = commit.busy.div_f64((end - commit.from) as f64);
                chunk.share_if_too_long(chunk.grant.to - end, each);
            }
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
        if is_settled { Put::Taken(end) } else { Put::Refused }
    }

    /// Hands back what is not settled. After a fence this is what lets the chunk run elsewhere.
    async fn release(&self, hold: &Hold, part: Option<u64>) {
        let Held { job, chunk, token } = hold.held;
        let params = ReleaseParams { part, ..ReleaseParams::new(chunk, token) };
        let ask = || self.ledger.release(job, &params);
        match insist(&self.reach, "release", &self.machine, &self.over, ask).await {
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

/// Reads a chunk message. What can't be read is dropped: the sweep publishes every chunk that waits
/// again.
pub(crate) fn read(body: &[u8]) -> Option<ChunkMessage> {
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
        biased;
        () = hold.cancel().cancelled() => {}
        () = tokio::time::sleep(STALL) => {}
    }
}
