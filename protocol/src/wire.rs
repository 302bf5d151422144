//! The JSON that `--json` prints: jobs, nodes, problems, the answers to commands; and hints.
//!
//! `docs/views.schema.json` has the JSON Schema of all of them. Here are the types that exist for
//! that JSON alone; the others are where they are used ([`JobSummary`], [`Problem`], [`Hint`], …).
//! A job and a recovery are flat and use the words of the ledger's keys; durations are milliseconds
//! in fields that end in `_ms`. Deliberately absent: the layout for people, which is the CLI's.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::JobState;
use crate::{
    Action, ActionCursor, ApiToken, Audit, BulkAction, BulkOutcome, BulkPlan, DeadLetterAnswer,
    DeadLetterDetails, DeadLetterPage, DeadLettersPurged, ErrorEntry, Finding, Hint, Isolation,
    JobFilter, JobId, JobPage, JobSummary, NodeId, NodeInfo, NodeRecord, NodeState, Problem,
    Reason, ReasonCode, Recovery, Role, SchedulerId, Timestamp,
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

    /// The worker holds no chunk any more, or has left.
    pub const fn drained(node: NodeId) -> Self {
        Self { node, state: Some(NodeState::Drained), isolated: None }
    }

    /// The worker was asked to take chunks again.
    pub const fn active(node: NodeId) -> Self {
        Self { node, state: Some(NodeState::Active), isolated: None }
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

/// The time by which all that is known of jobs and workers is dated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// The time of the ledger's clock.
    pub now: Timestamp,
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

/// A bulk action: what is done, and to which jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// The action.
    pub action: BulkAction,
    /// The jobs: those that satisfy every condition, of which there has to be one at least.
    pub filter: JobFilter,
    /// Change nothing, and answer with the plan.
    #[serde(default)]
    pub dry_run: bool,
}

/// A page of jobs, with the counts of all jobs that its filter shows if they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The page.
    #[serde(flatten)]
    pub page: JobPage,
    /// The jobs that the filter shows, by state, whatever states it names. Absent unless they were
    /// asked for, and where the ledger can't count the jobs of a filter, which is in Redis Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<JobCounts>,
}

/// Numbers of jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobCounts {
    /// Jobs that have not ended, or only in the last seconds.
    pub open: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that were rejected. They have no attributes, so no filter shows them but by state.
    pub rejected: u64,
}

/// Why a job has not ended, or how it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The job's id.
    pub id: JobId,
    /// The job's state.
    pub state: JobState,
    /// One sentence, for people: how the job stands.
    pub text: String,
    /// The reasons why subtasks wait; first those that need action, then by the number of subtasks.
    /// Empty for a job that has ended, or of which nothing waits.
    pub reasons: Vec<RankedReason>,
}

/// A reason with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RankedReason {
    /// The reason.
    #[serde(flatten)]
    pub reason: Reason,
    /// Whether the job waits for a person to act, or for a service to come back; otherwise its turn
    /// comes by itself.
    pub needs_action: bool,
    /// What to do, in a sentence.
    pub advice: String,
}

/// The errors of a job that are kept, grouped by what their messages have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorGroups {
    /// The number of subtasks that failed for good.
    pub failed: u64,
    /// The number of errors that are kept, and grouped here: the newest 10,000 at most.
    pub kept: u64,
    /// The groups, the largest first.
    pub groups: Vec<ErrorGroup>,
    /// The number of errors in groups beyond those that are listed.
    pub in_other_groups: u64,
}

/// Errors whose messages are the same but for numbers, ids and quoted parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorGroup {
    /// The message with `…` in place of the parts that differ from subtask to subtask.
    pub fingerprint: String,
    /// The number of errors.
    pub count: u64,
    /// The first subtask of the group.
    pub first: u64,
    /// The error of that subtask.
    pub example: ErrorEntry,
}

/// A queue of chunks: who waits in it, who works for it, and what holds it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueView {
    /// The queue's name.
    pub queue: String,
    /// The number of its jobs that have not ended.
    pub jobs: u64,
    /// The number of workers that take chunks of the queue now.
    pub workers: u64,
    /// The slots of these workers.
    pub slots: u64,
    /// The slots that run a chunk, of whatever queue.
    pub busy: u64,
    /// The scheduler that feeds the queue; null if none is alive.
    pub scheduler: Option<SchedulerId>,
    /// The number of chunk messages that wait in RabbitMQ; null if it can't tell, or has no such
    /// queue.
    pub messages: Option<u64>,
    /// What blocks jobs of the queue, as the scheduler published it.
    pub blocked: Vec<QueueBlocked>,
}

/// What blocks jobs of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueBlocked {
    /// The task whose jobs are blocked; null for all jobs that each worker can run.
    pub task: Option<String>,
    /// The kind of the reason.
    pub code: ReasonCode,
    /// Since when (the ledger's clock).
    pub since: Timestamp,
}

/// An API token that is to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenRequest {
    /// What people call the token. The audit trail names it.
    pub name: String,
    /// What the token permits.
    pub role: Role,
    /// The tenants whose jobs the token shows; null or absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<BTreeSet<String>>,
    /// For how long the token is valid, such as `90d`; null or absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The answer to the revocation of an API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// The token's id.
    pub id: String,
    /// What became of it.
    pub state: TokenState,
}

/// What became of an API token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Servers refuse it within two seconds.
    Revoked,
}

impl TokenAnswer {
    /// The token was revoked.
    pub const fn revoked(id: String) -> Self {
        Self { id, state: TokenState::Revoked }
    }
}

/// Which dead letters are put back or deleted: either some or all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersRequest {
    /// The letters with these ids: the job's, the beginning of it, or the `message_id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All letters that are there now.
    #[serde(default)]
    pub all: bool,
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
    /// `drain`, `undrain`, `readmit`.
    NodeAnswer(NodeAnswer),
    /// `token create`.
    NewApiToken(NewApiToken),
    /// `token revoke`.
    TokenAnswer(TokenAnswer),
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
