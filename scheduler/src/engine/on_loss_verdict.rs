//! The event `LossVerdict`: begins to take back what a worker holds that was declared lost.
//!
//! The ledger may also have refused to declare it lost.

use longshore_ledger::LostNode;
use longshore_protocol::{NodeId, Timestamp};

use super::Engine;

impl Engine {
    pub(super) fn on_loss_verdict(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        verdict: Option<&LostNode>,
    ) {
        self.node_recovery.verdict_answered(now, node, verdict.is_some());
        let Some(verdict) = verdict else { return };
        let jobs = self.jobs.likely_held_by(node, &self.fleet);
        if self.node_recovery.begin(now, verdict, jobs) {
            self.want_holders_of(now, std::slice::from_ref(node));
        }
    }
}
