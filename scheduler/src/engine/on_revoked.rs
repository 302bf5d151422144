//! The event `Revoked`: has the chunks published again that were taken from a worker.

use longshore_protocol::{JobId, NodeId, Timestamp};

use super::Engine;

impl Engine {
    pub(super) fn on_revoked(
        &mut self,
        now: Timestamp,
        job: JobId,
        node: &NodeId,
        is_done: bool,
        is_queued_again: bool,
    ) {
        self.node_recovery.revoked(now, node, job, is_done);
        if is_queued_again {
            // The next sweep publishes them.
            self.suspect_lost(now, [job]);
        }
    }
}
