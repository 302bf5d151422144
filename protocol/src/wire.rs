//! The JSON that `--json` prints: jobs, recoveries, nodes, and the answers to commands.
//!
//! Each type here or marked so has its JSON Schema in `docs/views.schema.json`. A job and a
//! recovery are flat and use the words of the ledger's keys; durations are milliseconds in fields
//! that end in `_ms`. Deliberately absent: the layout for people, which is the CLI's.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::JobState;
use crate::{
    Audit, Counts, ErrorEntry, Finding, Isolation, JobCursor, JobId, JobPage, JobSummary, LeftOut,
    LossKind, NodeId, NodeInfo, NodeRecord, NodeState, Reason, Recovery, Timestamp,
};

/// A job: flat, with the words of `HGETALL longshore:{J}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
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
    /// What people call the job; absent without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The labels of the job; absent without any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// All subtasks: the sum of the next seven numbers.
    pub total: u64,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were given up because the job ended before they did.
    pub cancelled: u64,
    /// Subtasks in a chunk that a worker holds.
    pub running: u64,
    /// Subtasks in an open chunk that no worker has claimed.
    pub queued: u64,
    /// Subtasks that failed or were deferred, and wait for their next attempt.
    pub retrying: u64,
    /// Subtasks that were not handed out yet.
    pub waiting: u64,
    /// The nodes of the reduce tree; absent without a reduce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Counts>,
    /// How often the job was re-opened by `retry`.
    pub generation: u64,
    /// Attempts that ended, whatever their outcome.
    pub attempts: u64,
    /// Subtasks that were queued again by recoveries.
    pub lost: u64,
    /// How often chunks were taken back from a node.
    pub recoveries: u64,
    /// The number of recoveries from a node that died.
    pub crashes: u64,
    /// The number of recoveries from a node that lives and did not know that it held the chunks.
    pub orphaned: u64,
    /// Chunks that were queued again by recoveries.
    pub reissued: u64,
    /// Chunks that a second node ran speculatively because the first took too long.
    pub speculative_chunks: u64,
    /// Commits that were refused because their token did not hold the chunk any more.
    pub fenced: u64,
    /// Time that the attempts took, summed over slots.
    pub busy_ms: u64,
    /// When the ledger accepted the job.
    pub submitted_at: Timestamp,
    /// When the first chunk was claimed.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// When the job is failed if it has not ended.
    pub deadline_at: Option<Timestamp>,
    /// When the ended job was restored from the journal: its results and errors are gone.
    pub restored_at: Option<Timestamp>,
    /// Subtasks settled a second, a moving average.
    pub rate: f64,
    /// Estimated time to the end, while the job is in progress.
    pub eta_ms: Option<u64>,
    /// Why the job failed or was rejected.
    pub error: Option<String>,
    /// The error of the newest failed attempt, whether it is retried or not.
    pub last_error: Option<String>,
    /// The names that its globs match and the job leaves out; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

impl From<&JobSummary> for JobView {
    fn from(job: &JobSummary) -> Self {
        Self {
            id: job.id,
            state: job.state,
            task: job.task.clone(),
            queue: job.queue.clone(),
            tenant: job.tenant.clone(),
            name: job.name.clone(),
            labels: job.labels.clone(),
            priority: job.priority,
            total: job.counts.total,
            done: job.counts.done,
            failed: job.counts.failed,
            cancelled: job.counts.cancelled,
            running: job.counts.running,
            queued: job.counts.queued,
            retrying: job.counts.retrying,
            waiting: job.counts.waiting,
            reduce: (job.reduce.total > 0).then_some(job.reduce),
            generation: job.generation,
            attempts: job.attempts,
            lost: job.lost,
            recoveries: job.recoveries,
            crashes: job.crashes,
            orphaned: job.orphaned,
            reissued: job.reissued,
            speculative_chunks: job.speculative_chunks,
            fenced: job.fenced,
            busy_ms: millis(job.busy),
            submitted_at: job.submitted_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            deadline_at: job.deadline_at,
            restored_at: job.restored_at,
            rate: job.rate,
            eta_ms: job.eta.map(millis),
            error: job.error.clone(),
            last_error: job.last_error.clone(),
            left_out: Some(job.left_out.clone()).filter(|left_out| !left_out.is_empty()),
        }
    }
}

/// A page of jobs: what `list` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// The cursor of the next page; null at the end of the list.
    pub next: Option<JobCursor>,
}

impl From<&JobPage> for JobList {
    fn from(page: &JobPage) -> Self {
        Self { jobs: page.jobs.iter().map(JobView::from).collect(), next: page.next }
    }
}

/// A job with its recoveries and the reasons why it waits: what `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDetails {
    /// The job.
    #[serde(flatten)]
    pub job: JobView,
    /// The newest recoveries, newest first.
    pub recovered: Vec<RecoveryView>,
    /// Why subtasks of the job wait.
    pub reasons: Vec<Reason>,
}

/// A record of how chunks were taken back from a node: the words of `longshore:{J}:recoveries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryView {
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
    /// The number of chunks that were cut into smaller ones.
    pub cut: u64,
    /// The subtasks that were given up; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<u64>,
    /// The number of `chunks` that no worker has claimed yet.
    pub waiting: u64,
    /// The time from `at` to the claim of the last of `chunks`.
    pub again_after_ms: Option<u64>,
}

impl From<&Recovery> for RecoveryView {
    fn from(recovery: &Recovery) -> Self {
        Self {
            at: recovery.at,
            node: recovery.node.clone(),
            lost: recovery.lost,
            how: recovery.how.clone(),
            chunks: recovery.chunks,
            subtasks: recovery.subtasks,
            cut: recovery.cut,
            given_up: recovery.given_up.clone(),
            waiting: recovery.waiting,
            again_after_ms: recovery.again_after.map(millis),
        }
    }
}

/// A worker: what it reported, the time of its last heartbeat, and where it is out of rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// What the worker reported last.
    #[serde(flatten)]
    pub info: NodeInfo,
    /// The time of the last heartbeat (the ledger's clock).
    pub beat_at: Timestamp,
    /// The tasks for which the worker is out of rotation.
    pub isolated: Vec<Isolation>,
}

impl From<&NodeRecord> for NodeView {
    fn from(record: &NodeRecord) -> Self {
        Self {
            info: NodeInfo::clone(&record.info),
            beat_at: record.beat_at,
            isolated: record.isolated.clone(),
        }
    }
}

/// A result: of one subtask, or the reduced value of the job. Its schema would accept any object
/// with a `result`, so it is not among the views of the schema.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ResultView<'a> {
    /// The subtask; absent for the reduced value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The application's own JSON.
    pub result: &'a RawValue,
}

/// The answer to a command about one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobAnswer {
    /// The job's id.
    pub id: JobId,
    /// The job's state after the command; absent right after a submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateAfter>,
    /// `false` for a job that was cancelled before it was admitted; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<bool>,
}

/// A job's state after a command, or that the job is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StateAfter {
    /// The job is in this state.
    State(JobState),
    /// The job is gone.
    Gone(Gone),
}

/// How a job is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gone {
    /// The job was deleted.
    Deleted,
}

impl JobAnswer {
    /// The job was submitted.
    pub const fn submitted(id: JobId) -> Self {
        Self { id, state: None, admitted: None }
    }

    /// The job is in this state.
    pub const fn state(id: JobId, state: JobState) -> Self {
        Self { id, state: Some(StateAfter::State(state)), admitted: None }
    }

    /// The job was deleted.
    pub const fn deleted(id: JobId) -> Self {
        Self { id, state: Some(StateAfter::Gone(Gone::Deleted)), admitted: None }
    }

    /// The job was cancelled before it was admitted.
    pub const fn cancelled_before_admission(id: JobId) -> Self {
        let state = StateAfter::State(JobState::Cancelled);
        Self { id, state: Some(state), admitted: Some(false) }
    }
}

/// The answer to a command about one worker: the fields that the command changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeAnswer {
    /// The worker.
    pub node: NodeId,
    /// Whether the worker takes new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// The tasks for which the worker is out of rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Vec<Isolation>>,
}

impl NodeAnswer {
    /// The worker was asked to drain.
    pub const fn draining(node: NodeId) -> Self {
        Self { node, state: Some(NodeState::Draining), isolated: None }
    }

    /// The worker is back in rotation for all tasks.
    pub const fn in_rotation(node: NodeId) -> Self {
        Self { node, state: None, isolated: Some(Vec::new()) }
    }
}

/// Any of the values that `--json` prints: the type of the schema in `docs/views.schema.json`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum AnyView {
    /// `status`.
    JobDetails(JobDetails),
    /// `submit --wait`, `watch`; a list of them: `list`.
    Job(JobView),
    /// A list of them: `nodes`.
    Node(NodeView),
    /// `errors`, one on each line.
    Error(ErrorEntry),
    /// `audit`.
    Audit(Audit),
    /// A list of them: `doctor`.
    Finding(Finding),
    /// `submit`, `pause`, `resume`, `cancel`, `retry`, `delete`.
    JobAnswer(JobAnswer),
    /// `drain`, `readmit`.
    NodeAnswer(NodeAnswer),
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
