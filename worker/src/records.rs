//! Counts outcomes by task; schedulers compare the counts to find nodes where too many fail.
//!
//! Such are the nodes on which subtasks fail that succeed on other nodes.
//!
//! Heartbeats report the records of tasks with subtasks that failed here, or that succeeded here
//! after they had failed on other nodes. Deliberately absent: single subtasks, and any verdict.

use std::collections::BTreeMap;

use longshore_protocol::{NodeId, OutcomeRun, TaskRecord};
use parking_lot::Mutex;

/// Most other nodes in one record.
const MAX_NODES: usize = 128;

/// The records of a worker since it started.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<BTreeMap<String, TaskRecord>>);

impl Records {
    /// Counts outcomes of attempts at a task that the ledger took. Each of the subtasks had failed
    /// before on the nodes in `tried`.
    pub(crate) fn count(&self, task: &str, runs: &[OutcomeRun], tried: &[NodeId], me: &NodeId) {
        let mut records = self.0.lock();
        if !records.contains_key(task) {
            let (task, cleared) = (task.to_owned(), BTreeMap::new());
            let record = TaskRecord { task: task.clone(), done: 0, failed: 0, cleared };
            records.insert(task, record);
        }
        let record = records.get_mut(task).expect("it was put there if it was missing");
        let mut done = 0;
        for run in runs {
            match run {
                OutcomeRun::Success { count, .. } => done += count,
                OutcomeRun::Retry { .. } | OutcomeRun::Failed { .. } => record.failed += 1,
                OutcomeRun::Defer { .. } => {}
            }
        }
        record.done += done;
        let mut others: Vec<&NodeId> = tried.iter().filter(|node| *node != me).collect();
        others.sort_unstable();
        others.dedup();
        for node in others.into_iter().filter(|_| done > 0) {
            if record.cleared.len() == MAX_NODES && !record.cleared.contains_key(node) {
                record.cleared.pop_first();
            }
            *record.cleared.entry(node.clone()).or_default() += done;
        }
    }

    /// The records that schedulers need.
    pub(crate) fn reportable(&self) -> Vec<TaskRecord> {
        let records = self.0.lock();
        let is_needed = |record: &&TaskRecord| record.failed > 0 || !record.cleared.is_empty();
        records.values().filter(is_needed).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_success_here_after_failures_on_other_nodes_is_counted_for_them_and_reported() {
        let records = Records::default();
        let [me, a, b] = ["me", "a", "b"].map(NodeId::new);
        let success = OutcomeRun::Success { count: 3, results: None };
        let retry = OutcomeRun::Retry { error: "e".into(), delay: Duration::ZERO };
        records.count("t", std::slice::from_ref(&success), &[], &me);
        assert_eq!(records.reportable(), []);
        records.count("t", std::slice::from_ref(&retry), std::slice::from_ref(&a), &me);
        records.count("t", &[success, retry], &[a.clone(), b.clone(), a.clone(), me.clone()], &me);
        let cleared = BTreeMap::from([(a, 3), (b, 3)]);
        let expected = TaskRecord { task: "t".into(), done: 6, failed: 2, cleared };
        assert_eq!(records.reportable(), [expected]);
    }
}
