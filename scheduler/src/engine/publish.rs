//! Publishes chunks, each to the queue that placement, isolation and failed attempts leave for it.

use longshore_broker::Queue;
use longshore_protocol::document::Placement;
use longshore_protocol::{JobId, NodeId, Timestamp};

use super::Engine;
use super::event::{Action, RoutedChunk};
use super::job::Job;

impl Engine {
    /// Publishes chunks where the job's placement wants them. Chunks of a job that went to another
    /// scheduler meanwhile are left to the sweep of that one.
    pub(super) fn publish(&mut self, now: Timestamp, id: JobId, chunks: &[RoutedChunk]) {
        let ledger_now = self.clock.at(now).unwrap_or_default();
        let Some(job) = self.jobs.own(id) else { return };
        let Some(pool) = self.pools.get_mut(&job.pool) else { return };
        let placement = job.spec.as_ref().map_or(&Placement::Shared, |spec| &spec.placement);
        let task = job.task().unwrap_or_default();
        let is_doubtful = |node: &NodeId| self.isolation.is_doubtful(task, node);
        for chunk in chunks {
            let queue = if chunk.tried.is_empty() {
                // A failure on an isolated node that is tried again uses up no attempt.
                let (queue, refunded) = (&job.pool.queue, &job.refunded_nodes);
                self.fleet.node_to_try(queue, task, ledger_now, refunded).map(Queue::Node)
            } else {
                pool.placer.place_elsewhere(now, &chunk.tried, is_doubtful, &self.fleet)
            };
            let queue = queue.or_else(|| pool.placer.place(now, placement, chunk, &self.fleet));
            let chunk = chunk.clone();
            self.actions.extend(queue.map(|queue| Action::Publish { queue, chunk }));
        }
    }

    /// The queue in which overdue messages of a job may still wait, and how many chunks of other
    /// jobs wait there. `None` where the job's chunks are not all in one queue.
    pub(super) fn shared_queue(&self, job: &Job) -> Option<(Queue, u64)> {
        let pool = self.pools.get(&job.pool).filter(|_| job.is_shared())?;
        let others = pool.load.waiting.saturating_sub(job.counted_load.waiting);
        Some((Queue::Work(job.summary.queue.clone()), others))
    }
}
