//! Counts jobs: by state, and those that have not ended by queue and task.

use std::collections::BTreeMap;

use longshore_protocol::JobFilter;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobCounts;

use super::job::Job;
use super::store::Store;
use crate::op::OpenQueue;

impl Store {
    pub(super) fn count_jobs(&self, filter: &JobFilter) -> Option<JobCounts> {
        if filter.submitted_before.is_some() {
            return None;
        }
        let filter = JobFilter { states: Vec::new(), ..filter.clone() };
        let mut counts = JobCounts::default();
        for job in self.jobs().map(Job::summary).filter(|job| filter.matches(job)) {
            let number = match job.state {
                JobState::Succeeded => &mut counts.succeeded,
                JobState::Failed => &mut counts.failed,
                JobState::Cancelled => &mut counts.cancelled,
                JobState::Rejected => &mut counts.rejected,
                _ => &mut counts.open,
            };
            *number += 1;
        }
        Some(counts)
    }

    pub(super) fn open_queues(&self) -> Vec<OpenQueue> {
        let mut queues: BTreeMap<String, OpenQueue> = BTreeMap::new();
        for job in self.jobs().map(Job::summary) {
            if job.state.is_terminal() {
                continue;
            }
            let queue = job.queue;
            let counted = queues.entry(queue.clone()).or_insert_with(|| OpenQueue::new(queue));
            counted.jobs += 1;
            counted.tasks.insert(job.task);
        }
        queues.into_values().collect()
    }
}
