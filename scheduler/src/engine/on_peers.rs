//! The event `Peers`: takes over or releases queues when the set of living schedulers changes.
//!
//! This scheduler registered with the ledger, and read which others did.

use longshore_protocol::{SchedulerRecord, Timestamp};

use super::Engine;
use super::event::Action;
use super::holders::UnlistedHolders;
use super::jobs::Ownership;

impl Engine {
    pub(super) fn on_peers(&mut self, now: Timestamp, records: Vec<SchedulerRecord>) {
        let is_outage_over = self.ledger_writes.registered(now);
        if is_outage_over {
            self.fleet.forget_silence();
            self.unlisted = UnlistedHolders::default();
        }
        if self.peers.observe(records) {
            self.reassign_queues(now);
        }
    }

    /// The set of living schedulers changed: jobs of queues that are ours now are taken over, those
    /// of other queues are released.
    pub(super) fn reassign_queues(&mut self, now: Timestamp) {
        // Of a job that another scheduler admitted a moment ago only the ledger may know.
        self.actions.push(Action::ListJobs);
        for id in self.jobs.ids() {
            let Some(entry) = self.jobs.get(id) else { continue };
            let (queue, is_ours) = match &entry.ownership {
                Ownership::Unseen | Ownership::Over => continue,
                Ownership::Elsewhere(queue) => (queue.clone(), false),
                Ownership::Ours(job) => (job.summary.queue.clone(), true),
            };
            let is_ours_now = self.peers.owns(&queue);
            if is_ours && !is_ours_now {
                self.jobs.cede(now, id);
                self.set_ownership(id, Ownership::Elsewhere(queue));
            } else if !is_ours && is_ours_now {
                self.set_ownership(id, Ownership::Unseen);
                self.refresh(now, id);
            }
        }
    }
}
