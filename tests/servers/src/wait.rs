//! Waits on conditions, never for a length of time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks at a condition: short beside every deadline, long beside a look.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// After `deadline`, with a message that says what it waited for.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, condition), "waited {deadline:?} in vain until {what}");
}

/// Whether `condition` came to hold within `deadline`; it is looked at once at least.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() >= deadline {
            return false;
        }
        sleep(BETWEEN_LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        wait_until("the third look", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain until pigs fly")]
    fn a_condition_that_stays_false_says_what_was_waited_for() {
        wait_until("pigs fly", Duration::from_millis(1), || false);
    }
}
