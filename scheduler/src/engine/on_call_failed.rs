//! The event `CallFailed`: the ledger left a call unanswered, so the engine backs off and reads.

use longshore_protocol::{JobId, Timestamp};

use super::Engine;
use super::jobs::Call;

impl Engine {
    /// Backs off, and reads the job next: the call may have been carried out.
    pub(super) fn on_call_failed(&mut self, now: Timestamp, id: JobId) {
        let call = self.end_call(id);
        if let (Call::ReadingHolders, Some(job)) = (call, self.jobs.own_mut(id)) {
            job.want_holders();
        }
        self.calls.failed(now);
        self.jobs.want_read(id);
        self.refresh(now, id);
    }
}
