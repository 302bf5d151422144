//! One timer for each job: when the engine looks at it again though nothing happened.

use std::collections::BTreeSet;

use longshore_protocol::{JobId, Timestamp};
use rustc_hash::FxHashMap;

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Timestamp, JobId)>,
    by_job: FxHashMap<JobId, Timestamp>,
}

impl Timers {
    /// Sets the job's timer to `at`, or clears it.
    pub(super) fn set(&mut self, id: JobId, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.by_job.insert(id, at),
            None => self.by_job.remove(&id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
        if let Some(at) = at {
            self.by_time.insert((at, id));
        }
    }

    /// Takes out a job whose time has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<JobId> {
        let (at, id) = self.by_time.first().copied()?;
        if at > now {
            return None;
        }
        self.set(id, None);
        Some(id)
    }

    /// When the first timer is due.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_time.is_empty() && self.by_job.is_empty()
    }
}
