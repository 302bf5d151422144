//! Chooses the jobs whose messages may be lost, so that the next sweeps publish them again.
//!
//! A sweep publishes only what no worker has claimed.

use std::collections::BTreeSet;

use longshore_protocol::{JobId, Timestamp};

use super::Engine;

/// When a worker is lost, at most this many chunks of a job may be published once too often: what
/// one sweep publishes again.
const FEW: u64 = 1_000;

impl Engine {
    /// Messages of these jobs may have been lost.
    pub(super) fn suspect_lost(&mut self, now: Timestamp, jobs: impl IntoIterator<Item = JobId>) {
        for id in jobs {
            if let Some(job) = self.jobs.own_mut(id) {
                job.suspect_lost(now);
            }
            self.refresh(now, id);
        }
    }

    /// Workers of these queues are lost, and with them the messages in their own queues. With `all`
    /// also the messages that they had fetched from the queue that all workers share: RabbitMQ
    /// gives those of a process that is gone to other workers at once, but not those of a silent
    /// one.
    pub(super) fn suspect_queues(&mut self, now: Timestamp, queues: &BTreeSet<String>, all: bool) {
        let is_suspect = |id: &JobId| {
            self.jobs.own(*id).is_some_and(|job| {
                let queued = job.summary.queued_chunks;
                // A retry goes to the queue of a node where the subtask has not failed yet. Where
                // much else waits that can run, it is found in time when it is overdue.
                let has_retries = job.has_failures() && queued <= FEW;
                queued > 0 && (all || !job.is_shared() || has_retries)
            })
        };
        let pools = self.pools.iter().filter(|(key, _)| queues.contains(&key.queue));
        let jobs = pools.flat_map(|(_, pool)| pool.jobs()).copied();
        let suspects: Vec<JobId> = jobs.filter(is_suspect).collect();
        self.suspect_lost(now, suspects);
    }
}
