//! The jobs that wait for a call to the ledger, and how many calls may be in flight at once.
//!
//! The backoff while the ledger does not answer is here, too.
//!
//! Deliberately absent: which call a job needs (see `next_call`).

use std::collections::VecDeque;
use std::time::Duration;

use longshore_protocol::{Backoff, JobId, Timestamp};
use rustc_hash::FxHashSet;

/// The most calls in flight: what one connection pool serves without delay, and enough for 10,000
/// jobs.
const MAX_IN_FLIGHT: usize = 128;

/// The pauses after the ledger left a call unanswered.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(2));

/// Jobs that wait for a call, in order, and the calls in flight.
#[derive(Debug, Default)]
pub(super) struct Calls {
    queue: VecDeque<JobId>,
    /// The jobs in `queue`.
    queued: FxHashSet<JobId>,
    in_flight: usize,
    backoff: Option<LedgerBackoff>,
}

/// The ledger does not answer.
#[derive(Clone, Copy, Debug)]
struct LedgerBackoff {
    /// No call is made before this time, and one at a time after it.
    until: Timestamp,
    pauses: Backoff,
}

impl Calls {
    /// Whether the ledger left the last call unanswered.
    pub(super) fn is_backing_off(&self) -> bool {
        self.backoff.is_some()
    }

    /// Whether the job waits for a call.
    pub(super) fn is_queued(&self, id: JobId) -> bool {
        self.queued.contains(&id)
    }

    /// A job waits for a call.
    pub(super) fn enqueue(&mut self, id: JobId) {
        if self.queued.insert(id) {
            self.queue.push_back(id);
        }
    }

    /// The job whose call may be made now.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<JobId> {
        let limit = match self.backoff {
            Some(backoff) if now < backoff.until => 0,
            Some(_) => 1,
            None => MAX_IN_FLIGHT,
        };
        if self.in_flight >= limit {
            return None;
        }
        let next = self.queue.pop_front();
        match next {
            Some(id) => drop(self.queued.remove(&id)),
            // No call is left that could find out whether the ledger answers again.
            None if self.in_flight == 0 => self.backoff = None,
            None => {}
        }
        next
    }

    /// A call was made.
    pub(super) fn started(&mut self) {
        self.in_flight += 1;
    }

    /// A call was answered.
    pub(super) fn answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.backoff = None;
    }

    /// A call was left unanswered.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let mut pauses = match self.backoff {
            // The call was already in flight when the backoff began.
            Some(backoff) if now < backoff.until => return,
            Some(backoff) => backoff.pauses,
            None => BACKOFF,
        };
        self.backoff = Some(LedgerBackoff { until: now.plus(pauses.next_pause()), pauses });
    }

    /// When the next call may be made, if a backoff delays it.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.backoff.filter(|_| self.in_flight == 0).map(|backoff| backoff.until)
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}
