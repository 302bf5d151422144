//! The only source of random numbers: the same seed gives the same numbers everywhere.
//!
//! A seed gives the same numbers on every machine and with every version of every crate, so a seed
//! that fails today repeats the failure next year. (SplitMix64: Steele, Lea and Flood, OOPSLA
//! 2014.)

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers.
#[derive(Debug)]
pub(crate) struct Rng(AtomicU64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds are small consecutive numbers; their streams must be independent.
        Self(AtomicU64::new(mix(seed.wrapping_mul(STEP))))
    }

    /// An independent stream, so that one more draw in one place changes nothing in another.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// Shows in a trace how many draws there were: two traces that diverge differ at the next line.
    pub(crate) fn fingerprint(&self) -> u64 {
        mix(self.0.load(Ordering::Relaxed)) % 1_000
    }

    /// A number in the range, which must not be empty.
    pub(crate) fn among(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True with a probability of `per_mille` / 1000.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.among(0..1_000) < per_mille
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// A random item. The slice must not be empty.
    pub(crate) fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.among(0..items.len() as u64) as usize]
    }
}

/// Whether only single processes fail in the run of this seed, which holds for one seed in four.
/// The draw takes nothing from the run's stream, so that the other seeds repeat the same runs as
/// before.
pub(crate) fn only_processes_fail(seed: u64) -> bool {
    mix(seed ^ STEP).is_multiple_of(4)
}

/// A deterministic hash of `x`.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
