//! The machine's monotonic clock: the one clock that all processes of a run share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment, told from the same unknown beginning in every process of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Nanoseconds since that beginning.
    pub ns: u64,
}

impl Moment {
    /// Now.
    ///
    /// # Panics
    /// On a machine without a monotonic clock.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
        let ns = Duration::from(time).as_nanos();
        Self { ns: u64::try_from(ns).expect("a machine that is up for less than 584 years") }
    }

    /// How long after `earlier` this is; nothing if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}
