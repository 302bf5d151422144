//! Words at rest: what was submitted, who holds what, what came out of it. The ledger is the truth of Longshore.
//!
//! `redis` keeps it in Redis, each operation one function of the library `longshore_v1` (`lua/`, an operation a file);
//! `memory` keeps it in the process, for the embedded mode and for simulations. One conformance suite and a
//! differential test hold both to what is written here.
//!
//! Every operation is one atomic, idempotent step, safe to repeat after a time-out whose outcome is unknown. Times are
//! the ledger's own clock (Redis `TIME`). Deliberately absent: messages, placement, backoff, randomness; those are
//! decided by the callers and arrive as arguments.
//!
//! # How a job is kept
//!
//! Subtasks are indices `0 ≤ i < total`. With a reduce, the nodes of the tree (`protocol::ReduceTree`) are the indices from
//! `total` on, level by level. A job works on one *level* at a time, `level_from ≤ i < level_to`: first the subtasks, then each
//! level of the tree. `cursor` is the next index of the level that was never handed out. Open chunks are ranges
//! `[from, to)` that are run in order by one slot, so settled subtasks are always a prefix, and a partial commit moves
//! `from`. What failed and is to be tried again waits in the retry set as (index, attempt, deferrals, nodes on which attempts failed). Bit i of `done` is set
//! when index i succeeded, bit i of `failed` when it failed for good. Subtasks and reduce nodes have separate [`Counts`](longshore_protocol::Books).

mod cause;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod keys;
pub mod memory;
pub mod op;
pub mod poison;
pub mod redis;
mod restoring;
mod retention;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::state::{IllegalTransition, JobState};
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, Finding, Isolation, JobId, JobSummary,
    JournalPlace, NodeId, NodeInfo, NodeRecord, Recovery, ResultsPage, SchedulerId,
    SchedulerRecord, Stall, Timestamp, Token,
};

pub use cause::Cause;
pub use op::{
    Admission, Admitted, Beat, Claim, Commit, Committed, Ended, Event, Grant, Heart, Held, Holder,
    LossCause, LossEvidence, LossVerdict, LostNode, NodeSnapshot, Open, Process, Released, Revoked,
    SpeculationRequest, SpeculativeChunk, Stop, StopReason, StoredDocument, Sweep, Topic,
};
pub use restoring::{PriorState, Restored};
pub use retention::{CANCEL_KEPT, Cancelled, POSTPONED_FOR, STALL_KEPT};

/// Why the ledger could not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached, refuses us, or did not answer in time; whether the operation happened is unknown. The
    /// text names the address (never the password) and the reason.
    #[error("Redis at {address}: {reason}{}", cause::advice(reason))]
    Unavailable {
        /// Host and port.
        address: String,
        /// What the client library said, or a time-out.
        reason: String,
    },
    /// The address is not one that we understand.
    #[error("redis_url: {0}")]
    BadUrl(String),
    /// What came back makes no sense: another program writes to our keys, or versions differ.
    #[error("the ledger answered {operation} with something unexpected: {detail}")]
    Corrupt {
        /// The operation.
        operation: &'static str,
        /// What came back.
        detail: String,
    },
    /// The caller broke the rules of the operation (a commit with a gap, a run across a boundary): a bug.
    #[error("{operation}: {detail}")]
    Misuse {
        /// The operation.
        operation: &'static str,
        /// Which rule.
        detail: String,
    },
}

/// Why a control did nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such job, or not any more.
    #[error("no such job")]
    NotFound,
    /// The job's state does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// `delete` of a job that has not ended.
    #[error("a job that is {0} can't be deleted; cancel it first")]
    NotEnded(JobState),
    /// `retry` named subtasks that have not failed (the first of them), none at all, or more than [`op::MAX_RETRY_INDICES`].
    #[error("{0}")]
    BadIndices(String),
    /// The ledger itself failed.
    #[error(transparent)]
    Ledger(#[from] Error),
}

/// Follows the hints that the ledger sends when something changes. Best effort: hints get lost, and nothing
/// depends on them but speed.
#[async_trait]
pub trait Events: Send {
    /// The next hint. Waits through broken connections; after a gap it gives [`Event::Gap`], upon which the caller looks at everything.
    async fn next(&mut self) -> Event;
}

/// Tells whose process is gone, long before its silence does. Best effort: a death may go unnoticed, and a heart that could not be
/// replaced at once looks like a death. Nothing may depend on it but speed.
#[async_trait]
pub trait ConnectionWatch: Send {
    /// Whose of these hearts were there before and now are not. Errors mean that nothing is known.
    async fn severed(&mut self, hearts: &[Heart]) -> Result<Vec<Process>, Error>;
}

/// The ledger, seen from one process. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Jobs

    /// Takes a job in, `queued`, all subtasks waiting. Absent or `rejected` before: `Accepted`, and the job is listed as active (and
    /// nowhere else). Same digest: `Known`, nothing changes. Other digest: `Conflict`, nothing changes. More than [`op::MAX_INDICES`]
    /// subtasks and reduce nodes: `TooLarge`, before anything else is looked at, and nothing changes. One that was [cancelled](Self::cancel)
    /// before: `Cancelled`; it is listed as active like any other, has ended as `cancelled`, and opens no chunk. That cancel is forgotten then.
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error>;

    /// Shows a job that could not be accepted as `rejected`, with the error, for a day: listed as finished, submitted and finished
    /// now, all words empty, all numbers 0, no document. Does nothing if the id is known (as `rejected` or otherwise).
    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error>;

    /// Says why a job that is not known yet can't be judged. Kept for [`POSTPONED_FOR`], for people only: what
    /// is known of the job otherwise comes first.
    async fn postpone(&self, job: JobId, reason: &str) -> Result<(), Error>;

    /// What [`Self::postpone`] said last, while it is kept.
    async fn postponed(&self, job: JobId) -> Result<Option<String>, Error>;

    /// Says why a worker can't go on with what it holds of a job, or with `None` that it can. Kept for [`STALL_KEPT`] after it was
    /// said last, for people only.
    async fn report_stall(
        &self,
        job: JobId,
        node: &NodeId,
        reason: Option<&str>,
    ) -> Result<(), Error>;

    /// What [`Self::report_stall`] said last of each worker, while it is kept, by worker.
    async fn stalls(&self, job: JobId) -> Result<Vec<Stall>, Error>;

    /// Opens up to `open.chunks` new chunks of at most `open.size` subtasks each, `Queued` with epoch 1 and due (for the sweep)
    /// after `open.publish_within`; gives them in the order opened. None if the job is paused, ended or absent, or if `chunks` or
    /// `size` is 0. More than [`op::MAX_CHUNKS_A_CALL`] counts as that.
    ///
    /// 1. With `max_parallel`, no more than fit beside the open chunks (a chunk runs one subtask at a time).
    /// 2. Due retries first: of the 1,000 that are due longest, sorted by (attempt, deferrals, index), each stretch of consecutive
    ///    indices with equal attempt, deferrals and [nodes on which they failed](Grant::tried) is one chunk (cut at `size`). What finds no chunk stays in the set.
    /// 3. Then from the cursor to the end of the level, attempt 1, stepping over indices that are done already: a chunk
    ///    ends before the next done index. The cursor then stands at the end of the last chunk, or at the end of the level
    ///    when a chunk was still wanted and nothing was left.
    async fn open(&self, job: JobId, open: &Open) -> Result<Vec<ChunkMessage>, Error>;

    /// A worker that got the message of `epoch` asks for the chunk. `token` was drawn before the first try.
    /// Held under this token: `Granted` (a repeat). No such job, or a rejected one: `Unknown`. Else, job paused or ended, or chunk
    /// absent: `Gone`. `Queued` with this epoch: `Granted`, now `Running`; a grant makes a `queued` job `running`, the first one ever sets `started_at`. Otherwise `Stale`,
    /// which names the holder if there is one. `Running` with this epoch, a copy on offer ([`Self::copy`]) and another node than the
    /// holder: `Granted`; from now on both hold the chunk, each under its token, and `copies` grows by one.
    ///
    /// `Gone` also, and the chunk stays queued, where cut chunks would break a rule: when `max_parallel` chunks run already, and when
    /// the chunk is a suspect ([`poison`]) and the node holds another one of the job. Those that may have been refused are due at once
    /// when a suspect, or any chunk of a job with more open chunks than `max_parallel`, is closed, released or revoked.
    async fn claim(
        &self,
        job: JobId,
        chunk: ChunkId,
        epoch: Epoch,
        token: Token,
        node: &NodeId,
    ) -> Result<Claim, Error>;

    /// Settles a prefix of what is left of a chunk. `Fenced`, and nothing changes, unless `token` holds the chunk (and the job is there and
    /// not ended); while the job has not ended, each one refused counts in `fenced`. A commit whose end is at or before the chunk's `from` is a repeat (so is one without runs, there): it changes
    /// nothing. So is, of one that begins before `from`, what lies before: a node that runs the chunk as well has settled it. `Misuse` if it
    /// leaves a gap or reaches past `to`; and before anything else is looked at, if [`Commit::check`] says so.
    ///
    /// - Success: each bit that flips counts as done; its result is kept. A bit that is set already counts nothing and keeps its result:
    ///   the lines of each newly set stretch are kept as a run of their own (of an `@URL`, `@URL#k`: from line k of the object, from 0).
    /// - Retry: into the retry set as attempt + 1 with 0 deferrals, and with the holder as one more node on which an attempt failed. Defer: same attempt, deferrals + 1. Failed: bit set, error kept (the
    ///   newest 10,000) with the chunk's attempt and the holder. None of them does anything to an index that is done already.
    /// - The last Retry or Failed that counted becomes the job's `last_error`, with its index, cut to [`op::MAX_LAST_ERROR`].
    /// - `attempts` grows by the number of subtasks committed, `busy` by the commit's. A chunk that is settled to its end is removed.
    /// - Then: `stop_after_failures` reached by the level's failures: the job ends as `failed`, what is open is cancelled. `error` says
    ///   `F of T subtasks failed; stop_after_failures is N` (`reduce nodes` in place of `subtasks` in a reduce; T counts all of them).
    /// - Else, nothing of the level open any more: some failed -> `failed` (`F of T subtasks failed`), some cancelled (by an earlier end,
    ///   see `retry`) -> `failed` (`C of T subtasks were cancelled`, where C leaves out the levels above);
    ///   else the next level of the reduce (`reducing`; a paused job stays paused and resumes as `reducing`), or none left ->
    ///   `succeeded`, also from `paused`.
    ///
    /// A job that ends: open chunks and retries are dropped, what was open counts as cancelled (in the subtasks' and the reduce's books),
    /// `finished_at` is set, `eta` is gone, all its keys expire after `keep_for`. The cursor stays.
    async fn commit(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error>;

    /// The holder hands back what it has not settled: `Queued`, epoch + 1, due at once. With `part` it is cut into chunks of that many
    /// subtasks each, or of more, so that there are [`op::MAX_PARTS`] at most; the first keeps the chunk's number. Works while the job is paused; `Fenced` when
    /// it ended. Where a copy is held, whoever gives up its hold
    /// leaves the chunk to the other, and nothing is queued; but parts are for everybody, and both lose their hold.
    async fn release(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        part: Option<u64>,
    ) -> Result<Released, Error>;

    /// Offers copies of what lags: of the chunks that have been running since `lagging.held_for` or longer, that no node died of and of which
    /// no copy is held, nor was offered less than `lagging.offer_for` ago, those held longest (then lowest id), `lagging.chunks` at most, and none that
    /// `lagging.only` holds itself. Each gets a new epoch, whose message the caller gives to another node than the holder; claimed, it makes that node a second holder.
    /// Whichever of the two commits first decides, and the books count the chunk once. Nothing if the job is paused, ended or absent, or
    /// has a `max_parallel`, which copies would break.
    async fn copy(
        &self,
        job: JobId,
        lagging: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error>;

    /// Takes away everything that `node` holds of the job: each chunk of which nobody else runs a copy is `Queued` with epoch + 1, due at once. If the node died, its death
    /// is kept with each of them as evidence (once a node), and counts as a crash of the chunk; one that left or lives charges nobody. Then, by
    /// the rules of [`poison`]:
    ///
    /// - A suspect of more than one subtask is cut into the parts of `poison::cut`. The first part keeps the id; the others are new
    ///   chunks of the same epoch, attempt, deferrals and evidence.
    /// - A subtask that killed three nodes as a suspect of its own is failed for good, with its evidence in its `ErrorEntry` (whose node is the
    ///   last one that died) and in `last_error`, and its chunk is removed. This concludes as a commit does, and may end the job.
    ///
    /// Gives what is queued again, in order of chunk id; nothing if the job has ended by it. If the node held anything, a [`Recovery`]
    /// is kept, `recoveries` (and `crashes` if it died, `orphaned` if it lives) grow by one, `reissued` by the chunks that are queued again, `lost` by their subtasks.
    async fn revoke(
        &self,
        job: JobId,
        node: &NodeId,
        loss: &LossCause,
    ) -> Result<Vec<Revoked>, Error>;

    /// The nodes on which attempts at all subtasks of a chunk failed, for each of these chunks; see [`Grant::tried`]. Nothing of a
    /// chunk that is not open.
    async fn tried(&self, job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error>;

    /// Names the nodes whose failures use up no attempts of the job, all of them: they are left out of what was [tried](Grant::tried)
    /// when a retry is opened, with the attempts that they took, and a failure for good after such an attempt is a retry that is
    /// due at once. What one of them that was not named before failed for good is tried again, with as many attempts as it had
    /// before. Gives how many that are. Does nothing to a job that has ended.
    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error>;

    /// The nodes that hold chunks of the job, each once, in order of their names; whether they live is not looked at. A claim that was
    /// sent before its worker was forgotten may come after: its chunk is held by somebody who is on no list, and only this tells.
    async fn holders(&self, job: JobId) -> Result<Vec<Holder>, Error>;

    /// Gives the job as it stands, brings its `rate` and `eta` up to date, and, unless it is paused or ended, the messages of up to `limit` chunks that are
    /// `Queued` and whose due time has come, in order of chunk id; each is due again after `publish_within` or the time that it has
    /// been queued (since it was opened, released or revoked), whichever is longer, so that repeats thin out. `None` if the job is absent.
    /// With `doubt` the time of those that have been queued for so long has come as well: something happened that loses messages.
    ///
    /// `rate` is a moving average over about 10 s of what was settled (done and failed, reduce nodes too), looked at no more than once
    /// a second; `eta` is what is open divided by it, `None` at a rate of 0 and unless the job is `running` or `reducing`.
    async fn sweep(
        &self,
        job: JobId,
        limit: u32,
        publish_within: Duration,
        doubt: Option<Duration>,
    ) -> Result<Option<Sweep>, Error>;

    // Control. Each gives the state that the job is in now. What `JobState::on` allows without a change (a pause of a paused job,
    // a resume of one that runs, a cancel of a cancelled one) changes nothing at all.

    /// Stops feeding. What runs goes on; claims are refused.
    async fn pause(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Goes on; queued chunks are due at once, since their messages may have been dropped meanwhile.
    async fn resume(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Ends the job as `cancelled`. One that the ledger does not know may be on its way: the cancel is remembered for
    /// [`CANCEL_KEPT`], from the last one on, and ends the job when it is admitted (or restored, if it had not ended), once. `NotFound`
    /// only for a job that was deleted within the last hour.
    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError>;

    /// When somebody cancelled this job, which the ledger does not know so far; `None` if nobody did, or not lately.
    async fn pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error>;

    /// Ends the job as `failed` with this error (its deadline passed).
    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError>;

    /// Re-opens what failed, under a new generation, with fresh attempts. The errors of what is re-opened are forgotten. Allowed
    /// where the table allows [`JobEvent::Retry`](longshore_protocol::state::JobEvent::Retry). A job that had ended is listed as
    /// active again (and nowhere else), its deadline dropped, `error` and `finished_at` cleared, expiry lifted; `started_at` stays.
    ///
    /// Without `indices`: a job that ended as `failed` goes back to `running` with everything that is not done waiting again (failed bits cleared, cursor back
    /// to the start of the level that failed; the reduce's cancelled nodes wait again too); a job that still runs or is paused gets its
    /// failed subtasks of lowest index into the retry set as attempt 1, due at once (at most [`op::MAX_RETRY_INDICES`]); if none failed,
    /// nothing changes, the generation neither.
    ///
    /// With `indices`: only those, each of which must have failed, into the retry set as attempt 1, due at once (repeats in the list count
    /// once; an empty or too long list is `BadIndices`). In a `failed` job the cancelled rest of the level stays cancelled (the cursor moves
    /// to the level's end), and so do the levels above if there is such a rest, else they wait again. A job that then ends with some
    /// cancelled and none failed is `failed` still. Errors are told in this order: `NotFound`, `Illegal`, `BadIndices`.
    async fn retry(&self, job: JobId, indices: Option<&[u64]>) -> Result<JobState, ControlError>;

    /// Forgets an ended job, in the lists too. `NotEnded` for one that has not.
    async fn delete(&self, job: JobId) -> Result<(), ControlError>;

    // The journal

    /// Puts back a job that the ledger lost, with the times that it had. `Known`, and nothing changes, if there is a job of this
    /// name (other than a `rejected` one), or was one that was deleted within the last hour.
    ///
    /// A job that was open waits from its first subtask on, its deadline counted from its submission. One that had ended is listed as
    /// finished, with its numbers and its error, and is forgotten when it would have been (`Expired`: that was before now). It has no
    /// results and no errors of subtasks, and an audit takes its numbers as they are; a `retry` without indices runs all of it again.
    /// `Misuse` if its numbers don't add up to the totals of the admission.
    async fn restore(&self, admission: &Admission, was: &PriorState) -> Result<Restored, Error>;

    /// Of these jobs the ones of which the ledger knows nothing, in their order: they are not there, and were not deleted within the last
    /// hour. What was kept for as long as it was to be kept is among them.
    async fn missing(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error>;

    /// Up to where the ledger reflects the journal; `None` if nobody has said so since it was empty.
    async fn journal_place(&self) -> Result<Option<JournalPlace>, Error>;

    /// Moves that place from where the caller believes it to be; does nothing if it is elsewhere. Gives where it is now.
    async fn advance_journal(
        &self,
        from: Option<&JournalPlace>,
        to: &JournalPlace,
    ) -> Result<Option<JournalPlace>, Error>;

    // Reading

    /// One job.
    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error>;

    /// Jobs that may not have ended; some may just have. In order of submission, then of id.
    async fn active_jobs(&self) -> Result<Vec<JobId>, Error>;

    /// Jobs that ended, were archived (or rejected) and are still kept, by `finished_at`, newest first, at most `limit`.
    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error>;

    /// Moves an ended job from the active to the finished list, and takes an absent one off both. Does nothing to a job that has
    /// not ended. Drops finished jobs whose keys have expired from their list.
    async fn archive(&self, job: JobId) -> Result<(), Error>;

    /// The document and the manifest as admitted.
    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error>;

    /// Results of indices `from ≤ i < to` in order, up to about `max_bytes` (always at least one run if there is one). The first run may begin before `from` and the last
    /// end after `to`: runs are given as they were committed. Runs are added until their lines reach `max_bytes`; `next` is then the end of
    /// the last (at most `to`), and otherwise `to`.
    async fn results(
        &self,
        job: JobId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<ResultsPage, Error>;

    /// Why subtasks failed, by index, from `from` on, at most `limit`.
    async fn errors(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<ErrorEntry>, Error>;

    /// What was done each time that a node of the job was lost, newest first, at most `limit`; the newest 100 are kept. Each is complete
    /// once the last chunk that it queued again was claimed.
    async fn recoveries(&self, job: JobId, limit: usize) -> Result<Vec<Recovery>, Error>;

    /// Recounts the books from the raw keys. Of the current level: done and failed are bits, queued and running the ranges of open chunks,
    /// retrying the retry set, waiting what is not done from the cursor on (0 once the job ended), cancelled the rest. The levels above
    /// are cancelled if the job ended or some of the current level is, else waiting.
    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error>;

    // The fleet

    /// A sign of life with all that the worker holds. Tells what to stop and whether to drain. A job that is absent or ended:
    /// `Ended`; else a chunk that is not held under this token: `Revoked`; else a paused job: `Paused`.
    async fn beat(&self, info: &NodeInfo, held: &[Held]) -> Result<Beat, Error>;

    /// Every worker that beats or has stopped beating and was not forgotten, by id.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error>;

    /// The same and those that are lost, for whoever has `known` them lately: `cpu` and `rss` may be those of then. Somebody who reads
    /// again and again begins anew from time to time, and after a failure: a server that lost something may have lost news.
    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error>;

    /// Watches the hearts of workers and schedulers. The heart of a process is the connection on which the handle that beats or
    /// attends for it follows the hints ([`Self::events`]).
    fn hearts(&self) -> Box<dyn ConnectionWatch>;

    /// Asks a worker to drain; it learns of it with its next beat. False if there is no such node.
    async fn drain(&self, node: &NodeId) -> Result<bool, Error>;

    /// Says for which tasks a worker is out of rotation, all of them: kept with the node until it is forgotten, and announced. False
    /// if there is no such node.
    async fn isolate(&self, node: &NodeId, isolated: &[Isolation]) -> Result<bool, Error>;

    /// Says how the process of a worker ended, in the words of whoever watched it: kept with the node until it is forgotten, and
    /// announced. False if there is no such node.
    async fn record_crash(&self, node: &NodeId, death: &str) -> Result<bool, Error>;

    /// Declares a worker lost, for all schedulers to see ([`NodeSnapshot::lost`]): takes it off the list of those that beat, keeps the verdict
    /// for [`op::LOST_KEPT`], and announces it. `Lives`, and nothing changes, if the grounds are void. A worker that is lost already
    /// stays so on the grounds that were given first; it is back with its next heartbeat.
    async fn lose(
        &self,
        node: &NodeId,
        grounds: LossEvidence,
        loss: &LossCause,
    ) -> Result<LossVerdict, Error>;

    /// A scheduler's sign of life; gives all that beat within `within` (inclusive), itself included, by id.
    async fn register_scheduler(
        &self,
        scheduler: &SchedulerId,
        within: Duration,
    ) -> Result<Vec<SchedulerRecord>, Error>;

    /// Every scheduler that signs in, or did within the last hour and has not withdrawn, by id.
    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error>;

    /// A scheduler leaves, or another one says that it is gone.
    async fn deregister_scheduler(&self, scheduler: &SchedulerId) -> Result<(), Error>;

    // The ledger itself

    /// Follows the hints that concern `audience`.
    async fn events(&self, audience: Topic) -> Result<Box<dyn Events>, Error>;

    /// The ledger's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// What is wrong with the ledger, for `longshore doctor`. Reachable or not, it answers.
    async fn examine(&self) -> Vec<Finding>;

    /// The same ledger through connections of its own, for a thread that has a runtime of its own (the worker's heart):
    /// nothing that happens on this handle's connections slows the other's.
    fn separate(&self) -> Arc<dyn Ledger>;

    /// What it is and where, for people: `memory`, or `Redis at host:port` (never the password).
    fn describe(&self) -> String;
}
