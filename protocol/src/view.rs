//! The records that the ledger shows: jobs, counts, errors, recoveries, results, nodes, schedulers.
//!
//! What other programs read of them has its JSON here; see [`wire`](crate::wire).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{JobId, LeftOut, NodeId, ResultBody, SchedulerId, Timestamp};

/// The number of subtasks in each state. The sum of all fields but `total` is always `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All subtasks.
    pub total: u64,
    /// Subtasks that were not handed out yet.
    pub waiting: u64,
    /// Subtasks in an open chunk that no worker has claimed.
    pub queued: u64,
    /// Subtasks in a chunk that a worker holds.
    pub running: u64,
    /// Subtasks that failed or were deferred, and wait for their next attempt.
    pub retrying: u64,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were given up because the job ended before they did.
    pub cancelled: u64,
}

impl Counts {
    /// The counts of `total` subtasks, none of which was handed out.
    pub fn new(total: u64) -> Self {
        Self { total, waiting: total, ..Self::default() }
    }

    /// `total` minus the sum of the rest; 0 when the counts balance.
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

    /// How far these counts are from `counted`, and from balancing.
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

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Subtasks that still have to end: neither done, failed nor cancelled.
    pub fn open(&self) -> u64 {
        self.waiting + self.queued + self.running + self.retrying
    }
}

/// A job as the ledger shows it: the contents of `HGETALL longshore:{J}`. Its JSON is flat, with
/// the words of that hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobSummary {
    /// The job's id.
    pub id: JobId,
    /// The job's state.
    pub state: JobState,
    /// The task that its subtasks run; empty for a rejected job, as are `queue` and `tenant`.
    pub task: String,
    /// The queue from which workers take its chunks.
    pub queue: String,
    /// The tenant that owns the job.
    pub tenant: String,
    /// What people call the job, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The labels of the job, by which lists can be filtered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// The subtasks.
    #[serde(flatten)]
    pub counts: Counts,
    /// The nodes of the reduce tree; all zero, and absent from the JSON, without a reduce.
    /// `cancelled` counts here too.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub reduce: Counts,
    /// The next index that was never handed out in this generation. Not in the JSON.
    #[serde(skip)]
    pub cursor: u64,
    /// The number of queued chunks. Not in the JSON.
    #[serde(skip)]
    pub queued_chunks: u64,
    /// The number of chunks that workers hold. Not in the JSON.
    #[serde(skip)]
    pub running_chunks: u64,
    /// How often the job was re-opened by `retry`.
    pub generation: u64,
    /// Attempts that ended, whatever their outcome.
    pub attempts: u64,
    /// Time that those attempts took, summed over slots.
    #[serde(rename = "busy_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub busy: Duration,
    /// Subtasks that were queued again because their node was lost, or did not know that it held
    /// them.
    pub lost: u64,
    /// How often chunks were taken back from a node; each time is a [`Recovery`].
    pub recoveries: u64,
    /// The number of recoveries from a node that died.
    pub crashes: u64,
    /// The number of recoveries from a node that lives and did not know that it held the chunks.
    /// All other recoveries were from nodes that had left without releasing their chunks.
    pub orphaned: u64,
    /// Chunks that were queued again by recoveries.
    pub reissued: u64,
    /// Chunks that a second node ran speculatively because the first took too long.
    pub speculative_chunks: u64,
    /// Commits that were refused because their token did not hold the chunk any more.
    pub fenced: u64,
    /// The names that its globs match and the job leaves out; empty for a job that was restored
    /// from the journal, which does not keep them.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
    /// When the next retry is due, if any waits. Not in the JSON.
    #[serde(skip)]
    pub next_retry_at: Option<Timestamp>,
    /// When the ledger accepted the job.
    pub submitted_at: Timestamp,
    /// When the first chunk was claimed.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// When the job is failed if it has not ended, if it has a deadline.
    pub deadline_at: Option<Timestamp>,
    /// When the ended job was restored from the journal, which has its numbers only: results and
    /// errors of its subtasks are gone, until it is re-opened.
    pub restored_at: Option<Timestamp>,
    /// Subtasks settled a second, a moving average.
    pub rate: f64,
    /// Estimated time to the end, while the job is in progress.
    #[serde(default, rename = "eta_ms", with = "optional_millis")]
    #[schemars(with = "Option<u64>")]
    pub eta: Option<Duration>,
    /// Why the job failed or was rejected.
    pub error: Option<String>,
    /// The error of the newest failed attempt, whether it is retried or not: `subtask 7: …` or
    /// `reduce node 1003: …`. Kept for as long as the job.
    pub last_error: Option<String>,
}

/// The error of a subtask that failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorEntry {
    /// The subtask.
    pub index: u64,
    /// The handler's error.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The node of the last attempt.
    pub node: NodeId,
    /// When the last attempt ended.
    pub at: Timestamp,
    /// The nodes that died while they ran the subtask, oldest first, if that is why it was given
    /// up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deaths: Vec<Death>,
}

/// A node that died while it held a chunk: evidence against the subtasks of the chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Death {
    /// The node.
    pub node: NodeId,
    /// When the death was known and the node's chunks were taken back.
    pub at: Timestamp,
    /// The number of subtasks of the chunk that were not settled; one of them may have killed the
    /// node.
    pub among: u64,
    /// What the system said about the death, if the process was watched: the signal or exit code,
    /// and the end of its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// Why chunks were taken back from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// The node died.
    Died,
    /// The node left without releasing its chunks.
    Left,
    /// The node lives and did not know that it held the chunks.
    Orphaned,
}

impl LossKind {
    /// The word in records and output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Left => "left",
            Self::Orphaned => "orphaned",
        }
    }
}

/// A record of how the ledger took back the chunks of a job that a node held. Its JSON has the
/// words of `longshore:{J}:recoveries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    /// When the chunks were taken back.
    pub at: Timestamp,
    /// The node.
    pub node: NodeId,
    /// Why they were taken back.
    pub lost: LossKind,
    /// What the system said about the node's death, if its process was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// The number of chunks that were queued again, parts of cut chunks included.
    pub chunks: u64,
    /// The number of subtasks in these chunks.
    pub subtasks: u64,
    /// The number of chunks that were cut into smaller ones, because two or more nodes died while
    /// they held them.
    pub cut: u64,
    /// The subtasks that were given up, because they keep killing their nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<u64>,
    /// The number of `chunks` that no worker has claimed yet.
    pub waiting: u64,
    /// The time from `at` to the claim of the last of `chunks`.
    #[serde(default, rename = "again_after_ms", with = "optional_millis")]
    #[schemars(with = "Option<u64>")]
    pub again_after: Option<Duration>,
}

/// Results of consecutive subtasks, as they were committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRun {
    /// Index of the first subtask.
    pub from: u64,
    /// The results, or the object that holds them.
    pub body: ResultBody,
    /// The number of subtasks in the run.
    pub count: u64,
}

/// A page of results in index order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsPage {
    /// The runs, in index order. Indices in none of them have no result (yet).
    pub runs: Vec<ResultRun>,
    /// The index at which the next page starts; the end of the range that was asked for if there is
    /// no next page.
    pub next: u64,
}

/// Whether a worker takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// The worker claims chunks.
    Active,
    /// The worker finishes its chunks and claims no new ones.
    Draining,
    /// The worker was asked to drain and holds no chunk any more. It stays until it is stopped, or
    /// asked to take chunks again.
    Drained,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Drained];

    /// The word in records and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// A task that a worker has and can't start now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DisabledTask {
    /// The task's name.
    pub task: String,
    /// Why the task can't be started, for people.
    pub reason: String,
    /// When starting an attempt failed for the first time (the worker's own clock).
    pub since: Timestamp,
}

/// The numbers of a worker's attempts at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// Attempts that succeeded.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// For each of these other workers, the number of subtasks that failed there and succeeded
    /// here.
    pub cleared: BTreeMap<NodeId, u64>,
}

/// A task for which a worker is out of rotation, because subtasks failed there that succeeded
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Isolation {
    /// The task.
    pub task: String,
    /// When the worker was taken out of rotation (the ledger's clock).
    pub since: Timestamp,
    /// From when on the worker gets a chunk now and then, to test whether it is well (the ledger's
    /// clock).
    pub until: Timestamp,
    /// The number of subtasks that failed on it lately and succeeded elsewhere.
    pub cleared: u64,
    /// The number of attempts that succeeded on it in the same time.
    pub done: u64,
    /// How often the worker was taken out of rotation in a row.
    pub times: u32,
}

impl Isolation {
    /// Why the worker is out of rotation, as a fragment for people.
    pub fn evidence(&self) -> String {
        let Self { cleared, done, .. } = self;
        format!("{cleared} subtasks that failed on it succeeded elsewhere, {done} succeeded on it")
    }
}

/// What a worker reports about itself with each heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfo {
    /// The id of this incarnation of the worker.
    pub id: NodeId,
    /// The machine's name.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// The version of Longshore.
    pub version: String,
    /// The queues that the worker consumes.
    pub queues: Vec<String>,
    /// The tasks that the worker can run.
    pub tasks: Vec<String>,
    /// The tasks that the worker has and can't start now; they are not among `tasks`.
    #[serde(default)]
    pub disabled: Vec<DisabledTask>,
    /// The numbers of its attempts since it started, for the tasks that failed here or elsewhere.
    #[serde(default)]
    pub records: Vec<TaskRecord>,
    /// The tasks that must not run speculatively on a second node, however long the first takes.
    #[serde(default)]
    pub non_speculative: Vec<String>,
    /// The terms by which schedulers judge whether the worker lives.
    #[serde(default)]
    pub terms: LivenessTerms,
    /// Labels of the worker, free text.
    pub labels: BTreeMap<String, String>,
    /// The number of chunks that the worker runs at once.
    pub slots: u32,
    /// The number of chunks that the worker runs now.
    pub busy: u32,
    /// The jobs of which the worker holds chunks, asked for chunks, or held chunks since the
    /// heartbeat before. The worker does not know of chunks of any other job that the ledger has it
    /// hold. `None`: not reported.
    #[serde(default)]
    pub jobs: Option<BTreeSet<JobId>>,
    /// Whether the worker takes new work.
    pub state: NodeState,
    /// When the worker started (its own clock).
    pub started_at: Timestamp,
    /// Processor time that the process used lately: 1.0 is one core.
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

/// The terms by which schedulers judge whether a worker lives: the worker's own settings, which may
/// differ from a scheduler's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LivenessTerms {
    /// The time from one heartbeat to the next; `None` if not reported.
    #[serde(rename = "heartbeat_ms", with = "optional_millis")]
    #[schemars(with = "Option<u64>")]
    pub heartbeat: Option<Duration>,
    /// The time without a heartbeat after which the worker counts as dead; `None` if not reported.
    #[serde(rename = "dead_after_ms", with = "optional_millis")]
    #[schemars(with = "Option<u64>")]
    pub dead_after: Option<Duration>,
    /// The worker's exclusive tasks, which it stops before `dead_after` has passed without a
    /// heartbeat. Two attempts at a subtask of such a task must never overlap, and lost connections
    /// don't prove that no attempt is running.
    pub exclusive: Vec<String>,
}

/// A duration as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}

/// A duration as whole milliseconds, or null.
mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
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
    /// What the worker reported last.
    pub info: Arc<NodeInfo>,
    /// The time of the last heartbeat (the ledger's clock). Any change of it means that the worker
    /// lives.
    pub beat_at: Timestamp,
    /// The ledger's names of the connections that end with the process; `None` while they are
    /// unknown.
    pub connections: Option<String>,
    /// The worker's round-trip time to the ledger, rounded up to a power of two; zero below 8 ms.
    pub round_trip: Duration,
    /// How the worker's process ended, as reported by its supervisor. The node is forgotten soon
    /// after.
    pub death: Option<String>,
    /// The tasks for which the worker is out of rotation.
    pub isolated: Vec<Isolation>,
}

impl NodeRecord {
    /// A worker with this last heartbeat and nothing else known.
    pub fn new(info: Arc<NodeInfo>, beat_at: Timestamp) -> Self {
        let (connections, round_trip, death) = (None, Duration::ZERO, None);
        Self { info, beat_at, connections, round_trip, death, isolated: Vec::new() }
    }
}

/// A scheduler as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerRecord {
    /// The id of this incarnation of the scheduler.
    pub id: SchedulerId,
    /// When the scheduler registered last (the ledger's clock).
    pub beat_at: Timestamp,
    /// The ledger's names of the connections that end with the process; `None` while they are
    /// unknown.
    pub connections: Option<String>,
    /// The scheduler's round-trip time to the ledger, rounded up to a power of two; zero below 8
    /// ms.
    pub round_trip: Duration,
}

/// The counts of a job recounted from the raw keys, beside the counts as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// The job.
    pub job: JobId,
    /// The job's state.
    pub state: JobState,
    /// The counts of subtasks as kept.
    pub kept: Counts,
    /// The counts of subtasks from bitmaps, open chunks, the retry set and the cursor.
    pub counted: Counts,
    /// The counts of reduce nodes as kept.
    pub reduce_kept: Counts,
    /// The counts of reduce nodes, recounted.
    pub reduce_counted: Counts,
    /// One entry for each error in the kept state; empty if there is none.
    pub findings: Vec<String>,
}

impl Audit {
    /// The number of subtasks and reduce nodes by which the kept counts differ from their sum and
    /// from the raw keys; 0 if they are right.
    pub fn imbalance(&self) -> u64 {
        let pairs = [(&self.kept, &self.counted), (&self.reduce_kept, &self.reduce_counted)];
        let off = pairs.iter().map(|(kept, counted)| kept.off(counted)).sum::<u128>();
        u64::try_from(off).unwrap_or(u64::MAX)
    }

    /// Whether the counts balance and agree with the raw keys.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
