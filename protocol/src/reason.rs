//! The reason why no subtask of a job can run, from the list of workers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DisabledTask, NodeId, NodeRecord, NodeState, Timestamp};

/// The kind of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No worker takes chunks of the job's queue.
    NoWorkerForQueue,
    /// Workers take chunks of the job's queue, but none of them can run the task.
    NoWorkerForTask,
    /// Workers can't continue with the chunks of the job that they hold.
    Stalled,
}

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
}

impl Reason {
    /// The reason from the workers' reports; `None` if there are none.
    pub fn stalled(stalls: &[Stall]) -> Option<Self> {
        let Stall { node, reason, .. } = stalls.first()?;
        let text = match stalls.len() {
            1 => format!("worker {node} can't go on: {reason}"),
            count => format!("{count} workers can't go on, of which {node} says: {reason}"),
        };
        Some(Self { code: ReasonCode::Stalled, text })
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
            return Some(Self { code: ReasonCode::NoWorkerForQueue, text });
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
        Some(Self { code: ReasonCode::NoWorkerForTask, text })
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
