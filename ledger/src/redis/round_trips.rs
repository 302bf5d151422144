//! Measures the round trip time to Redis, which workers and schedulers report.
//!
//! A scheduler that waits for a process to reconnect has to know how far away that process is.
//! Deliberately absent: the use of the measurement (the scheduler's engine).

use std::collections::VecDeque;
use std::time::Duration;

/// The number of answers that are kept. Delays of this process and of Redis add to the time of the
/// network, so the fastest answer is the best measurement.
const LOOKED_AT: usize = 8;

/// The least number of answers for a measurement: with fewer, all of them may be late, when a
/// process starts on a busy machine.
const ENOUGH: usize = 4;

/// Round trips below this are reported as zero.
const NEAR: Duration = Duration::from_millis(8);

/// The times of the last answers, and the value that was reported.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    last: VecDeque<Duration>,
    reported: Duration,
}

impl RoundTrips {
    /// Records the time until an answer.
    pub(super) fn note(&mut self, took: Duration) {
        if self.last.len() == LOOKED_AT {
            self.last.pop_front();
        }
        self.last.push_back(took);
    }

    /// The round trip in powers of two milliseconds, zero if Redis is near. The reported value
    /// changes only when it is wrong by more than a factor of four, since all schedulers read each
    /// change.
    pub(super) fn report(&mut self) -> Duration {
        let enough = self.last.len() >= ENOUGH;
        let quickest = self.last.iter().min().copied().filter(|_| enough).unwrap_or_default();
        if quickest > self.reported || quickest < self.reported / 4 {
            self.reported = if quickest < NEAR { Duration::ZERO } else { rounded_up(quickest) };
        }
        self.reported
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
        assert_eq!(trips.report(), Duration::from_millis(expected), "after {answers:?}");
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
