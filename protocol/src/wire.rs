//! The JSON that `--json` prints: jobs, nodes, problems, the answers to commands; and hints.
//!
//! `docs/views.schema.json` has the JSON Schema of all of them. Here are the types that exist for
//! that JSON alone; the others are where they are used ([`JobSummary`], [`Problem`], [`Hint`], …).
//! A job and a recovery are flat and use the words of the ledger's keys; durations are milliseconds
//! in fields that end in `_ms`. Deliberately absent: the layout for people, which is the CLI's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::JobState;
use crate::{
    Action, ActionCursor, ApiToken, Audit, BulkOutcome, BulkPlan, DeadLetterAnswer,
    DeadLetterDetails, DeadLetterPage, DeadLettersPurged, ErrorEntry, Finding, Hint, Isolation,
    JobId, JobPage, JobSummary, NodeId, NodeInfo, NodeRecord, NodeState, Problem, Reason, Recovery,
    Timestamp,
};

/// A job with its recoveries and the reasons why it waits: what `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDetails {
    /// The job.
    #[serde(flatten)]
    pub job: JobSummary,
    /// The newest recoveries, newest first.
    pub recovered: Vec<Recovery>,
    /// Why subtasks of the job wait.
    pub reasons: Vec<Reason>,
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

/// Which failed subtasks of a job are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// These alone; null or absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indices: Option<Vec<u64>>,
}

/// What became of one document of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubmitOutcome {
    /// The place of the document among those of the batch, from 1; empty lines don't count.
    pub line: u64,
    /// The status that the document would have got alone: 201 for a new job, 200 for one that was
    /// submitted before, 202 for one that waits for a scheduler, or that of a problem.
    pub status: u16,
    /// The job; absent if the problem is about no job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
    /// Why the document was refused; absent if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The present: what a stream of events begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Present {
    /// The newest jobs, newest first.
    pub jobs: Vec<JobSummary>,
    /// The workers; absent for a token that is bound to tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeView>>,
}

/// A page of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionList {
    /// The entries, newest first.
    pub actions: Vec<Action>,
    /// The cursor of the next page; null at the end of the trail.
    pub next: Option<ActionCursor>,
}

/// A new API token with its secret, which is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewApiToken {
    /// What clients present: `Authorization: Bearer SECRET`.
    pub secret: String,
    /// The token.
    #[serde(flatten)]
    pub token: ApiToken,
}

/// Any of the values that `--json` prints, and any hint: the type of the schema in
/// `docs/views.schema.json`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum AnyView {
    /// `status`.
    JobDetails(JobDetails),
    /// `status JOB --watch`; a list of them: `status`.
    Job(JobSummary),
    /// `list`.
    JobPage(JobPage),
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
    /// `token create`.
    NewApiToken(NewApiToken),
    /// A list of them: `token list`.
    ApiToken(ApiToken),
    /// `pause`, `resume`, `cancel`, `retry`, `delete` with a filter, one on each line.
    BulkOutcome(BulkOutcome),
    /// The same with `--dry-run`.
    BulkPlan(BulkPlan),
    /// `dead list`.
    DeadLetterPage(DeadLetterPage),
    /// `dead show`.
    DeadLetterDetails(DeadLetterDetails),
    /// `dead requeue` and `dead purge`, one on each line.
    DeadLetterAnswer(DeadLetterAnswer),
    /// `dead purge --yes`.
    DeadLettersPurged(DeadLettersPurged),
    /// Any command that fails, on standard error.
    Problem(Problem),
    /// Sent on the channel `<ns>:events` of Redis.
    Hint(Hint),
}
