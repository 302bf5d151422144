//! The event `Clock`: sets the ledger's time, and moves all timers if the clock has jumped.

use longshore_protocol::Timestamp;

use super::Engine;

impl Engine {
    pub(super) fn on_clock(&mut self, now: Timestamp, ledger: Timestamp) {
        if self.clock.set(now, ledger) {
            // Deadlines and retries are due at other times than was believed.
            self.jobs.ids().into_iter().for_each(|job| self.refresh(now, job));
        }
    }
}
