//! The machine's monotonic clock, which all processes of a run share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment, relative to an origin that is the same for all processes of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Nanoseconds since the origin.
    pub ns: u64,
}

impl Moment {
    /// The current moment.
    ///
    /// # Panics
    /// On a machine without a monotonic clock.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
        let ns = Duration::from(time).as_nanos();
        Self { ns: u64::try_from(ns).expect("a machine that is up for less than 584 years") }
    }

    /// The time since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}
