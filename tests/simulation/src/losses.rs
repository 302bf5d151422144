//! Checks that lost workers are found in time (S13), and that living ones are not (S18).

use longshore_ledger::{Ledger, LossEvidence};
use longshore_protocol::{JobId, NodeId};

use crate::world::World;

impl World {
    /// Checks S13. A scheduler that dies during the recovery of a worker is detected as fast as a
    /// worker, and another scheduler goes on; so the time counts from the scheduler's death. A
    /// claim that was in flight counts from its execution, which may follow the death of its
    /// worker.
    pub(crate) async fn check_lost(&self) {
        let has_scheduler =
            || self.living().iter().any(|process| process.name.starts_with("scheduler"));
        // Another deliberate bug may delay a verdict, too: one that makes many workers look silent.
        let is_judged = self.sabotage.is_none_or(|by| by.breaks() == "S13");
        if !self.only_processes_fail || !is_judged || !has_scheduler() {
            return;
        }
        for job in self.jobs.keys() {
            for holder in self.ledger.holders(*job).await.unwrap_or_default() {
                self.check_holder(*job, &holder);
            }
        }
    }

    fn check_holder(&self, job: JobId, holder: &longshore_ledger::Holder) {
        let history = self.history.lock();
        let Some(lost) = history.lost.get(&holder.node).copied() else { return };
        let since = lost.at.max(self.clock.virtual_time(holder.oldest)).max(history.scheduler_died);
        drop(history);
        let held = self.now().saturating_sub(since);
        if held > lost.within {
            let node = &holder.node;
            self.violated("S13", || {
                format!("{node} was lost {held:?} ago and still holds chunks of {job}")
            });
        }
    }

    /// Checks S18. A node whose connections are closed may be declared lost, and so may an unlisted
    /// one, which has announced no terms, and one whose last heartbeat was rolled back before a
    /// scheduler read it.
    pub(crate) fn check_living(&self, node: &NodeId, evidence: LossEvidence) {
        let process = self
            .processes
            .lock()
            .iter()
            .find(|process| process.node().as_ref() == Some(node))
            .cloned();
        let Some(process) = process.filter(|process| !process.is_dead()) else { return };
        let history = self.history.lock();
        let heard = history.heard.get(&process.name).copied().unwrap_or_default();
        let is_rolled_back = heard <= history.rolled_back_at && !history.rolled_back_at.is_zero();
        drop(history);
        let silent = self.now().saturating_sub(heard);
        let is_judged = matches!(evidence, LossEvidence::LastBeat(_)) && !is_rolled_back;
        if is_judged && silent < process.dead_after() {
            self.violated("S18", || {
                format!("{node} lives, and its last heartbeat was {silent:?} ago")
            });
        }
    }
}
