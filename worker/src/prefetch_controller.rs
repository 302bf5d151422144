//! Decides when chunks are so short that they are fetched and claimed ahead of free slots.
//!
//! A slot that asks for its next chunk only when it is free waits for two round trips. That is
//! little beside a chunk of a quarter of a second, and many times the duration of a chunk of one
//! no-op. Chunks that are fetched ahead can't go to another worker meanwhile. So nothing is fetched
//! ahead before many chunks in a row were short, and one long chunk ends it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// A chunk that occupies its slot for less than this is short: about what the round trips take.
const SHORT: Duration = Duration::from_millis(5);

/// A chunk that occupies its slot for longer than this is long.
const LONG: Duration = Duration::from_millis(50);

/// The duration of the chunks that are claimed ahead of one slot, in sum: more than a refill takes,
/// and far less than a chunk may wait.
const AHEAD_OF_A_SLOT: Duration = Duration::from_millis(20);

/// The mean duration is that of about this many newest chunks.
const MEAN_OF: u64 = 64;

/// When the worker claims its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefetchMode {
    /// A chunk is claimed when there is a free slot for it.
    OnDemand,
    /// Chunks are fetched and claimed before there are free slots for them.
    Ahead,
}

/// Switches the prefetch mode of a worker by how long its chunks occupy their slots.
#[derive(Debug)]
pub(crate) struct PrefetchController {
    /// This many short chunks in a row switch to [`PrefetchMode::Ahead`].
    ahead_after: u32,
    /// How many chunks in a row were not long, counting the short ones.
    short: AtomicU32,
    /// How long a chunk occupies its slot on average, microseconds.
    mean_us: AtomicU64,
    mode: watch::Sender<PrefetchMode>,
}

impl PrefetchController {
    /// `ahead_after` should be several chunks for each slot: the first chunks of a job are short
    /// while the scheduler looks for their size.
    pub(crate) fn new(ahead_after: u32) -> Self {
        let mode = watch::Sender::new(PrefetchMode::OnDemand);
        Self { ahead_after, short: AtomicU32::new(0), mean_us: AtomicU64::new(0), mode }
    }

    pub(crate) fn mode(&self) -> PrefetchMode {
        *self.mode.borrow()
    }

    /// Waits until the worker is in this mode.
    pub(crate) async fn until(&self, mode: PrefetchMode) {
        // The sender is a field of `self`, so the channel is open.
        let _ = self.mode.subscribe().wait_for(|now| *now == mode).await;
    }

    /// Records how long a chunk occupied its slot.
    pub(crate) fn record(&self, busy: Duration) {
        let (mean, sample) = (self.mean_us.load(Ordering::Relaxed), busy.as_micros() as u64);
        // One of two simultaneous samples may be lost, which does no harm to a mean.
        self.mean_us.store((mean * (MEAN_OF - 1) + sample) / MEAN_OF, Ordering::Relaxed);
        if busy >= LONG {
            self.stop_ahead();
        } else if busy < SHORT {
            let short = self.short.fetch_add(1, Ordering::Relaxed) + 1;
            if short == self.ahead_after {
                self.mode.send_replace(PrefetchMode::Ahead);
            }
        }
    }

    /// How many of the `places` for chunks ahead of the slots the next chunk takes, so that claimed
    /// chunks don't wait long.
    pub(crate) fn weight(&self, places: u32, slots: u32) -> u32 {
        let mean_us = self.mean_us.load(Ordering::Relaxed);
        let budget_us = AHEAD_OF_A_SLOT.as_micros() as u64 * u64::from(slots);
        let weight = (u64::from(places) * mean_us).div_ceil(budget_us);
        u32::try_from(weight).unwrap_or(u32::MAX).clamp(1, (places / slots).max(1))
    }

    /// Switches to [`PrefetchMode::OnDemand`]: a chunk was long, or waited too long for a slot.
    pub(crate) fn stop_ahead(&self) {
        self.short.store(0, Ordering::Relaxed);
        self.mode.send_if_modified(|mode| {
            std::mem::replace(mode, PrefetchMode::OnDemand) == PrefetchMode::Ahead
        });
    }
}

#[cfg(test)]
mod tests {
    use super::PrefetchMode::{Ahead, OnDemand};
    use super::*;

    /// Checks the mode after chunks given as (milliseconds, count).
    #[track_caller]
    fn after(chunks: &[(u64, u32)], expected: PrefetchMode) {
        let controller = PrefetchController::new(128);
        for (ms, count) in chunks {
            (0..*count).for_each(|_| controller.record(Duration::from_millis(*ms)));
        }
        assert_eq!(controller.mode(), expected, "{chunks:?}");
    }

    #[test]
    fn many_short_chunks_in_a_row_start_prefetching_and_a_long_one_stops_it() {
        after(&[(1, 127)], OnDemand);
        after(&[(1, 128)], Ahead);
        after(&[(1, 127), (60, 1), (1, 127)], OnDemand);
        after(&[(1, 128), (60, 1)], OnDemand);
        after(&[(1, 128), (60, 1), (1, 128)], Ahead);
    }

    /// Checks how many chunks of this duration are claimed ahead of the slots.
    #[track_caller]
    fn claimed_ahead(chunk_us: u64, slots: u32, expected: u32) {
        let controller = PrefetchController::new(1);
        (0..1_000).for_each(|_| controller.record(Duration::from_micros(chunk_us)));
        assert_eq!(256 / controller.weight(256, slots), expected, "{chunk_us} us on {slots} slots");
    }

    #[test]
    fn the_chunks_claimed_ahead_take_at_most_twenty_milliseconds() {
        claimed_ahead(10, 2, 256);
        claimed_ahead(150, 2, 256);
        claimed_ahead(1_600, 2, 25);
        claimed_ahead(5_000, 4, 16);
    }

    #[test]
    fn at_least_one_chunk_a_slot_is_claimed_ahead() {
        claimed_ahead(49_000, 2, 2);
        claimed_ahead(5_000, 500, 256);
    }

    #[test]
    fn chunks_that_are_neither_short_nor_long_change_nothing() {
        after(&[(1, 127), (20, 5)], OnDemand);
        after(&[(1, 127), (20, 5), (1, 1)], Ahead);
        after(&[(1, 200), (20, 5)], Ahead);
    }
}
