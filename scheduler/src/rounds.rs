//! What is asked again and again is asked at the same moments: on a machine that is busy, a thread that wakes up takes the processor
//! from somebody, which costs more than its question.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Between two moments.
const APART: Duration = Duration::from_millis(50);

/// However many hints come, one is heeded in so long.
const BURST: Duration = Duration::from_millis(20);

/// The moments of one scheduler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    since: Instant,
}

impl Rounds {
    /// They begin now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Waits for the last moment within this pause, or for its end if there is none.
    pub(crate) async fn rest(self, pause: Duration) {
        sleep_until(self.within(pause)).await;
    }

    /// As [`Self::rest`], but ends with a hint.
    pub(crate) async fn rest_or(self, pause: Duration, hint: &Notify) {
        let (soonest, latest) = (Instant::now() + BURST, self.within(pause));
        if timeout_at(latest, hint.notified()).await.is_ok() {
            sleep_until(soonest).await;
        }
    }

    fn within(self, pause: Duration) -> Instant {
        let now = self.since.elapsed();
        let end = now + pause;
        let past = Duration::from_nanos((end.as_nanos() % APART.as_nanos()) as u64);
        let moment = end - past;
        self.since + if moment > now { moment } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_begin_at_different_times_come_together() {
        let rounds = Rounds::new();
        let at = |pause| rounds.within(ms(pause)).duration_since(rounds.since);
        assert_eq!(at(200), ms(200));
        tokio::time::advance(ms(3)).await;
        assert_eq!((at(200), at(100)), (ms(200), ms(100)));
        assert_eq!(at(20), ms(23), "no moment is so near");
        assert_eq!(at(47), ms(50));
        tokio::time::advance(ms(47)).await;
        assert_eq!(at(120), ms(150));
        assert_eq!(at(50), ms(100), "the present moment is not the next one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_ends_a_rest_but_of_a_burst_one_is_heeded() {
        let (rounds, hint) = (Rounds::new(), Notify::new());
        let rests = async |hinted: bool| {
            let begun = Instant::now();
            if hinted {
                hint.notify_one();
            }
            rounds.rest_or(ms(100), &hint).await;
            begun.elapsed()
        };
        assert_eq!(rests(true).await, BURST);
        assert_eq!(rests(false).await, ms(80), "until the moment");
        let late = async {
            tokio::time::sleep(ms(60)).await;
            hint.notify_one();
        };
        assert_eq!(tokio::join!(rests(false), late).0, ms(60));
    }
}
