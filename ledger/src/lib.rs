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
//! `from`. What failed and is to be tried again waits in the retry set as (index, attempt, deferrals). Bit i of `done` is set
//! when index i succeeded, bit i of `failed` when it failed for good. Subtasks and reduce nodes have separate [`Books`].

pub mod op;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::state::{IllegalTransition, JobState};
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, JobId, JobSummary, NodeId, NodeInfo,
    NodeRecord, ResultsPage, SchedulerId, Timestamp, Token,
};

pub use op::{
    Admission, Admitted, Beat, Claim, Commit, Committed, Event, Finding, Grant, HandBack, Held,
    Open, Revoked, Severity, Stop, StopReason, StoredDocument, Sweep,
};

/// Why the ledger could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached, refuses us, or did not answer in time; whether the operation happened is unknown. The
    /// text names the address (never the password) and the reason.
    #[error("Redis at {address}: {reason}")]
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
    /// `retry` named subtasks that have not failed (the first of them), or more than [`op::MAX_RETRY_INDICES`].
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

/// The ledger, seen from one process. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Jobs

    /// Takes a job in, `queued`, all subtasks waiting. Absent or `rejected` before: `Accepted`. Same digest: `Known`, nothing changes.
    /// Other digest: `Conflict`, nothing changes.
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error>;

    /// Shows a job that could not be accepted as `rejected`, with the error, for a day. Does nothing if the id is known.
    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error>;

    /// Opens up to `open.chunks` new chunks of at most `open.size` subtasks each, `Queued` with epoch 1 and due (for the sweep)
    /// after `open.publish_within`; gives them in the order opened. None if the job is paused, ended or absent.
    ///
    /// 1. With `max_parallel`, no more than fit beside the open chunks (a chunk runs one subtask at a time).
    /// 2. Due retries first: of the 1,000 that are due longest, sorted by (attempt, deferrals, index), each stretch of consecutive
    ///    indices with equal attempt and deferrals is one chunk (cut at `size`). What finds no chunk stays in the set.
    /// 3. Then from the cursor to the end of the level, attempt 1, stepping over indices that are done already: a chunk
    ///    ends before the next done index.
    async fn open(&self, job: JobId, open: &Open) -> Result<Vec<ChunkMessage>, Error>;

    /// A worker that got the message of `epoch` asks for the chunk. `token` was drawn before the first try.
    /// Held under this token: `Granted` (a repeat). Else, job absent, paused or ended, or chunk absent: `Gone`. `Queued` with this
    /// epoch: `Granted`, now `Running`; the first grant of a `queued` job makes it `running` and sets `started_at`. Otherwise `Stale`.
    async fn claim(
        &self,
        job: JobId,
        chunk: ChunkId,
        epoch: Epoch,
        token: Token,
        node: &NodeId,
    ) -> Result<Claim, Error>;

    /// Settles a prefix of what is left of a chunk. `Fenced`, and nothing changes, unless `token` holds the chunk (and the job is there and
    /// not ended). A commit that lies wholly before the chunk's `from` is a repeat: it changes nothing. `Misuse` if it leaves
    /// a gap, reaches past `to`, or straddles `from`.
    ///
    /// - Success: each bit that flips counts as done; its result is kept. A bit that is set already counts nothing and keeps its result.
    /// - Retry: into the retry set as attempt + 1 with 0 deferrals. Defer: same attempt, deferrals + 1. Failed: bit set, error kept (the newest 10,000).
    /// - `attempts` and `busy` grow. A chunk that is settled to its end is removed.
    /// - `stop_after_failures` reached: the job ends as `failed`, what is open is cancelled.
    /// - Nothing of the level open any more: some failed -> `failed`; else the next level of the reduce (`reducing`; a paused
    ///   job stays paused and resumes as `reducing`), or none left -> `succeeded`, also from `paused`.
    ///
    /// A job that ends: open chunks and retries are dropped, what was open counts as cancelled (in the subtasks' and the reduce's books),
    /// `finished_at` is set, all its keys expire after `keep_for`.
    async fn commit(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error>;

    /// The holder hands back what it has not settled: `Queued`, epoch + 1, due at once.
    async fn release(&self, job: JobId, chunk: ChunkId, token: Token) -> Result<HandBack, Error>;

    /// Takes away everything that `node` holds of the job: each chunk `Queued` with epoch + 1, due at once, its crashes + 1 if the node `died`, and the
    /// job's `lost` grows by what it had not settled. Gives what was taken, in order of chunk id.
    async fn revoke(&self, job: JobId, node: &NodeId, died: bool) -> Result<Vec<Revoked>, Error>;

    /// Gives the job as it stands, brings its `rate` and `eta` up to date, and, unless it is paused or ended, the messages of up to `limit` chunks that are
    /// `Queued` past their due time, in order of chunk id; each is due again after `publish_within` or the time that it has been
    /// queued, whichever is longer, so that repeats thin out. `None` if the job is absent.
    async fn sweep(
        &self,
        job: JobId,
        limit: u32,
        publish_within: Duration,
    ) -> Result<Option<Sweep>, Error>;

    // Control. Each gives the state that the job is in now.

    /// Stops feeding. What runs goes on; claims are refused.
    async fn pause(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Goes on; queued chunks are due at once, since their messages may have been dropped meanwhile.
    async fn resume(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Ends the job as `cancelled`.
    async fn cancel(&self, job: JobId) -> Result<JobState, ControlError>;

    /// Ends the job as `failed` with this error (its deadline passed).
    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError>;

    /// Re-opens what failed, under a new generation, with fresh attempts.
    ///
    /// Without `indices`: a job that ended as `failed` goes back to `running` with everything that is not done waiting again (failed bits cleared, cursor back
    /// to the start of the level that failed, deadline dropped, error cleared, expiry lifted); a job that still runs or is paused gets its failed
    /// subtasks into the retry set, due at once (at most [`op::MAX_RETRY_INDICES`]). With `indices`: only those, each of which must have failed, into the retry set as attempt 1; in
    /// a `failed` job the cancelled rest stays cancelled. A job that then ends with some cancelled and none failed is `failed` still.
    async fn retry(&self, job: JobId, indices: Option<&[u64]>) -> Result<JobState, ControlError>;

    /// Forgets an ended job. `Illegal` for one that has not ended.
    async fn delete(&self, job: JobId) -> Result<(), ControlError>;

    // Reading

    /// One job.
    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error>;

    /// Jobs that may not have ended; some may just have. In order of submission.
    async fn active_jobs(&self) -> Result<Vec<JobId>, Error>;

    /// Jobs that ended and are still kept, newest first, at most `limit`.
    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error>;

    /// Moves an ended or absent job from the active to the finished list, and drops finished jobs whose keys have expired from it.
    async fn archive(&self, job: JobId) -> Result<(), Error>;

    /// The document and the manifest as admitted.
    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error>;

    /// Results of indices `from ≤ i < to` in order, up to about `max_bytes` (always at least one run if there is one). The first run may begin before `from` and the last
    /// end after `to`: runs are given as they were committed.
    async fn results(
        &self,
        job: JobId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<ResultsPage, Error>;

    /// Why subtasks failed, by index, from `from` on, at most `limit`.
    async fn errors(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<ErrorEntry>, Error>;

    /// Recounts the books from the raw keys.
    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error>;

    // The fleet

    /// A sign of life with all that the worker holds. Tells what to stop and whether to drain.
    async fn beat(&self, info: &NodeInfo, seq: u64, held: &[Held]) -> Result<Beat, Error>;

    /// Every worker that beats or has stopped beating and was not forgotten.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error>;

    /// Asks a worker to drain; it learns of it with its next beat. False if there is no such node.
    async fn drain(&self, node: &NodeId) -> Result<bool, Error>;

    /// Takes a worker that left, or was declared dead, off the list.
    async fn forget(&self, node: &NodeId) -> Result<(), Error>;

    /// A scheduler's sign of life; gives all that beat within `within`, itself included, sorted.
    async fn attend(
        &self,
        scheduler: &SchedulerId,
        within: Duration,
    ) -> Result<Vec<SchedulerId>, Error>;

    /// A scheduler leaves.
    async fn withdraw(&self, scheduler: &SchedulerId) -> Result<(), Error>;

    // The ledger itself

    /// Follows the hints.
    async fn events(&self) -> Result<Box<dyn Events>, Error>;

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
