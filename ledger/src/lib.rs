//! The trait of the ledger, which alone decides the state of jobs and chunks, and its errors.
//!
//! [`redis`] keeps it in Redis, where each operation is one function of the library `longshore_v1`
//! (`lua/`, one file an operation). [`memory`] keeps it in the process, for the embedded mode and
//! for simulations. One conformance suite and a differential test hold both implementations to the
//! contract that [`Ledger`] describes.
//!
//! Every operation is one atomic, idempotent step that is safe to repeat after a time-out whose
//! outcome is unknown. Times are those of the ledger's own clock (Redis `TIME`). Deliberately
//! absent: messages, placement, backoff and randomness; callers decide those and pass them as
//! parameters.
//!
//! # How a job is stored
//!
//! Subtasks are indices `0 ≤ i < total`. With a reduce, the nodes of the tree
//! (`protocol::ReduceTree`) are the indices from `total` on, level by level. A job works on one
//! *level* at a time, `level_from ≤ i < level_to`: first the subtasks, then each level of the tree.
//! `cursor` is the next index of the level that was never handed out.
//!
//! Open chunks are ranges `[from, to)` that one slot runs in order, so settled subtasks are always
//! a prefix, and a partial commit moves `from`. A failed subtask that will be tried again waits in
//! the retry set as (index, attempt, deferrals, nodes on which attempts failed). Bit i of `done` is
//! set when index i succeeded, bit i of `failed` when it failed for good. Subtasks and reduce nodes
//! have separate [`Counts`](longshore_protocol::Counts).

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod keys;
pub mod memory;
pub mod op;
pub mod poison;
pub mod redis;
mod remedy;
mod retention;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::sync::Arc;

use async_trait::async_trait;
use longshore_protocol::state::{IllegalTransition, JobState};
use longshore_protocol::wire::JobCounts;
use longshore_protocol::{
    Action, Audit, Blocked, ChunkId, ChunkMessage, ErrorEntry, ErrorKind, Finding, JobFilter,
    JobId, JobIdPrefix, JobMap, JobPage, JobSummary, JournalPosition, KeptApiToken, NodeId,
    NodeRecord, Recovery, ResultsPage, SchedulerId, SchedulerRecord, Stall, Timestamp,
};

pub use op::{
    ActionsParams, Admission, Admitted, AdvanceJournalParams, Beat, BeatParams, BlockedParams,
    Claim, ClaimParams, Commit, CommitParams, Committed, DeclareLostParams, Ended, ErrorsParams,
    Event, Grant, Held, Holder, IsolateParams, ListParams, LossCause, LossEvidence, LossVerdict,
    LostNode, MapParams, NodeSnapshot, OpenParams, OpenQueue, PriorState, Process,
    ProcessConnections, RecordCrashParams, RegisterSchedulerParams, ReleaseParams, Released,
    ReportBlockedParams, ReportStallParams, RestoreParams, Restored, ResultsParams, RetryParams,
    RevokeParams, Revoked, SpeculationRequest, SpeculativeChunk, Stop, StopReason, StoredDocument,
    Sweep, SweepParams, Topic,
};
pub use retention::{CANCEL_KEPT, Cancelled, POSTPONED_FOR, STALL_KEPT};

/// Why an operation of the ledger failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The ledger can't be reached, refuses the login, or did not answer in time. Whether the
    /// operation happened is unknown. The text names the address (never the password) and the
    /// reason.
    #[error("Redis at {address}: {reason}{}", remedy::advice(*kind))]
    Unavailable {
        /// The kind of failure.
        kind: ErrorKind,
        /// Host and port.
        address: String,
        /// The message of the client library, or a time-out.
        reason: String,
    },
    /// The address is malformed or of an unknown kind.
    #[error("redis_url: {0}")]
    BadUrl(String),
    /// A file for TLS can't be used.
    #[error(transparent)]
    BadFile(longshore_tls::FileError),
    /// The answer can't be understood: another program writes to the keys, or versions differ.
    #[error("the ledger answered {operation} with something unexpected: {detail}")]
    Corrupt {
        /// The operation.
        operation: &'static str,
        /// The unexpected part of the answer.
        detail: String,
    },
    /// The caller broke the rules of the operation (a commit with a gap, a run across a boundary):
    /// a bug.
    #[error("{operation}: {detail}")]
    Misuse {
        /// The operation.
        operation: &'static str,
        /// The rule that was broken.
        detail: String,
    },
}

/// Why a control operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The job does not exist, or does not exist any more.
    #[error("no such job")]
    NotFound,
    /// The job's state does not allow the operation.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// `delete` of a job that has not ended.
    #[error("a job that is {0} can't be deleted; cancel it first")]
    NotEnded(JobState),
    /// `retry` named a subtask that has not failed (the first such one), none at all, or more than
    /// [`op::MAX_RETRY_INDICES`].
    #[error("{0}")]
    BadIndices(String),
    /// The ledger itself failed.
    #[error(transparent)]
    Ledger(#[from] Error),
}

/// A subscription to the hints that the ledger sends when something changes. Delivery is best
/// effort: a lost hint costs time, never correctness.
#[async_trait]
pub trait Events: Send {
    /// The next hint. Waits while the connection is broken; after a gap it returns [`Event::Gap`],
    /// upon which the caller reads everything anew.
    async fn next(&mut self) -> Event;
}

/// Detects lost connections of processes, long before missing heartbeats show that a process died.
/// Best effort: a death may go unnoticed, and a connection that could not be replaced at once looks
/// like a death. Only the speed of recovery may depend on it.
#[async_trait]
pub trait ConnectionWatch: Send {
    /// The processes whose connections were there before and are not there now. After an error
    /// nothing is known.
    async fn disconnected(
        &mut self,
        registered: &[ProcessConnections],
    ) -> Result<Vec<Process>, Error>;
}

/// The ledger, as one process uses it. Cheap to share behind an `Arc`.
///
/// An operation takes the job and, if more than one further value, a struct of parameters (see
/// [`op`]).
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Jobs

    /// Admits a job as `queued`, with all subtasks waiting, and lists it as active (and nowhere
    /// else).
    ///
    /// - The job is absent or `rejected`: `Accepted`.
    /// - A job with the same digest: `Known`, nothing changes. Another digest: `Conflict`, nothing
    ///   changes.
    /// - More than [`op::MAX_INDICES`] subtasks and reduce nodes: `TooLarge`, checked first,
    ///   nothing changes.
    /// - The job was [cancelled](Self::cancel) before: `Cancelled`. The job is listed as active
    ///   like any other, has ended as `cancelled`, and opens no chunk. The cancel is forgotten
    ///   then.
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error>;

    /// Records a job that could not be accepted as `rejected`, with the error, for a day: listed as
    /// finished, submitted and finished now, all texts empty, all numbers 0, no document. Does
    /// nothing if the id is known.
    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error>;

    /// Records why a job that is not known yet can't be judged. Kept for [`POSTPONED_FOR`], for
    /// display only: whatever else is known of the job takes precedence.
    async fn postpone(&self, job: JobId, reason: &str) -> Result<(), Error>;

    /// The last reason of [`Self::postpone`], while it is kept.
    async fn postponed(&self, job: JobId) -> Result<Option<String>, Error>;

    /// Records why a worker can't go on with its chunks of a job, or that it can. Kept for
    /// [`STALL_KEPT`] after the last report, for display only.
    async fn report_stall(&self, job: JobId, params: &ReportStallParams) -> Result<(), Error>;

    /// The last report of [`Self::report_stall`] of each worker, while it is kept, by worker.
    async fn stalls(&self, job: JobId) -> Result<Vec<Stall>, Error>;

    /// Records what blocks the jobs of a queue, as the scheduler that owns the queue found. Kept
    /// until it is reported otherwise; for display only.
    async fn report_blocked(&self, params: &ReportBlockedParams) -> Result<(), Error>;

    /// What was last reported of each of these scopes, in their order.
    async fn blocked(&self, params: &BlockedParams) -> Result<Vec<Option<Blocked>>, Error>;

    /// Opens up to `chunks` new chunks of at most `size` subtasks each, `Queued` with epoch 1 and
    /// due (for the sweep) after `publish_within`; returns them in the order opened. Opens none if
    /// the job is paused, ended or absent, or if `chunks` or `size` is 0. More than
    /// [`op::MAX_CHUNKS_A_CALL`] counts as that number.
    ///
    /// 1. With `max_parallel`, only as many as fit beside the open chunks (a chunk runs one subtask
    ///    at a time).
    /// 2. Due retries first: of the 1,000 that are due longest, sorted by (attempt, deferrals,
    ///    index), each run of consecutive indices with equal attempt, deferrals and [nodes on
    ///    which they failed](Grant::tried) becomes one chunk (cut at `size`). Retries for which
    ///    there is no chunk stay in the set.
    /// 3. Then from the cursor to the end of the level, attempt 1, skipping indices that are done
    ///    already: a chunk ends before the next done index. The cursor then stands at the end of
    ///    the last chunk, or at the end of the level when more chunks were wanted and nothing was
    ///    left.
    async fn open(&self, job: JobId, params: &OpenParams) -> Result<Vec<ChunkMessage>, Error>;

    /// Claims a chunk for the worker that received the message of `epoch`.
    ///
    /// - Held under this token already: `Granted` (a repeat).
    /// - No such job, or a rejected one: `Gone`.
    /// - The job is paused or ended, or the chunk is absent: `Gone`.
    /// - `Queued` with this epoch: `Granted`, and the chunk is `Running`. A grant makes a `queued`
    ///   job `running`; the first grant of a job sets `started_at`.
    /// - `Running` with this epoch, offered for speculative execution
    ///   ([`Self::offer_speculative`]), and the claimant is not the holder: `Granted`. From now on
    ///   both nodes hold the chunk, each under its token, and the job's number of speculative
    ///   chunks grows by one.
    /// - Otherwise `Stale`, which names the holder if there is one.
    ///
    /// Also `Gone`, and the chunk stays queued, where chunks that were cut would break a rule: when
    /// `max_parallel` chunks run already, and when the chunk is a suspect ([`poison`]) and the node
    /// holds another suspect of the job. Chunks that may have been refused for that reason are due
    /// at once when a suspect, or any chunk of a job with more open chunks than `max_parallel`, is
    /// closed, released or revoked.
    async fn claim(&self, job: JobId, params: &ClaimParams) -> Result<Claim, Error>;

    /// Settles a prefix of the subtasks that are left of a chunk.
    ///
    /// `Fenced`, and nothing changes, unless `token` holds the chunk (and the job exists and has
    /// not ended); while the job has not ended, each refusal counts in `fenced`. A commit whose end
    /// is at or before the chunk's `from` is a repeat and changes nothing (nor does a commit
    /// without runs there). If a commit begins before `from`, only the part from `from` on counts:
    /// another node that runs the chunk has settled the rest. `Misuse` if the commit leaves a gap
    /// or reaches past `to`, and, checked first, if [`Commit::check`] refuses it.
    ///
    /// - Success: each bit that is newly set counts as done, and its result is kept. A bit that is
    ///   set already counts nothing and keeps its result: the lines of each newly set run are
    ///   kept as a run of their own (of an `@URL`, `@URL#k`: from line k of the object, from 0).
    /// - Retry: into the retry set as attempt + 1 with 0 deferrals, and with the holder as one more
    ///   node on which an attempt failed. Defer: same attempt, deferrals + 1. Failed: the bit is
    ///   set and the error kept (the newest 10,000) with the chunk's attempt and the holder. None
    ///   of them changes an index that is done already.
    /// - The last Retry or Failed that counted becomes the job's `last_error`, with its index, cut
    ///   to [`op::MAX_LAST_ERROR`].
    /// - `attempts` grows by the number of subtasks committed, `busy` by the commit's. A chunk that
    ///   is settled to its end is removed.
    /// - Then, if the failures of the level reach `stop_after_failures`: the job ends as `failed`,
    ///   and the open subtasks are cancelled. `error` says `F of T subtasks failed;
    ///   stop_after_failures is N` (`reduce nodes` in place of `subtasks` in a reduce; T counts all
    ///   of them).
    /// - Else, if nothing of the level is open any more: some failed -> `failed` (`F of T subtasks
    ///   failed`), some cancelled (by an earlier end, see `retry`) -> `failed` (`C of T subtasks
    ///   were cancelled`, where C leaves out the levels above); else the next level of the reduce
    ///   (`reducing`; a paused job stays paused and resumes as `reducing`), or, with no level left
    ///   -> `succeeded`, also from `paused`.
    ///
    /// When a job ends, open chunks and retries are dropped, the open subtasks count as cancelled
    /// (in the counts of the subtasks and of the reduce), `finished_at` is set, `eta` is cleared,
    /// and all keys of the job expire after `keep_for`. The cursor stays.
    async fn commit(&self, job: JobId, params: &CommitParams) -> Result<Committed, Error>;

    /// Gives up what the holder has not settled of a chunk: `Queued`, epoch + 1, due at once. With
    /// `part` the chunk is cut into chunks of that many subtasks each, or of more, so that there
    /// are [`op::MAX_PARTS`] at most; the first keeps the chunk's id. Works while the job is
    /// paused; `Fenced` when it has ended.
    ///
    /// If a second node runs the chunk too, the chunk stays with that node, and nothing is queued.
    /// With `part`, however, the parts are queued and both nodes lose their hold.
    async fn release(&self, job: JobId, params: &ReleaseParams) -> Result<Released, Error>;

    /// Offers stragglers for speculative execution. Of the chunks that have been running for
    /// `held_for` or longer, on which no node died, that no second node holds, and that were not
    /// offered within the last `offer_for`, it takes those held longest (then lowest id), `chunks`
    /// at most, and none that `only` holds itself. Each gets a new epoch, whose message the caller
    /// gives to another node than the holder; a claim makes that node a second holder. The first of
    /// the two to commit decides, and each subtask counts once. Offers nothing if the job is
    /// paused, ended or absent, or has a `max_parallel`, which a second execution would break.
    async fn offer_speculative(
        &self,
        job: JobId,
        params: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error>;

    /// Takes all chunks of the job from a node: each that no other node runs too is `Queued` with
    /// epoch + 1, due at once. If the node died, its death is kept with each of them as evidence
    /// (once a node) and counts as a crash of the chunk; a node that left or lives is not counted.
    /// Then, by the rules of [`poison`]:
    ///
    /// - A suspect of more than one subtask is cut into the parts of `poison::cut`. The first part
    ///   keeps the id; the others are new chunks with the same epoch, attempt, deferrals and
    ///   evidence.
    /// - A subtask that killed three nodes as a suspect of its own fails for good, with its
    ///   evidence in its `ErrorEntry` (whose node is the last one that died) and in `last_error`,
    ///   and its chunk is removed. This concludes as a commit does, and may end the job.
    ///
    /// Returns the chunks that are queued again, by id; none if the job has ended by it. If the
    /// node held any chunk, a [`Recovery`] is kept; `recoveries` (and `crashes` if the node died,
    /// `orphaned` if it lives) grow by one, `reissued` by the number of chunks that are queued
    /// again, `lost` by their subtasks.
    async fn revoke(&self, job: JobId, params: &RevokeParams) -> Result<Vec<Revoked>, Error>;

    /// For each of these chunks, the nodes on which attempts at all of its subtasks failed; see
    /// [`Grant::tried`]. Empty for a chunk that is not open.
    async fn tried_nodes(&self, job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error>;

    /// Sets the nodes (all of them) whose failures don't count as attempts of the job. When a retry
    /// is opened, these nodes are left out of [`Grant::tried`] and their attempts are not counted;
    /// a failure for good after such an attempt becomes a retry that is due at once. A subtask that
    /// failed for good on a newly named node is tried again, with the attempts that it had before.
    /// Returns the number of such subtasks. Does nothing to a job that has ended.
    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error>;

    /// The nodes that hold chunks of the job, each once, by name, whether they are alive or not. A
    /// claim that was sent before its worker was removed may arrive after: its holder is then
    /// unlisted, and only this operation shows it.
    async fn holders(&self, job: JobId) -> Result<Vec<Holder>, Error>;

    /// Returns the job, updates its `rate` and `eta`, and, unless it is paused or ended, returns
    /// the messages of up to `limit` chunks that are `Queued` and due, by chunk id. Each of them is
    /// due again after `publish_within` or the time that it has been queued (since it was opened,
    /// released or revoked), whichever is longer, so that repeats become rarer. With
    /// `suspect_lost`, chunks that have been queued for that time count as due. `None` if the job
    /// is absent.
    ///
    /// `rate` is a moving average over about 10 s of the subtasks settled (done and failed, reduce
    /// nodes too), measured at most once a second; `eta` is the number of open subtasks divided by
    /// it, `None` at a rate of 0 and unless the job is `running` or `reducing`.
    async fn sweep(&self, job: JobId, params: &SweepParams) -> Result<Option<Sweep>, Error>;

    // Control. Each returns the job's state now. An event that `JobState::on` allows without a
    // change (a pause of a paused job, a resume of a running one, a cancel of a cancelled one)
    // changes nothing at all.

    /// Stops opening chunks and refuses claims. Running chunks go on.
    async fn pause(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Resumes a paused job. Queued chunks are due at once, since their messages may have been
    /// dropped meanwhile.
    async fn resume(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Ends the job as `cancelled`. A job that the ledger does not know may still be on its way:
    /// the cancel is kept for [`CANCEL_KEPT`], from the last one on, and ends the job when it is
    /// admitted (or restored, if it had not ended), once. `NotFound` only for a job that was
    /// deleted within the last hour.
    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError>;

    /// When a job that the ledger does not know was cancelled; `None` if it was not, or not within
    /// [`CANCEL_KEPT`].
    async fn pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error>;

    /// Ends the job as `failed` with this error (its deadline passed).
    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError>;

    /// Re-opens failed subtasks under a new generation, with fresh attempts, and drops their
    /// errors. Allowed where the table of transitions allows
    /// [`JobEvent::Retry`](longshore_protocol::state::JobEvent::Retry). A job that had ended is
    /// listed as active again (and nowhere else), its deadline dropped, `error` and `finished_at`
    /// cleared, its expiry lifted; `started_at` stays.
    ///
    /// Without `indices`: a job that ended as `failed` goes back to `running` with everything that
    /// is not done waiting again (failed bits cleared, cursor back to the start of the level that
    /// failed; cancelled reduce nodes wait again too). A job that still runs or is paused gets its
    /// failed subtasks of lowest index into the retry set as attempt 1, due at once (at most
    /// [`op::MAX_RETRY_INDICES`]); if none failed, nothing changes, nor does the generation.
    ///
    /// With `indices`: only those, each of which must have failed, into the retry set as attempt 1,
    /// due at once (repeats in the list count once; an empty or too long list is `BadIndices`). In
    /// a `failed` job the cancelled rest of the level stays cancelled (the cursor moves to the
    /// level's end), and so do the levels above if there is such a rest; otherwise they wait again.
    /// A job that then ends with some cancelled and none failed is still `failed`. Errors are
    /// checked in this order: `NotFound`, `Illegal`, `BadIndices`.
    async fn retry(&self, job: JobId, params: &RetryParams) -> Result<JobState, ControlError>;

    /// Deletes an ended job, and its entries in the lists. `NotEnded` for a job that has not ended.
    async fn delete(&self, job: JobId) -> Result<(), ControlError>;

    // The journal

    /// Restores a job that the ledger lost, with its original times. `Known`, and nothing changes,
    /// if a job of this id exists (other than a `rejected` one) or was deleted within the last
    /// hour.
    ///
    /// A job that was open waits from its first subtask on, its deadline counted from its
    /// submission. A job that had ended is listed as finished, with its counts and its error, and
    /// expires when it would have (`Expired`: that time has passed). It has no results and no
    /// errors of subtasks, and an audit takes its counts as they are; a `retry` without indices
    /// runs all of it again. `Misuse` if its counts don't add up to the totals of the admission.
    async fn restore(&self, params: &RestoreParams) -> Result<Restored, Error>;

    /// Of these jobs, those that the ledger does not know and that were not deleted within the last
    /// hour, in the order given. A job that has expired is one of them.
    async fn missing(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error>;

    /// The place in the journal up to which the ledger reflects it; `None` if it was never set
    /// since the ledger was empty.
    async fn journal_position(&self) -> Result<Option<JournalPosition>, Error>;

    /// Moves the place in the journal if it is where the caller believes it to be. Returns the
    /// place that is stored now.
    async fn advance_journal(
        &self,
        params: &AdvanceJournalParams,
    ) -> Result<Option<JournalPosition>, Error>;

    // Reading

    /// The summary of one job.
    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error>;

    /// The jobs that are listed as active, by submission, then by id. Some may just have ended.
    async fn active_jobs(&self) -> Result<Vec<JobId>, Error>;

    /// A page of the jobs that a filter shows, newest first. See [`JobPage`] for short pages.
    async fn list(&self, params: &ListParams) -> Result<JobPage, Error>;

    /// The number of jobs that a filter shows, by state; its states count as absent. Costs as much
    /// as its least common condition has jobs. `None` if the filter has a time, or, on a cluster,
    /// any condition: there its sets can't be intersected.
    async fn count_jobs(&self, filter: &JobFilter) -> Result<Option<JobCounts>, Error>;

    /// The queues of the jobs that have not ended, by name.
    async fn open_queues(&self) -> Result<Vec<OpenQueue>, Error>;

    /// The ids of the kept jobs that begin with a prefix, the smallest first, at most `limit`. Its
    /// cost does not depend on the number of other jobs.
    async fn find_ids(&self, prefix: &JobIdPrefix, limit: usize) -> Result<Vec<JobId>, Error>;

    /// For each of these jobs, the length of the shortest beginning of its id that names no other
    /// kept job; [`JobIdPrefix::SHORTEST`] at least.
    async fn unique_prefixes(&self, jobs: &[JobId]) -> Result<Vec<usize>, Error>;

    /// The newest `limit` jobs that ended, were archived (or rejected) and are still kept, by
    /// `finished_at`, newest first.
    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error>;

    /// Moves an ended job from the active to the finished list, and removes an absent one from
    /// both. Does nothing to a job that has not ended. Removes finished jobs whose keys have
    /// expired from their list.
    async fn archive(&self, job: JobId) -> Result<(), Error>;

    /// The document and the manifest of a job, as admitted.
    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error>;

    /// A page of results in order of index. Runs are returned as they were committed: the first may
    /// begin before the requested indices, and the last may end after them. Runs are added until
    /// their lines reach `max_bytes` (at least one run, if there is one); `next` is then the end of
    /// the last run (at most the requested end), and otherwise the requested end.
    async fn results(&self, job: JobId, params: &ResultsParams) -> Result<ResultsPage, Error>;

    /// A page of the errors of failed subtasks, by index.
    async fn errors(&self, job: JobId, params: &ErrorsParams) -> Result<Vec<ErrorEntry>, Error>;

    /// The newest `limit` recoveries of a job from the loss of a node, newest first, of the
    /// [`op::MAX_RECOVERIES`] that are kept. A recovery is complete once the last chunk that it
    /// queued again is claimed.
    async fn recoveries(&self, job: JobId, limit: usize) -> Result<Vec<Recovery>, Error>;

    /// Counts the subtasks of a job anew from the raw keys. Of the current level: done and failed
    /// are bits, queued and running the ranges of open chunks, retrying the retry set, waiting what
    /// is not done from the cursor on (0 once the job ended), cancelled the rest. The levels above
    /// are cancelled if the job ended or some of the current level is, else waiting.
    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error>;

    /// The states of a job's subtasks for equal ranges of their indices. Its cost is that of
    /// counting bits, and of a look at the open chunks. Of a job that was restored from the journal
    /// the states of single subtasks are not known; its map is worthless.
    async fn map(&self, job: JobId, params: &MapParams) -> Result<Option<JobMap>, Error>;

    // Workers and schedulers

    /// The heartbeat of a worker, with all chunks that it holds. Returns the chunks to stop and
    /// whether to drain. A job that is absent or ended: `Ended`; else a chunk that is not held
    /// under its token: `Revoked`; else a paused job: `Paused`.
    async fn beat(&self, params: &BeatParams) -> Result<Beat, Error>;

    /// All workers that are listed, by id: those that send heartbeats, and those that stopped and
    /// were not removed.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error>;

    /// The same, and the workers that are lost, for a caller with a recent snapshot: `cpu` and
    /// `rss` may be as old as the snapshot. A caller that reads periodically starts anew from time
    /// to time, and after a failure: a server that lost data may have lost changes.
    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error>;

    /// Detects lost connections of workers and schedulers. A process registers, with its heartbeat,
    /// the connection on which the same handle follows the hints ([`Self::events`]).
    fn connection_watch(&self) -> Box<dyn ConnectionWatch>;

    /// Asks a worker to drain, which it learns with its next heartbeat. False if the worker is not
    /// listed.
    async fn drain(&self, node: &NodeId) -> Result<bool, Error>;

    /// Withdraws a drain, which the worker learns with its next heartbeat. False if the worker is
    /// not there.
    async fn undrain(&self, node: &NodeId) -> Result<bool, Error>;

    /// Sets the tasks for which a worker is out of rotation: kept until the worker is removed, and
    /// announced. False if the worker is not listed.
    async fn isolate(&self, params: &IsolateParams) -> Result<bool, Error>;

    /// Records how the process of a worker ended: kept until the worker is removed, and announced.
    /// False if the worker is not listed.
    async fn record_crash(&self, params: &RecordCrashParams) -> Result<bool, Error>;

    /// Declares a worker lost, for all schedulers to see ([`NodeSnapshot::lost`]): removes it from
    /// the list, keeps the verdict for [`op::LOST_KEPT`], and announces it. `Lives`, and nothing
    /// changes, if the evidence is void. A worker that is lost already stays lost on the first
    /// evidence; its next heartbeat lists it again.
    async fn declare_lost(&self, params: &DeclareLostParams) -> Result<LossVerdict, Error>;

    /// The heartbeat of a scheduler. Returns the schedulers whose last heartbeat is at most
    /// `within` old, this one included, by id.
    async fn register_scheduler(
        &self,
        params: &RegisterSchedulerParams,
    ) -> Result<Vec<SchedulerRecord>, Error>;

    /// All schedulers that sent a heartbeat within the last hour and have not deregistered, by id.
    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error>;

    /// Removes a scheduler that leaves, or that another scheduler found dead.
    async fn deregister_scheduler(&self, scheduler: &SchedulerId) -> Result<(), Error>;

    // The HTTP API

    /// Keeps an API token; `false`, and nothing changes, if [`op::MAX_API_TOKENS`] others are kept.
    async fn add_api_token(&self, token: &KeptApiToken) -> Result<bool, Error>;

    /// All API tokens, by id, those that have expired included.
    async fn api_tokens(&self) -> Result<Vec<KeptApiToken>, Error>;

    /// Removes an API token; `false` if there is none with this id.
    async fn remove_api_token(&self, id: &str) -> Result<bool, Error>;

    /// Adds an entry to the audit trail, with the time of the ledger's clock. An entry with the
    /// same id and content is added once. The newest [`op::MAX_ACTIONS`] are kept.
    async fn record_action(&self, action: &Action) -> Result<(), Error>;

    /// A page of the audit trail, newest first.
    async fn actions(&self, params: &ActionsParams) -> Result<Vec<Action>, Error>;

    // The ledger itself

    /// Subscribes to the hints of a topic.
    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error>;

    /// The time of the ledger's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// Checks the ledger for `longshore doctor`. Returns findings even if the ledger can't be
    /// reached.
    async fn examine(&self) -> Vec<Finding>;

    /// The same ledger through connections of its own, for a thread with a runtime of its own (the
    /// worker's heartbeat loop): nothing on this handle's connections slows down the other's.
    fn separate(&self) -> Arc<dyn Ledger>;

    /// The kind and address of the ledger for display: `memory`, or `Redis at host:port` (never the
    /// password).
    fn describe(&self) -> String;
}
