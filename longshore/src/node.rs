//! A worker as the cluster knows it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use longshore_protocol as protocol;
use longshore_protocol::{Isolation, NodeId, NodeRecord, NodeState, Timestamp};

use crate::job::system_time;

/// A worker: what it reported with its last heartbeat, and what schedulers found out about it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// The worker's id: another one each time that it starts.
    pub id: NodeId,
    /// The name of its machine.
    pub host: String,
    /// The id of its process.
    pub pid: u32,
    /// The version of Longshore.
    pub version: String,
    /// Whether the worker takes new work, or drains.
    pub state: NodeState,
    /// The number of chunks that the worker runs at once.
    pub slots: u32,
    /// The number of chunks that the worker runs now.
    pub busy: u32,
    /// The queues that the worker serves.
    pub queues: Vec<String>,
    /// The tasks that the worker can run.
    pub tasks: Vec<String>,
    /// The tasks that the worker has and can't start now; they are not among `tasks`.
    pub disabled: Vec<DisabledTask>,
    /// The tasks for which the worker is out of rotation.
    pub isolated: Vec<IsolatedTask>,
    /// The labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// The processor time that the process used lately: 1.0 is one core.
    pub cpu: f64,
    /// The resident memory of the process, bytes.
    pub memory: u64,
    /// When the worker started, by its own clock.
    pub started_at: SystemTime,
    /// The time of the last heartbeat, by the clock of Redis.
    pub heartbeat_at: SystemTime,
    /// How long ago the last heartbeat was.
    pub silent_for: Duration,
    /// How the process of the worker ended, if its supervisor reported that. The worker is removed
    /// from the list soon after.
    pub crash: Option<String>,
}

/// A task that a worker has and can't start now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DisabledTask {
    /// The name of the task.
    pub task: String,
    /// Why the task can't be started, for people.
    pub reason: String,
    /// When an attempt could not be started for the first time, by the clock of the worker.
    pub since: SystemTime,
}

/// A task for which a worker is out of rotation, because subtasks failed on it that succeeded
/// elsewhere. [`Client::readmit`](crate::Client::readmit) ends that at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsolatedTask {
    /// The name of the task.
    pub task: String,
    /// The evidence, for people.
    pub reason: String,
    /// The number of subtasks that failed on the worker lately and succeeded elsewhere.
    pub cleared: u64,
    /// The number of attempts that succeeded on the worker in the same time.
    pub done: u64,
    /// How often in a row the worker was taken out of rotation for the task.
    pub times: u32,
    /// When the worker was taken out of rotation, by the clock of Redis.
    pub since: SystemTime,
    /// From when on the worker gets a chunk now and then, as a test, by the clock of Redis.
    pub until: SystemTime,
}

impl Node {
    /// The worker with this record, at this time of the ledger's clock.
    pub(crate) fn new(record: NodeRecord, now: Timestamp) -> Self {
        let info = record.info.as_ref().clone();
        Self {
            id: info.id,
            host: info.host,
            pid: info.pid,
            version: info.version,
            state: info.state,
            slots: info.slots,
            busy: info.busy,
            queues: info.queues,
            tasks: info.tasks,
            disabled: info.disabled.into_iter().map(DisabledTask::from).collect(),
            isolated: record.isolated.into_iter().map(IsolatedTask::from).collect(),
            labels: info.labels,
            cpu: info.cpu,
            memory: info.rss,
            started_at: system_time(info.started_at),
            heartbeat_at: system_time(record.beat_at),
            silent_for: now.since(record.beat_at),
            crash: record.death,
        }
    }
}

impl From<protocol::DisabledTask> for DisabledTask {
    fn from(disabled: protocol::DisabledTask) -> Self {
        let protocol::DisabledTask { task, reason, since } = disabled;
        Self { task, reason, since: system_time(since) }
    }
}

impl From<Isolation> for IsolatedTask {
    fn from(isolation: Isolation) -> Self {
        Self {
            reason: isolation.evidence(),
            task: isolation.task,
            cleared: isolation.cleared,
            done: isolation.done,
            times: isolation.times,
            since: system_time(isolation.since),
            until: system_time(isolation.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longshore_protocol::NodeInfo;

    use super::*;

    #[test]
    fn a_node_says_why_tasks_do_not_run_on_it() {
        let at = Timestamp::from_millis;
        let disabled = protocol::DisabledTask {
            task: "convert".into(),
            reason: "no program `convert`".into(),
            since: at(1_000),
        };
        let info = NodeInfo { disabled: vec![disabled], ..NodeInfo::new(NodeId::new("n")) };
        let isolation = Isolation {
            task: "render".into(),
            since: at(5_000),
            until: at(65_000),
            cleared: 12,
            done: 2,
            times: 1,
        };
        let record = NodeRecord {
            isolated: vec![isolation],
            death: Some("signal 9".into()),
            ..NodeRecord::new(Arc::new(info), at(7_000))
        };
        let node = Node::new(record, at(9_500));
        assert_eq!(node.silent_for, Duration::from_millis(2_500));
        assert_eq!(node.heartbeat_at, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        assert_eq!(node.crash.as_deref(), Some("signal 9"));
        let [disabled] = node.disabled.as_slice() else { panic!("{node:?}") };
        assert_eq!(
            (disabled.task.as_str(), disabled.reason.as_str()),
            ("convert", "no program `convert`")
        );
        let [isolated] = node.isolated.as_slice() else { panic!("{node:?}") };
        assert_eq!(
            (isolated.task.as_str(), isolated.reason.as_str()),
            ("render", "12 subtasks that failed on it succeeded elsewhere, 2 succeeded on it"),
        );
        assert_eq!(isolated.until, SystemTime::UNIX_EPOCH + Duration::from_secs(65));
    }
}
