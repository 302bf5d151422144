//! How long a failed subtask waits for its next attempt, by backoff, factor and jitter.

use std::time::Duration;

use longshore_protocol::document::Retry;
use proptest::prelude::*;

fn retry(backoff_ms: u64, factor: f64, max_backoff_ms: u64, jitter: f64) -> Retry {
    Retry {
        attempts: 1000,
        backoff: Duration::from_millis(backoff_ms),
        factor,
        max_backoff: Duration::from_millis(max_backoff_ms),
        jitter,
    }
}

#[track_caller]
fn delays(retry: &Retry, random: f64, expected_ms: &[u64]) {
    let delays = (1..).map_while(|attempt| retry.delay_after(attempt, random));
    let expected = expected_ms.iter().map(|ms| Duration::from_millis(*ms));
    assert_eq!(delays.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn each_wait_is_longer_by_the_factor_up_to_the_longest() {
    let retry = Retry { attempts: 6, ..retry(1000, 2.0, 5000, 0.0) };
    delays(&retry, 0.5, &[1000, 2000, 4000, 5000, 5000]);
}

#[test]
fn one_attempt_has_no_second() {
    let retry = Retry { attempts: 1, ..Retry::default() };
    delays(&retry, 0.5, &[]);
}

#[test]
fn jitter_lengthens_and_shortens_by_its_share() {
    let retry = Retry { attempts: 2, ..retry(1000, 1.0, 1000, 0.25) };
    delays(&retry, 0.0, &[750]);
    delays(&retry, 0.5, &[1000]);
    delays(&retry, 1.0, &[1250]);
}

#[test]
fn no_backoff_means_no_wait_however_often() {
    let retry = retry(0, 1000.0, 5000, 1.0);
    for tries in [1, 2, 1000, u32::MAX] {
        assert_eq!(retry.backoff_for(tries, 1.0), Duration::ZERO);
    }
}

proptest! {
    #[test]
    fn no_valid_retry_waits_longer_than_it_may(
        backoff in 0..=3_155_760_000_000_u64,
        factor in 1.0..=1000.0,
        more in 0..=3_155_760_000_000_u64,
        jitter in 0.0..=1.0,
        tries: u32,
        random in 0.0..=1.0,
    ) {
        let retry = retry(backoff, factor, backoff.max(more), jitter);
        let delay = retry.backoff_for(tries, random);
        prop_assert!(delay <= retry.max_backoff.mul_f64(1.0 + jitter) + Duration::from_micros(1));
        let least = retry.backoff.mul_f64(1.0 - jitter).saturating_sub(Duration::from_micros(1));
        prop_assert!(delay >= least, "{:?} < {:?}", delay, least);
    }
}
