//! The reasons why subtasks of a job wait.
//!
//! The owner of a queue publishes what blocks its jobs, as it finds out while it decides
//! ([`Blocked`], for a [`BlockedScope`]); workers report what they can't go on with ([`Stall`]).
//! [`Reason`] is what people and programs get of both.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DisabledTask, JobId, JobSummary, NodeId, NodeRecord, NodeState, Timestamp};

/// The kind of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No scheduler is alive.
    NoScheduler,
    /// No worker takes chunks of the job's queue.
    NoWorkerForQueue,
    /// Workers take chunks of the job's queue, but none of them can run the task.
    NoWorkerForTask,
    /// All workers that have the task are out of rotation for it.
    SuspectIsolated,
    /// The scheduler can't publish to RabbitMQ.
    BrokerBlocked,
    /// The job is paused.
    Paused,
    /// As many chunks of the job are open as its `max_parallel` allows.
    MaxParallel,
    /// All that is left to run failed or was deferred, and waits for its next attempt.
    Backoff,
    /// All slots that can run the job are in use, and enough work waits ahead of them.
    SlotsBusy,
    /// As `SlotsBusy`, and all of these slots work for other jobs.
    FairShare,
    /// Workers can't continue with the chunks of the job that they hold.
    Stalled,
}

impl ReasonCode {
    /// Whether the job waits for a person to act, or for a service to come back. Otherwise its turn
    /// comes by itself.
    pub const fn needs_action(self) -> bool {
        match self {
            Self::MaxParallel | Self::Backoff | Self::SlotsBusy | Self::FairShare => false,
            Self::NoScheduler
            | Self::NoWorkerForQueue
            | Self::NoWorkerForTask
            | Self::SuspectIsolated
            | Self::BrokerBlocked
            | Self::Paused
            | Self::Stalled => true,
        }
    }

    /// What to do about it, in a sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NoScheduler => "Start a scheduler: `longshore scheduler`.",
            Self::NoWorkerForQueue => {
                "Start a worker for the queue, `longshore worker --queues QUEUE`, or undrain one."
            }
            Self::NoWorkerForTask => {
                "Declare the task in the settings of a worker of the queue, or repair what keeps \
                 it from starting."
            }
            Self::SuspectIsolated => {
                "See in `longshore nodes` what failed there, repair it, and put the worker back: \
                 `longshore readmit NODE`."
            }
            Self::BrokerBlocked => "See what `longshore doctor` finds about RabbitMQ.",
            Self::Paused => "Resume the job: `longshore resume JOB`.",
            Self::MaxParallel => "Nothing, or submit such jobs with a larger `max_parallel`.",
            Self::Backoff => "Nothing: the next attempt comes by itself. The errors say why.",
            Self::SlotsBusy => "Nothing, or start more workers for the queue.",
            Self::FairShare => {
                "Nothing, or give the job a higher `priority`, or start more workers for the queue."
            }
            Self::Stalled => "Repair what the worker reports; it goes on by itself.",
        }
    }
}

/// What blocks jobs, as the scheduler that owns their queue publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The kind of the reason.
    pub reason: ReasonCode,
    /// Since when (the ledger's clock).
    pub since: Timestamp,
}

/// The jobs of a queue that a [`Blocked`] is about. Its text is `*`, `task:NAME` or the id of a
/// job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockedScope {
    /// The jobs that each worker of the queue can run.
    Queue,
    /// The jobs with this task, which some workers of the queue can't run.
    Task(String),
    /// One job.
    Job(JobId),
}

impl fmt::Display for BlockedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue => f.write_str("*"),
            Self::Task(task) => write!(f, "task:{task}"),
            Self::Job(job) => write!(f, "{job}"),
        }
    }
}

impl FromStr for BlockedScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("task:")) {
            ("*", _) => Ok(Self::Queue),
            (_, Some(task)) => Ok(Self::Task(task.to_owned())),
            _ => text.parse().map(Self::Job).map_err(|_| format!("`{text}` is no scope")),
        }
    }
}

const PAUSED: &str = "the job is paused; `longshore resume` lets it go on";

/// A worker's report that it can't continue with the chunks of a job that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// The worker.
    pub node: NodeId,
    /// When the worker reported it last.
    pub at: Timestamp,
    /// Why the worker can't continue, in a sentence.
    pub reason: String,
}

/// The reason why a job waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// The kind, for programs.
    pub code: ReasonCode,
    /// One sentence, for people.
    pub text: String,
    /// The number of subtasks that wait for this reason, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtasks: Option<u64>,
    /// Since when the reason holds (the ledger's clock), if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Reason {
    /// A reason of which neither the time nor the number of subtasks is known.
    fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), subtasks: None, since: None }
    }

    /// The reason of a job that no scheduler feeds.
    pub fn no_scheduler() -> Self {
        Self::new(ReasonCode::NoScheduler, "no scheduler is alive; start `longshore scheduler`")
    }

    /// The reason that the owner of the job's queue published for the job, or for the jobs that the
    /// same workers can run. `None` if nothing of the job waits, or if the job itself says more
    /// than what was published.
    pub fn blocked(job: &JobSummary, blocked: Blocked) -> Option<Self> {
        if job.state.is_paused() != (blocked.reason == ReasonCode::Paused) {
            // It was paused, or resumed, since.
            return None;
        }
        let has_open = job.queued_chunks + job.running_chunks > 0;
        let code = match blocked.reason {
            ReasonCode::SlotsBusy if !has_open => ReasonCode::FairShare,
            code => code,
        };
        let counts = if job.state.is_reducing() { &job.reduce } else { &job.counts };
        let subtasks = match code {
            ReasonCode::Backoff => counts.retrying,
            _ => counts.waiting + counts.retrying,
        };
        let text = Self::sentence(code, job).filter(|_| subtasks > 0)?;
        Some(Self { code, text, subtasks: Some(subtasks), since: Some(blocked.since) })
    }

    /// The sentence for a reason that a scheduler publishes.
    fn sentence(code: ReasonCode, job: &JobSummary) -> Option<String> {
        let JobSummary { queue, task, .. } = job;
        Some(match code {
            ReasonCode::NoWorkerForQueue => format!("no worker takes chunks of queue `{queue}`"),
            ReasonCode::NoWorkerForTask => {
                format!("no worker of queue `{queue}` can run task `{task}`")
            }
            ReasonCode::SuspectIsolated => format!(
                "all workers of queue `{queue}` that have the task are out of rotation for it; \
                 `longshore nodes` says why, and `longshore readmit` puts one back"
            ),
            ReasonCode::Paused => PAUSED.into(),
            ReasonCode::BrokerBlocked => {
                "the scheduler can't publish to RabbitMQ; `longshore doctor` says why".into()
            }
            ReasonCode::MaxParallel => {
                "as many chunks are open as `max_parallel` of the job allows".into()
            }
            ReasonCode::Backoff => {
                "all that is left failed or was deferred, and waits for its next attempt".into()
            }
            ReasonCode::SlotsBusy => {
                format!("all slots of queue `{queue}` that can run the job are in use")
            }
            ReasonCode::FairShare => {
                format!("the slots of queue `{queue}` work for other jobs, whose turn it is")
            }
            // The list of schedulers and the workers' reports say these.
            ReasonCode::NoScheduler | ReasonCode::Stalled => return None,
        })
    }

    /// The reason of a job whose state says that it is paused, as long as none was published.
    pub fn paused(job: &JobSummary) -> Option<Self> {
        let subtasks = Some(job.counts.waiting + job.counts.retrying);
        let is_paused = job.state.is_paused();
        is_paused.then(|| Self { subtasks, ..Self::new(ReasonCode::Paused, PAUSED) })
    }

    /// The reason from the workers' reports; `None` if there are none.
    pub fn stalled(stalls: &[Stall]) -> Option<Self> {
        let Stall { node, reason, .. } = stalls.first()?;
        let text = match stalls.len() {
            1 => format!("worker {node} can't go on: {reason}"),
            count => format!("{count} workers can't go on, of which {node} says: {reason}"),
        };
        Some(Self::new(ReasonCode::Stalled, text))
    }

    /// The reason why none of these workers can run a task from a queue; `None` if one can. Workers
    /// that drain or have died count as absent.
    pub fn no_worker(queue: &str, task: &str, nodes: &[NodeRecord]) -> Option<Self> {
        let is_there = |node: &&NodeRecord| {
            let info = &node.info;
            let takes = info.queues.iter().any(|name| name == queue);
            takes && info.state == NodeState::Active && node.death.is_none()
        };
        let workers: Vec<&NodeRecord> = nodes.iter().filter(is_there).collect();
        let count = workers.len();
        if count == 0 {
            let text = format!("no worker takes chunks of queue `{queue}`");
            return Some(Self::new(ReasonCode::NoWorkerForQueue, text));
        }
        let can_run = |node: &&NodeRecord| node.info.tasks.iter().any(|name| name == task);
        if workers.iter().any(can_run) {
            return None;
        }
        let mut text = match count {
            1 => format!("the only worker of queue `{queue}` can't run task `{task}`"),
            _ => format!("none of the {count} workers of queue `{queue}` can run task `{task}`"),
        };
        let disabled = |node: &&NodeRecord| -> Option<(String, DisabledTask)> {
            let disabled = node.info.disabled.iter().find(|disabled| disabled.task == task)?;
            Some((node.info.id.to_string(), disabled.clone()))
        };
        let disabled: Vec<_> = workers.iter().filter_map(disabled).collect();
        match disabled.first() {
            Some((node, DisabledTask { reason, .. })) => {
                text +=
                    &format!("; {} can't start it, of which {node} says: {reason}", disabled.len());
            }
            None => text += ", because the task is not declared there",
        }
        Some(Self::new(ReasonCode::NoWorkerForTask, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, NodeInfo, Timestamp};
    use std::sync::Arc;

    fn worker(name: &str, tasks: &[&str], disabled_of: &[&str]) -> NodeRecord {
        let disabled = |task: &&str| DisabledTask {
            task: (*task).to_owned(),
            reason: "no program `x`".into(),
            since: Timestamp::default(),
        };
        let info = NodeInfo {
            queues: vec!["q".into()],
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            disabled: disabled_of.iter().map(disabled).collect(),
            ..NodeInfo::new(NodeId::new(name))
        };
        let beat_at = Timestamp::default();
        NodeRecord::new(Arc::new(info), beat_at)
    }

    #[test]
    fn a_scope_reads_as_it_is_written() {
        let job = JobId::from_uuid(uuid::Uuid::from_u128(7));
        let scopes =
            [BlockedScope::Queue, BlockedScope::Task("a:b".into()), BlockedScope::Job(job)];
        for scope in scopes {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert!("tasks:a".parse::<BlockedScope>().is_err());
    }

    #[track_caller]
    fn says(nodes: &[NodeRecord], expected: Option<&str>) {
        assert_eq!(Reason::no_worker("q", "t", nodes).map(|it| it.text).as_deref(), expected);
    }

    #[test]
    fn a_job_that_nobody_can_run_says_so_in_one_sentence() {
        let [able, lacks] = [worker("a", &["t", "u"], &[]), worker("b", &["u"], &[])];
        let broken = worker("c", &["u"], &["t"]);
        says(&[], Some("no worker takes chunks of queue `q`"));
        says(&[lacks.clone(), able.clone()], None);
        says(
            std::slice::from_ref(&lacks),
            Some(
                "the only worker of queue `q` can't run task `t`, \
                 because the task is not declared there",
            ),
        );
        says(
            &[lacks, broken],
            Some(
                "none of the 2 workers of queue `q` can run task `t`; \
                 1 can't start it, of which c says: no program `x`",
            ),
        );
        let drains = NodeInfo { state: NodeState::Draining, ..(*able.info).clone() };
        let drains = NodeRecord { info: Arc::new(drains), ..able };
        says(&[drains], Some("no worker takes chunks of queue `q`"));
    }
}
