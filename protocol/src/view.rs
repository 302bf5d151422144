//! How the ledger's contents look from outside: jobs, nodes, errors, results and the books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{JobId, LeftOut, NodeId, SchedulerId, Timestamp};

/// Where each of some number of subtasks stands. The sum of all but `total` is `total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
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

impl Counts {
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

    /// How far these books are from `counted`, and from balancing.
    fn off(&self, counted: &Self) -> u128 {
        let lines = |counts: &Self| {
            let Self { total, waiting, queued, running, retrying, done, failed, cancelled } =
                *counts;
            [total, waiting, queued, running, retrying, done, failed, cancelled]
        };
        let pairs = lines(self).into_iter().zip(lines(counted));
        let between = pairs.map(|(kept, counted)| u128::from(kept.abs_diff(counted))).sum::<u128>();
        between + self.imbalance().unsigned_abs()
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
    pub counts: Counts,
    /// The nodes of the reduce tree; all zero without a reduce. `cancelled` counts here too.
    pub reduce: Counts,
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
    /// Subtasks that were queued again because their node was lost, or knew nothing of them.
    pub lost: u64,
    /// How often work was taken back from a node; each time is a [`Recovery`].
    pub recoveries: u64,
    /// Those of them in which the node died.
    pub crashes: u64,
    /// Those of them in which the node lives, and knew nothing of what it held. In the others it had left without a word.
    pub orphaned: u64,
    /// Chunks that were queued again by them.
    pub reissued: u64,
    /// Chunks that a second node began to run because the first took so long.
    pub copies: u64,
    /// Commits that were refused because their token did not hold the chunk any more.
    pub fenced: u64,
    /// What its globs match and it leaves out, as far as is known: the journal keeps nothing of it.
    #[serde(default)]
    pub left_out: LeftOut,
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
    /// When it was put back from the journal after its end, with its numbers alone: results and errors of its subtasks are
    /// gone, until it is re-opened.
    pub restored_at: Option<Timestamp>,
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
    /// The nodes that died while they ran it, oldest first, if that is why it was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deaths: Vec<Death>,
}

/// A node that died while it held a chunk: evidence against the subtasks of the chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The node.
    pub node: NodeId,
    /// When its death was known and its work taken back.
    pub at: Timestamp,
    /// How many subtasks of the chunk were not settled, the guilty one among them if there is one.
    pub among: u64,
    /// What the system said of it, if its process was watched: the signal or exit code, and its last words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// Why work was taken back from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    /// It died.
    Died,
    /// It had left without a word.
    Left,
    /// It lives, and knew nothing of what it held.
    Orphaned,
}

impl Lost {
    /// As it is written down.
    pub fn word(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Left => "left",
            Self::Orphaned => "orphaned",
        }
    }
}

/// How the ledger took back what a node held of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When.
    pub at: Timestamp,
    /// The node.
    pub node: NodeId,
    /// Why.
    pub lost: Lost,
    /// What the system said of its death, if its process was watched.
    pub how: Option<String>,
    /// How many chunks were queued again, those that were cut off others included.
    pub chunks: u64,
    /// The subtasks in them.
    pub subtasks: u64,
    /// How many chunks were cut into smaller ones, because they were held by two or more nodes that died.
    pub cut: u64,
    /// Subtasks that were given up, because they keep killing their nodes.
    pub given_up: Vec<u64>,
    /// How many of `chunks` nobody has claimed yet.
    pub waiting: u64,
    /// The time from `at` to the claim of the last of them.
    pub again_after: Option<Duration>,
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

/// A task that a worker has and can't start at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisabledTask {
    /// The task's name.
    pub task: String,
    /// Why it can't be started, for people.
    pub reason: String,
    /// When an attempt could not be started for the first time (the worker's own clock).
    pub since: Timestamp,
}

/// What came of a worker's attempts at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// How many succeeded.
    pub done: u64,
    /// How many failed.
    pub failed: u64,
    /// How many of those that succeeded here had failed on each of these other workers.
    pub cleared: BTreeMap<NodeId, u64>,
}

/// A worker's being out of rotation for a task: subtasks failed there that succeeded elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The task.
    pub task: String,
    /// When it was isolated (the ledger's clock).
    pub since: Timestamp,
    /// From when on it gets a chunk now and then, to see whether it is well (the ledger's clock).
    pub until: Timestamp,
    /// How many subtasks that had failed on it lately succeeded elsewhere.
    pub cleared: u64,
    /// How many attempts succeeded on it in the same time.
    pub done: u64,
    /// How often it was isolated in a row.
    pub times: u32,
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
    /// Those that it has and can't start at the moment, which are not among `tasks`.
    #[serde(default)]
    pub disabled: Vec<DisabledTask>,
    /// What came of its attempts at the tasks that failed here or elsewhere, since it started.
    #[serde(default)]
    pub records: Vec<TaskRecord>,
    /// Those of them of which no second copy may run, however long the first takes.
    #[serde(default)]
    pub non_speculative: Vec<String>,
    /// By what it wants to be judged.
    #[serde(default)]
    pub terms: LivenessTerms,
    /// What it is good for, free text.
    pub labels: BTreeMap<String, String>,
    /// How many chunks it runs side by side.
    pub slots: u32,
    /// How many it runs now.
    pub busy: u32,
    /// The jobs of which it holds chunks, wants to, or did since the beat before. What the ledger has it hold of any other
    /// job, it knows nothing of. `None`: it does not say.
    #[serde(default)]
    pub jobs: Option<BTreeSet<JobId>>,
    /// Whether it takes new work.
    pub state: NodeState,
    /// When it started (its own clock).
    pub started_at: Timestamp,
    /// Share of the machine's processors that the process used lately: 1.0 is one core.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub rss: u64,
}

impl NodeInfo {
    /// An idle worker with one slot and neither queues nor tasks. Other fields are set with the
    /// struct update syntax, so that a new field changes only the code that sets it.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            host: String::new(),
            pid: 0,
            version: String::new(),
            queues: Vec::new(),
            tasks: Vec::new(),
            disabled: Vec::new(),
            records: Vec::new(),
            non_speculative: Vec::new(),
            terms: LivenessTerms::default(),
            labels: BTreeMap::new(),
            slots: 1,
            busy: 0,
            jobs: None,
            state: NodeState::Active,
            started_at: Timestamp::default(),
            cpu: 0.0,
            rss: 0,
        }
    }
}

/// By what a worker wants to be judged: its own settings, which may differ from a scheduler's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LivenessTerms {
    /// The time from one of its heartbeats to the next; `None` if it does not say.
    #[serde(rename = "heartbeat_ms", with = "millis")]
    pub heartbeat: Option<Duration>,
    /// After this time without a heartbeat it is taken for dead; `None` if it does not say.
    #[serde(rename = "dead_after_ms", with = "millis")]
    pub dead_after: Option<Duration>,
    /// Its exclusive tasks, which it stops before `dead_after` has passed without a heartbeat. Two
    /// attempts of theirs must never overlap, so that connections that are gone don't prove that
    /// nothing of them runs.
    pub exclusive: Vec<String>,
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// A worker as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it said last.
    pub info: Arc<NodeInfo>,
    /// When it beat last (the ledger's clock). A change is a sign of life, whatever the clocks say.
    pub beat_at: Timestamp,
    /// What the ledger calls the connections that end with the process; `None` while that is unknown.
    pub heart: Option<String>,
    /// The time from a question to the ledger to its answer there, in powers of two; zero below 8 ms.
    pub round_trip: Duration,
    /// How its process ended, as told by whoever watched it. The node is forgotten soon.
    pub death: Option<String>,
    /// The tasks for which it is out of rotation.
    pub isolated: Vec<Isolation>,
}

impl NodeRecord {
    /// A worker with this last heartbeat and nothing else known.
    pub fn new(info: Arc<NodeInfo>, beat_at: Timestamp) -> Self {
        let (heart, round_trip, death) = (None, Duration::ZERO, None);
        Self { info, beat_at, heart, round_trip, death, isolated: Vec::new() }
    }
}

/// A scheduler as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerRecord {
    /// This incarnation.
    pub id: SchedulerId,
    /// When it signed in last (the ledger's clock).
    pub beat_at: Timestamp,
    /// What the ledger calls the connections that end with the process; `None` while that is unknown.
    pub heart: Option<String>,
    /// The time from a question to the ledger to its answer there, in powers of two; zero below 8 ms.
    pub round_trip: Duration,
}

/// The books recounted from the raw keys, beside the books as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The job.
    pub job: JobId,
    /// Where it stands.
    pub state: JobState,
    /// The subtasks by the counters.
    pub kept: Counts,
    /// The subtasks by bitmaps, open chunks, the retry set and the cursor.
    pub counted: Counts,
    /// The reduce nodes by the counters.
    pub reduce_kept: Counts,
    /// The reduce nodes recounted.
    pub reduce_counted: Counts,
    /// Each thing that is not as it should be; empty when all is well.
    pub findings: Vec<String>,
}

impl Audit {
    /// By how many subtasks and reduce nodes the counters are off: from each other's sum, and from the raw keys. 0 when all is well.
    pub fn imbalance(&self) -> u64 {
        let pairs = [(&self.kept, &self.counted), (&self.reduce_kept, &self.reduce_counted)];
        let off = pairs.iter().map(|(kept, counted)| kept.off(counted)).sum::<u128>();
        u64::try_from(off).unwrap_or(u64::MAX)
    }

    /// Whether the books balance and the counters agree with the raw keys.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
