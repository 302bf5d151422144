//! The event `HoldersRead`: takes a job's chunks from holders that are lost or don't know of them.
//!
//! Holders that are on no list are noted.

use longshore_ledger::Holder;
use longshore_protocol::{JobId, Timestamp};

use super::Engine;

impl Engine {
    pub(super) fn on_holders_read(&mut self, now: Timestamp, id: JobId, holders: &[Holder]) {
        self.answered(id);
        for Holder { node, .. } in holders {
            if self.node_recovery.is_lost(node) {
                self.node_recovery.add_job(node, id);
            } else if !self.fleet.is_listed(node) {
                self.unlisted.found(now, node);
            }
        }
        let reports = self.fleet.holder_reports(id, holders);
        for (node, claimed_by) in self.orphans.compare(id, &reports) {
            self.node_recovery.revoke_orphans((id, node), claimed_by, &mut self.actions);
        }
        self.refresh(now, id);
    }

    /// The job's holders are read as soon as possible.
    pub(super) fn want_holders(&mut self, now: Timestamp, id: JobId) {
        if let Some(job) = self.jobs.own_mut(id) {
            job.want_holders();
        }
        self.refresh(now, id);
    }
}
