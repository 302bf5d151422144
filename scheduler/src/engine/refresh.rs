//! Updates all that depends on the state of a job: its pool, its turn, its call, its timer.
//!
//! Also tracks the job's owner and the end of calls.

use std::mem;

use longshore_protocol::{BlockedScope, JobId, Timestamp};

use super::Engine;
use super::fair_queue::QueueStatus;
use super::jobs::{Call, Ownership};

impl Engine {
    /// Updates the job's pool, its part of the pool's load, what it owes, its status in the fair
    /// queue, its place among the calls, and its timer.
    pub(super) fn refresh(&mut self, now: Timestamp, id: JobId) {
        let ledger_now = self.clock.at(now);
        self.change_pool(now, id);
        let Some(entry) = self.jobs.get_mut(id) else { return };
        let mut wake = None;
        if let Ownership::Ours(job) = &mut entry.ownership
            && let Some(pool) = self.pools.get_mut(&job.pool)
        {
            let opening =
                if let Call::Opening(opening) = entry.call { Some(opening) } else { None };
            let load = job.load(opening, ledger_now);
            pool.load.replace(job.counted_load, load);
            job.counted_load = load;
            if opening.is_none() {
                pool.fair_queue.charge(id, job.take_debt_us(ledger_now));
            }
            let offer = job.offer(now, ledger_now, pool.capacity.slots);
            let scope = BlockedScope::Job(id);
            self.blocked.found(now, ledger_now, &job.summary.queue, scope, offer.err());
            let offered = offer.map_or(0, |offer| offer.chunks);
            let status = match entry.call {
                _ if offered == 0 => QueueStatus::Idle,
                // What lost workers held goes first.
                Call::Idle if job.holders_are_due(now) => QueueStatus::Busy,
                Call::Idle => QueueStatus::Ready,
                Call::Opening(opening) if opening.chunks >= offered => QueueStatus::Spent,
                _ => QueueStatus::Busy,
            };
            pool.fair_queue.set_status(id, status);
            wake = job.next_wake(now, ledger_now);
            self.pools.mark_changed(&job.pool);
        }
        self.timers.set(id, wake);
        self.enqueue_call(now, id);
    }

    /// Moves a job of ours if other workers than before can run what it needs. What waits where
    /// only the old ones look is published again.
    fn change_pool(&mut self, now: Timestamp, id: JobId) {
        let Some(job) = self.jobs.own_mut(id) else { return };
        if !job.is_misplaced(&self.fleet) {
            return;
        }
        if job.summary.queued_chunks > 0 {
            job.suspect_lost(now);
        }
        self.pools.leave(id, job);
        self.pools.join(id, job, &self.fleet);
    }

    /// A call about a job was answered. Returns which one.
    pub(super) fn answered(&mut self, id: JobId) -> Call {
        self.calls.answered();
        self.end_call(id)
    }

    /// No call about a job is in flight any more. Returns which one was.
    pub(super) fn end_call(&mut self, id: JobId) -> Call {
        match self.jobs.get_mut(id) {
            Some(entry) => mem::replace(&mut entry.call, Call::Idle),
            None => Call::Idle,
        }
    }

    /// The ownership of a job changed: its pool takes it in or releases it.
    pub(super) fn set_ownership(&mut self, id: JobId, ownership: Ownership) {
        let Some(entry) = self.jobs.get_mut(id) else { return };
        let before = mem::replace(&mut entry.ownership, ownership);
        if let Ownership::Ours(job) = before {
            self.pools.leave(id, &job);
        }
        match &mut entry.ownership {
            Ownership::Ours(job) => self.pools.join(id, job, &self.fleet),
            Ownership::Unseen => entry.wants_read = true,
            Ownership::Elsewhere(_) | Ownership::Over => {}
        }
    }
}
