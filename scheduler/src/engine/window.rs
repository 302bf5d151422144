//! Decides whether one more chunk may wait in the broker for a pool: about 250 ms of work a slot.
//!
//! The broker holds no backlog, so that a pause, a cancel, a priority or a new job acts at once. It
//! holds enough that no slot waits for the scheduler. Deliberately absent: whose chunks they are
//! (see `fair_queue`), and how long chunks take (see `chunk_size`).

use std::time::Duration;

/// The work that waits ahead of each slot. A new job waits for this and for what runs (chunks aim
/// at 250 ms), so it begins after half a second on a quiet machine and within a second on a loaded
/// one.
pub(super) const AHEAD: Duration = Duration::from_millis(250);

/// What a chunk of a job counts as of which no attempt has ended yet: it may be a long one, and
/// what is in the broker can't be taken back. The first attempt that ends says how long it is.
pub(super) const UNMEASURED: Duration = Duration::from_secs(2);

/// The most chunks that wait for each slot, unless they are short.
const CHUNKS_A_SLOT: u64 = 2;

/// If a chunk takes at most this time, two wait for each slot.
pub(super) const AHEAD_EACH: Duration = Duration::from_millis(125);

/// Short chunks are claimed before two for each slot can be replaced, so more of them wait: what
/// keeps a slot busy for this long, which is longer than a refill takes, ...
const REFILL: Duration = Duration::from_millis(20);

/// ... but no more than this many for each slot ...
const SHORT_CHUNKS_A_SLOT: u64 = 250;

/// ... and this many in all.
const SHORT_CHUNKS: u64 = 1_000;

/// Chunks of one job, or of all jobs of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Chunks that are open and not claimed.
    pub(super) waiting: u64,
    /// Chunks that workers hold.
    pub(super) running: u64,
    /// How long the chunks that wait will keep a slot busy, in µs.
    pub(super) work_us: u64,
}

impl Load {
    /// Replaces the part of one job.
    pub(super) fn replace(&mut self, old: Self, new: Self) {
        self.waiting = self.waiting - old.waiting + new.waiting;
        self.running = self.running - old.running + new.running;
        self.work_us = self.work_us - old.work_us + new.work_us;
    }
}

/// The live workers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    /// The number of worker processes.
    pub(super) workers: u64,
    /// The number of their slots.
    pub(super) slots: u64,
}

/// Whether one more chunk may be opened: `waiting ≤ min(2 × slots, idle slots + max(workers, what
/// `AHEAD` takes))`, or more if they are short. Never with no live worker.
pub(super) fn has_room(capacity: Capacity, load: Load) -> bool {
    let Capacity { workers, slots } = capacity;
    let idle = slots.saturating_sub(load.running);
    let takes_less = |each: Duration| load.work_us < each.as_micros() as u64 * slots;
    if load.waiting < CHUNKS_A_SLOT * slots {
        return load.waiting < idle + workers || takes_less(AHEAD);
    }
    load.waiting < SHORT_CHUNKS.min(SHORT_CHUNKS_A_SLOT * slots) && takes_less(REFILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the window of `workers` × 4 slots, `running` of them busy, with chunks of one
    /// duration.
    #[track_caller]
    fn filled(workers: u64, running: u64, chunk_us: u64, expected: u64) {
        let capacity = Capacity { workers, slots: 4 * workers };
        let mut load = Load { running, ..Load::default() };
        while has_room(capacity, load) {
            load.waiting += 1;
            load.work_us += chunk_us;
        }
        assert_eq!(load.waiting, expected);
    }

    #[test]
    fn nothing_waits_where_no_worker_is() {
        filled(0, 0, 1, 0);
    }

    #[test]
    fn two_chunks_of_an_eighth_of_a_second_wait_for_each_slot() {
        filled(1, 4, 10_000, 8);
        filled(3, 12, 125_000, 24);
    }

    #[test]
    fn more_short_chunks_wait_but_not_without_limit() {
        filled(1, 4, 2_000, 40);
        filled(1, 4, 1, 4 * SHORT_CHUNKS_A_SLOT);
        filled(10, 40, 1, SHORT_CHUNKS);
        filled(500, 2_000, 1, 4_000);
    }

    #[test]
    fn a_quarter_of_a_second_of_longer_chunks_waits() {
        filled(1, 4, 250_000, 4);
        filled(2, 8, 400_000, 5);
    }

    #[test]
    fn one_long_chunk_waits_for_each_worker() {
        filled(1, 4, 3_600_000_000, 1);
        filled(3, 12, 3_600_000_000, 3);
    }

    #[test]
    fn idle_slots_are_filled_at_once_even_with_long_chunks() {
        filled(1, 0, 3_600_000_000, 5);
        filled(1, 3, 3_600_000_000, 2);
        filled(1, 0, 10_000, 8);
    }
}
