//! The event `JobClosed`: drops a job that was failed or archived, or reads it once more.

use longshore_protocol::{JobId, Timestamp};

use super::Engine;
use super::jobs::Ownership;

impl Engine {
    pub(super) fn on_job_closed(&mut self, now: Timestamp, id: JobId) {
        self.answered(id);
        match self.jobs.get(id).map(|entry| &entry.ownership) {
            Some(Ownership::Over) => self.drop_job(id),
            Some(_) => {
                self.jobs.want_read(id);
                self.refresh(now, id);
            }
            None => {}
        }
    }
}
