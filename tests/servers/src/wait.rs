//! Waits for a condition with a deadline, whose failure says what was waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The interval between two checks of a condition.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// After `deadline`, with a message that says what it waited for.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, condition), "waited {deadline:?} in vain until {what}");
}

/// Whether `condition` holds within `deadline`. It is checked at least once.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() >= deadline {
            return false;
        }
        sleep(CHECK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut checks = 0;
        wait_until("the third check", Duration::from_secs(5), || {
            checks += 1;
            checks == 3
        });
        assert_eq!(checks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain until pigs fly")]
    fn a_condition_that_stays_false_says_what_was_waited_for() {
        wait_until("pigs fly", Duration::from_millis(1), || false);
    }
}
