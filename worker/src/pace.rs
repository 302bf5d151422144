//! Whether chunks are so short that the next ones have to be fetched and claimed before a slot is
//! free.
//!
//! A slot that asks for its next chunk when it has nothing to do waits for two round trips. That is
//! nothing beside a chunk of a quarter of a second, and many times what a chunk of one no-op takes.
//! Work that is fetched ahead can't go to anybody else meanwhile, so nothing is fetched ahead until
//! many chunks in a row were short, and all is given back when one is long.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// A chunk that keeps a slot for less is short: about what the round trips take.
const SHORT: Duration = Duration::from_millis(5);

/// A chunk that keeps a slot for longer is long.
const LONG: Duration = Duration::from_millis(50);

/// What is claimed ahead of a slot takes about so long: more than a refill, far less than it may
/// wait.
const AHEAD_OF_A_SLOT: Duration = Duration::from_millis(20);

/// How many newest durations make the mean, about.
const MEMORY: u64 = 64;

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gait {
    /// A chunk is claimed when there is a slot for it.
    Walk,
    /// Chunks are fetched and claimed ahead.
    Run,
}

/// The pace of a worker, from how long its chunks keep their slots.
#[derive(Debug)]
pub(crate) struct Pace {
    /// So many short chunks in a row are believed.
    enough: u32,
    short: AtomicU32,
    /// How long a chunk keeps its slot, on the average.
    mean_us: AtomicU64,
    gait: watch::Sender<Gait>,
}

impl Pace {
    /// Believes in so many short chunks in a row, which are at least some for each slot: the first
    /// chunks of a job are short while their right size is being found.
    pub(crate) fn new(enough: u32) -> Self {
        let gait = watch::Sender::new(Gait::Walk);
        Self { enough, short: AtomicU32::new(0), mean_us: AtomicU64::new(0), gait }
    }

    pub(crate) fn gait(&self) -> Gait {
        *self.gait.borrow()
    }

    /// Waits until it goes like this.
    pub(crate) async fn until(&self, gait: Gait) {
        // The sender is ours, so it is there.
        let _ = self.gait.subscribe().wait_for(|now| *now == gait).await;
    }

    /// A chunk kept its slot for so long.
    pub(crate) fn took(&self, busy: Duration) {
        let (mean, sample) = (self.mean_us.load(Ordering::Relaxed), busy.as_micros() as u64);
        // Of two at once one may be lost, which does no harm to a mean.
        self.mean_us.store((mean * (MEMORY - 1) + sample) / MEMORY, Ordering::Relaxed);
        if busy >= LONG {
            self.slow_down();
        } else if busy < SHORT {
            let short = self.short.fetch_add(1, Ordering::Relaxed) + 1;
            if short == self.enough {
                self.gait.send_replace(Gait::Run);
            }
        }
    }

    /// How many of all `places` ahead of the slots the next chunk takes, so that what is claimed
    /// does not wait long.
    pub(crate) fn weight(&self, places: u32, slots: u32) -> u32 {
        let mean_us = self.mean_us.load(Ordering::Relaxed);
        let budget_us = AHEAD_OF_A_SLOT.as_micros() as u64 * u64::from(slots);
        let weight = (u64::from(places) * mean_us).div_ceil(budget_us);
        u32::try_from(weight).unwrap_or(u32::MAX).clamp(1, (places / slots).max(1))
    }

    /// Something waits for a slot longer than work that is short would have it wait.
    pub(crate) fn slow_down(&self) {
        self.short.store(0, Ordering::Relaxed);
        self.gait.send_if_modified(|gait| std::mem::replace(gait, Gait::Walk) == Gait::Run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gait after chunks that took so many milliseconds.
    #[track_caller]
    fn after(chunks: &[(u64, u32)], expected: Gait) {
        let pace = Pace::new(128);
        for (ms, count) in chunks {
            (0..*count).for_each(|_| pace.took(Duration::from_millis(*ms)));
        }
        assert_eq!(pace.gait(), expected, "{chunks:?}");
    }

    #[test]
    fn many_short_chunks_in_a_row_make_it_run_and_a_long_one_makes_it_walk() {
        after(&[(1, 127)], Gait::Walk);
        after(&[(1, 128)], Gait::Run);
        after(&[(1, 127), (60, 1), (1, 127)], Gait::Walk);
        after(&[(1, 128), (60, 1)], Gait::Walk);
        after(&[(1, 128), (60, 1), (1, 128)], Gait::Run);
    }

    /// How many chunks of so many microseconds are claimed ahead of the slots.
    #[track_caller]
    fn claimed_ahead(chunk_us: u64, slots: u32, expected: u32) {
        let pace = Pace::new(1);
        (0..1_000).for_each(|_| pace.took(Duration::from_micros(chunk_us)));
        assert_eq!(256 / pace.weight(256, slots), expected, "{chunk_us} us on {slots} slots");
    }

    #[test]
    fn what_is_claimed_ahead_takes_twenty_milliseconds_at_most() {
        claimed_ahead(10, 2, 256);
        claimed_ahead(150, 2, 256);
        claimed_ahead(1_600, 2, 25);
        claimed_ahead(5_000, 4, 16);
    }

    #[test]
    fn one_long_chunk_a_slot_is_claimed_ahead() {
        claimed_ahead(49_000, 2, 2);
        claimed_ahead(5_000, 500, 256);
    }

    #[test]
    fn what_is_neither_short_nor_long_changes_nothing() {
        after(&[(1, 127), (20, 5)], Gait::Walk);
        after(&[(1, 127), (20, 5), (1, 1)], Gait::Run);
        after(&[(1, 200), (20, 5)], Gait::Run);
    }
}
