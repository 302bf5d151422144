//! The one source of chance. The same seed gives the same throws on every machine and with every version of every crate, so
//! that a seed found today still means something next year. (SplitMix64: Steele, Lea and Flood, OOPSLA 2014.)

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds are small numbers in a row; their streams must have nothing in common.
        Self(AtomicU64::new(mix(seed.wrapping_mul(STEP))))
    }

    /// Another stream, so that a throw more in one place changes nothing in another.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// Tells in a trace how many throws there were; two runs that part show it at the next line.
    pub(crate) fn fingerprint(&self) -> u64 {
        mix(self.0.load(Ordering::Relaxed)) % 1_000
    }

    /// A number of the range, which must not be empty.
    pub(crate) fn among(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True `per_mille` times of a thousand.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.among(0..1_000) < per_mille
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// One of them; there must be one.
    pub(crate) fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.among(0..items.len() as u64) as usize]
    }
}

/// Whether a run of this seed has clear weather, one of four. It is drawn aside, so that the other
/// seeds stay what they were.
pub(crate) fn is_clear(seed: u64) -> bool {
    mix(seed ^ STEP).is_multiple_of(4)
}

/// A number that has nothing to do with `x` to the eye, and is always the same for it.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
