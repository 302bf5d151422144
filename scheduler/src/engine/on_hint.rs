//! The event `Hint`: has the job of a hint read, and after a gap in the hints all own jobs.

use std::time::Duration;

use longshore_ledger::Event as LedgerEvent;
use longshore_protocol::state::JobState;
use longshore_protocol::{Hint, JobId, Timestamp};

use super::Engine;
use super::jobs::{Call, Ownership};

/// After a gap in the hints all jobs are looked at, but not more often than this. The sweep does so
/// anyway, a little later.
const GAPS_APART: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) fn on_hint(&mut self, now: Timestamp, event: &LedgerEvent) {
        match event {
            LedgerEvent::Hint(Hint::Job { job, state }) => self.on_job_hint(now, *job, *state),
            LedgerEvent::Hint(Hint::Room { job }) => self.job_changed(now, *job),
            LedgerEvent::Hint(Hint::Node { .. } | Hint::Scheduler { .. }) => {}
            // Sent to clients alone.
            LedgerEvent::Ended(_) => {}
            // A flood of hints ends each burst with a gap; a look at all jobs after each of them
            // would be another flood.
            LedgerEvent::Gap if now.since(self.gap_at) < GAPS_APART => {}
            LedgerEvent::Gap => {
                self.gap_at = now;
                self.hints_missed(now);
            }
        }
    }

    pub(super) fn on_job_hint(&mut self, now: Timestamp, id: JobId, state: JobState) {
        if self.jobs.own_mut(id).is_some_and(|job| job.expects(state)) {
            return;
        }
        self.discover(now, id);
        let Some(entry) = self.jobs.get_mut(id) else { return };
        // While the job is being admitted, that it is queued tells nothing.
        entry.wants_read |= entry.call == Call::Admitting && !state.is_queued();
        if matches!(entry.ownership, Ownership::Over) && !state.is_terminal() {
            self.set_ownership(id, Ownership::Unseen);
        }
        if state.is_terminal() && self.jobs.is_idle(id) {
            // If the job has been reopened since, the list of active jobs brings it back.
            self.set_ownership(id, Ownership::Over);
            self.refresh(now, id);
        }
        self.job_changed(now, id);
    }

    /// A job of this scheduler changed in the ledger.
    fn job_changed(&mut self, now: Timestamp, id: JobId) {
        if let Some(job) = self.jobs.own_mut(id) {
            job.changed(now);
            self.jobs.want_read(id);
            self.refresh(now, id);
        }
    }

    /// Jobs with open chunks are read now: they are no more than fit into the windows. The others
    /// follow one by one.
    fn hints_missed(&mut self, now: Timestamp) {
        let mut before = 0;
        for id in self.jobs.ids() {
            let Some(job) = self.jobs.own_mut(id) else { continue };
            if job.is_open() {
                self.job_changed(now, id);
            } else {
                before += 1;
                job.hints_missed(now, before);
                self.refresh(now, id);
            }
        }
    }
}
