//! How long the network takes from a question to Redis to its answer here.
//!
//! Whoever waits for a process to come back from a connection that was cut has to know how far away
//! that process is. Deliberately absent: what is made of it (the scheduler's engine).

use std::collections::VecDeque;
use std::time::Duration;

/// So many answers are looked at: delays of this process and of Redis come on top of what the
/// network takes, so that the quickest of them tells most.
const LOOKED_AT: usize = 8;

/// Fewer tell nothing: all of them may have come late, where a process starts on a busy machine.
const ENOUGH: usize = 4;

/// What is below this is told as nothing: all that is near is alike.
const NEAR: Duration = Duration::from_millis(8);

/// The last answers, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    last: VecDeque<Duration>,
    told: Duration,
}

impl RoundTrips {
    /// An answer came after this time.
    pub(super) fn note(&mut self, took: Duration) {
        if self.last.len() == LOOKED_AT {
            self.last.pop_front();
        }
        self.last.push_back(took);
    }

    /// The round trip in powers of two milliseconds, zero if Redis is near. What is told changes
    /// only when it is wrong by more than a factor of four: each change is news for all schedulers.
    pub(super) fn told(&mut self) -> Duration {
        let enough = self.last.len() >= ENOUGH;
        let quickest = self.last.iter().min().copied().filter(|_| enough).unwrap_or_default();
        if quickest > self.told || quickest < self.told / 4 {
            self.told = if quickest < NEAR { Duration::ZERO } else { rounded_up(quickest) };
        }
        self.told
    }
}

fn rounded_up(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(millis.checked_next_power_of_two().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tells(trips: &mut RoundTrips, answers: &[u64], expected: u64) {
        for &ms in answers {
            trips.note(Duration::from_millis(ms));
        }
        assert_eq!(trips.told(), Duration::from_millis(expected), "after {answers:?}");
    }

    #[test]
    fn the_quickest_answer_tells_and_small_changes_do_not_count() {
        let mut trips = RoundTrips::default();
        tells(&mut trips, &[], 0);
        tells(&mut trips, &[20, 900, 30], 0);
        tells(&mut trips, &[7], 0);
        tells(&mut trips, &[160; 8], 256);
        tells(&mut trips, &[70; 8], 256);
        tells(&mut trips, &[60; 8], 64);
        tells(&mut trips, &[65; 8], 128);
        tells(&mut trips, &[1], 0);
    }
}
