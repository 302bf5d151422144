//! Pauses between tries of one operation that double with each failure, up to a longest.

use std::time::Duration;

/// Growing pauses between tries: the first is `initial`, each one after is twice as long, none is
/// longer than `max`.
///
/// The caller waits and brings the random number, so that this type needs neither a clock nor a
/// source of randomness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that double from `initial` to `max`.
    pub const fn doubling(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The pause before the next try; the one after it is longer.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }

    /// [`Self::next_pause`], shortened at random to between a half and the whole of it, so that
    /// many clients that failed together don't come back together. `random` is in `0.0..1.0`.
    pub fn next_jittered(&mut self, random: f64) -> Duration {
        self.next_pause().mul_f64(0.5 + random / 2.0)
    }

    /// The operation succeeded: the next pause is `initial` again.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::doubling(SECOND, 5 * SECOND);
        let pauses: Vec<u64> = (0..5).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), SECOND);
    }

    #[test]
    fn jitter_takes_at_most_half_of_a_pause_away() {
        for (random, expected) in [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)] {
            let mut backoff = Backoff::doubling(SECOND, SECOND);
            assert_eq!(backoff.next_jittered(random), SECOND.mul_f64(expected), "{random}");
        }
    }

    #[test]
    fn the_longest_duration_does_not_overflow() {
        let mut backoff = Backoff::doubling(Duration::MAX, Duration::MAX);
        backoff.next_pause();
        assert_eq!(backoff.next_pause(), Duration::MAX);
    }
}
