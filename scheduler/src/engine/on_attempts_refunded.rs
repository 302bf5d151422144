//! The event `AttemptsRefunded`: notes the nodes whose failures use up no attempts of a job.

use longshore_protocol::{JobId, NodeId, Timestamp};

use super::Engine;

impl Engine {
    pub(super) fn on_attempts_refunded(&mut self, now: Timestamp, id: JobId, nodes: Vec<NodeId>) {
        self.answered(id);
        if let Some(job) = self.jobs.own_mut(id) {
            job.refunded_nodes = nodes;
            self.jobs.want_read(id);
        }
        self.refresh(now, id);
    }
}
