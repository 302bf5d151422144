//! The event `Link`: once the broker is back, the messages of all jobs are suspected lost.

use longshore_protocol::Timestamp;

use super::Engine;

impl Engine {
    pub(super) fn on_link(&mut self, now: Timestamp, up: bool) {
        let is_back = up && !self.is_link_up;
        self.is_link_up = up;
        if is_back {
            // What was published while the connection broke may not have arrived.
            let all = self.jobs.ids();
            self.suspect_lost(now, all);
        }
    }
}
