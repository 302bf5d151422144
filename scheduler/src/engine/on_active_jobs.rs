//! The events `ActiveJobs` and `JobsListed`: adds new jobs, and drops those that are gone.
//!
//! The ledger's list of active jobs was read. Only `ActiveJobs` drops jobs.

use std::collections::BTreeSet;

use longshore_protocol::{JobId, Timestamp};

use super::Engine;
use super::jobs::Ownership;

impl Engine {
    /// Adds the jobs that are new, and drops those that the list has lacked twice.
    pub(super) fn on_active_jobs(&mut self, now: Timestamp, jobs: &[JobId]) {
        self.on_jobs_listed(now, jobs);
        for id in self.jobs.missing_from(&jobs.iter().collect::<BTreeSet<_>>()) {
            self.drop_job(id);
        }
    }

    /// Adds the jobs that are new. An extra list may be older than what is known already, so that
    /// it drops none.
    pub(super) fn on_jobs_listed(&mut self, now: Timestamp, jobs: &[JobId]) {
        jobs.iter().for_each(|id| self.discover(now, *id));
    }

    /// A job exists.
    pub(super) fn discover(&mut self, now: Timestamp, id: JobId) {
        if self.jobs.add(id) {
            self.refresh(now, id);
        }
    }

    pub(super) fn drop_job(&mut self, id: JobId) {
        self.set_ownership(id, Ownership::Over);
        self.jobs.remove(id);
        self.timers.set(id, None);
    }
}
