//! How the ledger's contents look from outside: jobs, nodes, errors, results and the books.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{JobId, NodeId, Timestamp};

/// Where each of some number of subtasks stands. The sum of all but `total` is `total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// How many there are.
    pub total: u64,
    /// Not handed out yet.
    pub waiting: u64,
    /// In an open chunk that nobody has claimed.
    pub queued: u64,
    /// In a chunk that a worker holds.
    pub running: u64,
    /// Failed or deferred, and waiting for their next attempt.
    pub retrying: u64,
    /// Succeeded.
    pub done: u64,
    /// Failed for good.
    pub failed: u64,
    /// Given up because the job ended before they did.
    pub cancelled: u64,
}

impl Books {
    /// Books of `total` subtasks of which none was handed out.
    pub fn new(total: u64) -> Self {
        Self { total, waiting: total, ..Self::default() }
    }

    /// `total` minus the sum of the rest; 0 when the books balance.
    pub fn imbalance(&self) -> i128 {
        let sum = [
            self.waiting,
            self.queued,
            self.running,
            self.retrying,
            self.done,
            self.failed,
            self.cancelled,
        ]
        .into_iter()
        .map(i128::from)
        .sum::<i128>();
        i128::from(self.total) - sum
    }

    /// Subtasks that still have to end: neither done, failed nor cancelled.
    pub fn open(&self) -> u64 {
        self.waiting + self.queued + self.running + self.retrying
    }
}

/// What `HGETALL longshore:{J}` says of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// The task that its subtasks run.
    pub task: String,
    /// The pool of workers.
    pub queue: String,
    /// Whose it is.
    pub tenant: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// The subtasks.
    pub books: Books,
    /// The nodes of the reduce tree; all zero without a reduce. `cancelled` counts here too.
    pub reduce: Books,
    /// The next index that was never handed out in this generation.
    pub cursor: u64,
    /// How many chunks are queued.
    pub queued_chunks: u64,
    /// How many chunks workers hold.
    pub running_chunks: u64,
    /// How often it was re-opened by `retry`.
    pub generation: u64,
    /// Attempts that ended, whatever their outcome.
    pub attempts: u64,
    /// Time that those attempts took, summed over slots.
    pub busy: Duration,
    /// Subtasks that were handed out again because their node was lost.
    pub lost: u64,
    /// When the next retry is due, if any waits.
    pub next_retry_at: Option<Timestamp>,
    /// When the ledger accepted it.
    pub submitted_at: Timestamp,
    /// When the first chunk was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it must have ended, if it has a deadline.
    pub deadline_at: Option<Timestamp>,
    /// Subtasks settled a second, lately.
    pub rate: f64,
    /// Estimated time to the end, while it moves.
    pub eta: Option<Duration>,
    /// Why it failed or was rejected.
    pub error: Option<String>,
    /// Why an attempt failed, the newest one that did, retried or not: `subtask 7: …` or
    /// `reduce node 1003: …`. Kept for as long as the job.
    pub last_error: Option<String>,
}

/// Why one subtask failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// The subtask.
    pub index: u64,
    /// What the handler said.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// Where the last one ran.
    pub node: NodeId,
    /// When it ended.
    pub at: Timestamp,
}

/// Results of consecutive subtasks, as they were committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRun {
    /// Index of the first.
    pub from: u64,
    /// One line of JSON a subtask, each ended by `\n`; or `@URL` of an object that holds them.
    pub lines: String,
    /// How many subtasks the run covers.
    pub count: u64,
}

/// A page of results in index order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsPage {
    /// The runs, in index order. Indices that lie in none of them have no result (yet).
    pub runs: Vec<ResultRun>,
    /// Where to go on; equal to the end of the asked range when there is no more.
    pub next: u64,
}

/// Whether a worker takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It claims chunks.
    Active,
    /// It finishes what it runs and claims nothing new.
    Draining,
}

/// What a worker says of itself with each heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// This incarnation.
    pub id: NodeId,
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The version of Longshore.
    pub version: String,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// The tasks that it can run.
    pub tasks: Vec<String>,
    /// What it is good for, free text.
    pub labels: BTreeMap<String, String>,
    /// How many chunks it runs side by side.
    pub slots: u32,
    /// How many it runs now.
    pub busy: u32,
    /// Whether it takes new work.
    pub state: NodeState,
    /// When it started (its own clock).
    pub started_at: Timestamp,
    /// Share of the machine's processors that the process used lately: 1.0 is one core.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub rss: u64,
}

/// A worker as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it said last.
    pub info: NodeInfo,
    /// How often it has beaten; a change is a sign of life, whatever the clocks say.
    pub seq: u64,
    /// When it beat last (the ledger's clock).
    pub beat_at: Timestamp,
}

/// The books recounted from the raw keys, beside the books as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The job.
    pub job: JobId,
    /// Where it stands.
    pub state: JobState,
    /// The subtasks by the counters.
    pub kept: Books,
    /// The subtasks by bitmaps, open chunks, the retry set and the cursor.
    pub counted: Books,
    /// The reduce nodes by the counters.
    pub reduce_kept: Books,
    /// The reduce nodes recounted.
    pub reduce_counted: Books,
    /// Each thing that is not as it should be; empty when all is well.
    pub findings: Vec<String>,
}

impl Audit {
    /// Whether the books balance and the counters agree with the raw keys.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
