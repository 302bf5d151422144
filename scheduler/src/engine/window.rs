//! How much waits ahead of the workers of a queue: about a quarter of a second of work, measured.
//!
//! The broker holds no backlog, so that a pause, a cancel, a priority or a newcomer acts at once.
//! It holds enough that no slot waits for the scheduler. Deliberately absent: whose chunks they are
//! (see `shares`).

use std::time::Duration;

/// What waits ahead of each slot, in time. A newcomer waits for this and for what runs (chunks aim at
/// 250 ms), so it begins after half a second on a quiet machine and within a second on a loaded one.
pub(super) const AHEAD: Duration = Duration::from_millis(250);

/// A chunk of a job of which no attempt has ended yet counts as so much: it may be a long one, and
/// what is in the broker can't be taken back. The first attempt that ends tells.
pub(super) const UNMEASURED: Duration = Duration::from_secs(2);

/// Most chunks that wait for each slot, unless they are short.
const CHUNKS_A_SLOT: u64 = 2;

/// So long for two a slot.
pub(super) const AHEAD_EACH: Duration = Duration::from_millis(125);

/// Short chunks are claimed sooner than two a slot can be refilled, so of them more wait: what takes a slot this long, which is
/// longer than a refill, ...
const REFILL: Duration = Duration::from_millis(20);

/// ... but no more than so many for each slot ...
const SHORT_CHUNKS_A_SLOT: u64 = 250;

/// ... and so many in all.
const SHORT_CHUNKS: u64 = 1_000;

/// Chunks of one job, or of all jobs of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Opened and not claimed.
    pub(super) waiting: u64,
    /// Held by workers.
    pub(super) running: u64,
    /// How long those that wait will keep a slot busy, microseconds.
    pub(super) work_us: u64,
}

impl Load {
    /// Replaces what one job counts for.
    pub(super) fn replace(&mut self, old: Self, new: Self) {
        self.waiting = self.waiting - old.waiting + new.waiting;
        self.running = self.running - old.running + new.running;
        self.work_us = self.work_us - old.work_us + new.work_us;
    }
}

/// The live workers of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hands {
    /// Worker processes.
    pub(super) workers: u64,
    /// Their slots.
    pub(super) slots: u64,
}

/// Whether one more chunk may be opened: `waiting ≤ min(2 × slots, idle slots + max(workers, what
/// `AHEAD` takes))`, or more if they are short. Never with no live worker.
pub(super) fn has_room(hands: Hands, load: Load) -> bool {
    let Hands { workers, slots } = hands;
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
        let hands = Hands { workers, slots: 4 * workers };
        let mut load = Load { running, ..Load::default() };
        while has_room(hands, load) {
            load.waiting += 1;
            load.work_us += chunk_us;
        }
        assert_eq!(load.waiting, expected);
    }

    #[test]
    fn nothing_waits_where_nobody_works() {
        filled(0, 0, 1, 0);
    }

    #[test]
    fn chunks_of_an_eighth_of_a_second_wait_two_a_slot() {
        filled(1, 4, 10_000, 8);
        filled(3, 12, 125_000, 24);
    }

    #[test]
    fn of_short_chunks_more_wait_but_not_without_end() {
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
    fn one_long_chunk_a_worker_waits() {
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
