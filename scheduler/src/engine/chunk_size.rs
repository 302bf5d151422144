//! Decides how many subtasks go into one chunk, and measures how long a subtask of a job takes.
//!
//! A job's `chunk` field may fix the size, but not that of chunks of the reduce.
//!
//! Deliberately absent: how many chunks are open at a time (see `window`) and whose they are (see
//! `fair_queue`).

use std::time::Duration;

use longshore_protocol::document::Chunk;

/// The time that a chunk of automatic size is meant to take: long enough that the four round trips
/// of a chunk cost little, short enough that a lost node repeats little and that a pause or a new
/// job waits for little.
pub(super) const AIM: Duration = Duration::from_millis(250);

/// The largest automatic chunk. The ledger marks 10,000 contiguous subtasks in some tens of
/// microseconds; beyond that the cost of a message is no longer measurable, and what a crash
/// repeats grows.
pub(super) const LARGEST: u64 = 10_000;

/// With more slots than this, chunks aim at a longer time, in proportion, but at most at
/// [`MAX_AIM_FACTOR`] times as long: else a fleet of a thousand slots would ask for four thousand
/// chunks a second. A new job does not wait longer for it, since the more slots there are, the
/// sooner one of them is free.
const SLOTS_OF_AIM: u64 = 500;
const MAX_AIM_FACTOR: u64 = 4;

/// A chunk may be at most this many times as large as the measured ones: the first subtasks of a
/// job are often not like the rest.
const GROWTH: u64 = 8;

/// The weight of a new measurement against the earlier ones.
const NEWEST: f64 = 0.3;

/// Measures how long a subtask of one job takes, from the differences between the ledger's
/// counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    busy: Duration,
    attempts: u64,
    mean_us: Option<f64>,
}

impl Meter {
    /// Takes in the job's counters; returns whether attempts have ended since the last time.
    pub(super) fn observe(&mut self, busy: Duration, attempts: u64) -> bool {
        let ended = attempts.saturating_sub(self.attempts);
        let took = busy.saturating_sub(self.busy);
        (self.busy, self.attempts) = (busy, attempts);
        if ended == 0 {
            return false;
        }
        // Never zero: work that costs nothing would give its job an infinite share.
        let sample = (took.as_secs_f64() * 1e6 / ended as f64).max(1.0);
        self.mean_us = Some(match self.mean_us {
            Some(mean) => mean + NEWEST * (sample - mean),
            None => sample,
        });
        true
    }

    /// The mean time of an attempt, in µs; `None` before the first one has ended.
    pub(super) fn mean_us(&self) -> Option<f64> {
        self.mean_us
    }

    /// Another kind of work begins (the reduce): what was measured says nothing about it.
    pub(super) fn forget(&mut self) {
        self.mean_us = None;
    }
}

/// The size of a job's next chunks.
#[derive(Clone, Debug)]
pub(super) struct Sizer {
    learned: u64,
}

impl Sizer {
    /// Starts with single subtasks.
    pub(super) fn new() -> Self {
        Self { learned: 1 }
    }

    /// Attempts have ended; their mean time is `mean_us`.
    pub(super) fn learn(&mut self, mean_us: f64) {
        let wish = (AIM.as_secs_f64() * 1e6 / mean_us) as u64;
        self.learned = wish.clamp(1, (self.learned * GROWTH).min(LARGEST));
    }

    /// The size when `remaining` subtasks were not opened yet and `slots` run side by side.
    /// Automatic sizes shrink near the end, so that no slot gets a long last chunk while others are
    /// idle.
    pub(super) fn size(&self, chunk: Chunk, remaining: u64, slots: u64) -> u64 {
        match chunk {
            Chunk::Fixed(size) => size,
            Chunk::Auto => {
                let wish = (self.learned * aim_factor(slots)).min(LARGEST);
                wish.min(remaining / (4 * slots.max(1))).max(1)
            }
        }
    }

    /// How long a chunk usually takes whose subtasks take `mean_us` each: the time that the size
    /// aims at, or that of a single longer subtask.
    pub(super) fn usual(chunk: Chunk, mean_us: f64, slots: u64) -> Duration {
        let us = match chunk {
            Chunk::Fixed(size) => mean_us * size as f64,
            Chunk::Auto => mean_us.max((AIM * aim_factor(slots) as u32).as_secs_f64() * 1e6),
        };
        Duration::try_from_secs_f64(us / 1e6).unwrap_or(Duration::MAX)
    }

    /// The size within a level of the reduce, whatever the document says about subtasks: two chunks
    /// for each slot, since a level has to end before the next can start.
    pub(super) fn reduce_size(&self, remaining: u64, slots: u64) -> u64 {
        self.learned.min(remaining / (2 * slots.max(1))).max(1)
    }
}

/// How many times as long as usual a chunk is meant to take.
fn aim_factor(slots: u64) -> u64 {
    (slots / SLOTS_OF_AIM).clamp(1, MAX_AIM_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u64 = 1 << 40;

    #[track_caller]
    fn sizes(mean_us: f64, remaining: u64, slots: u64, expected: &[u64]) {
        let mut sizer = Sizer::new();
        let mut seen = vec![sizer.size(Chunk::Auto, remaining, slots)];
        while seen.len() < expected.len() {
            sizer.learn(mean_us);
            seen.push(sizer.size(Chunk::Auto, remaining, slots));
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn sizes_grow_eightfold_until_a_chunk_takes_a_quarter_of_a_second() {
        sizes(1_000.0, PLENTY, 8, &[1, 8, 64, 250, 250]);
        sizes(100_000.0, PLENTY, 8, &[1, 2, 2]);
        sizes(10_000_000.0, PLENTY, 8, &[1, 1]);
    }

    #[test]
    fn many_slots_get_longer_chunks() {
        sizes(100_000.0, PLENTY, 999, &[1, 2, 2]);
        sizes(100_000.0, PLENTY, 1_000, &[2, 4, 4]);
        sizes(100_000.0, PLENTY, 10_000, &[4, 8, 8]);
        sizes(1.0, PLENTY, 10_000, &[4, 32, 256, 2_048, 10_000]);
    }

    #[test]
    fn no_size_passes_ten_thousand() {
        sizes(1.0, PLENTY, 8, &[1, 8, 64, 512, 4096, 10_000, 10_000]);
    }

    #[test]
    fn sizes_shrink_towards_the_end() {
        for (remaining, size) in [(100_000, 250), (3_200, 100), (320, 10), (33, 1), (3, 1)] {
            sizes(1_000.0, remaining, 8, &[size.min(1), size.min(8), size.min(64), size]);
        }
    }

    #[test]
    fn sizes_shrink_at_once_when_subtasks_turn_out_long() {
        let mut sizer = Sizer::new();
        for mean in [10.0, 10.0, 10.0, 50_000.0] {
            sizer.learn(mean);
        }
        assert_eq!(sizer.size(Chunk::Auto, PLENTY, 8), 5);
    }

    #[test]
    fn a_fixed_size_stays_but_not_in_the_reduce() {
        let sizer = Sizer::new();
        assert_eq!(sizer.size(Chunk::Fixed(500), 10, 8), 500);
        assert_eq!(sizer.reduce_size(1_000, 8), 1);
    }

    #[test]
    fn the_meter_follows_the_newest_measurements() {
        let mut meter = Meter::default();
        assert!(!meter.observe(Duration::ZERO, 0));
        assert_eq!(meter.mean_us(), None);
        assert!(meter.observe(Duration::from_millis(10), 10));
        assert_eq!(meter.mean_us(), Some(1_000.0));
        assert!(!meter.observe(Duration::from_millis(10), 10));
        for round in 1..30 {
            meter.observe(Duration::from_millis(10 + round * 100), 10 + round * 10);
        }
        assert!((meter.mean_us().unwrap() - 10_000.0).abs() < 10.0);
    }
}
