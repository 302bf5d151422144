//! Aligns the periodic calls of one scheduler to common ticks of 50 ms.
//!
//! On a busy machine a thread that wakes up takes the processor from another one, which costs more
//! than its call.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(50);

/// However many hints come, only one of them ends a pause within this time.
const BURST: Duration = Duration::from_millis(20);

/// The ticks of one scheduler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickAligner {
    since: Instant,
}

impl TickAligner {
    /// The first tick is now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Waits for the last tick within this pause, or for the end of the pause if there is none.
    pub(crate) async fn sleep(self, pause: Duration) {
        sleep_until(self.end_of(pause)).await;
    }

    /// Waits as [`Self::sleep`] does, or for a hint.
    pub(crate) async fn sleep_or(self, pause: Duration, hint: &Notify) {
        let (soonest, latest) = (Instant::now() + BURST, self.end_of(pause));
        if timeout_at(latest, hint.notified()).await.is_ok() {
            sleep_until(soonest).await;
        }
    }

    fn end_of(self, pause: Duration) -> Instant {
        let now = self.since.elapsed();
        let end = now + pause;
        let past = Duration::from_nanos((end.as_nanos() % TICK.as_nanos()) as u64);
        let tick = end - past;
        self.since + if tick > now { tick } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_that_begin_at_different_times_end_together() {
        let ticks = TickAligner::new();
        let at = |pause| ticks.end_of(ms(pause)).duration_since(ticks.since);
        assert_eq!(at(200), ms(200));
        tokio::time::advance(ms(3)).await;
        assert_eq!((at(200), at(100)), (ms(200), ms(100)));
        assert_eq!(at(20), ms(23), "no tick is so near");
        assert_eq!(at(47), ms(50));
        tokio::time::advance(ms(47)).await;
        assert_eq!(at(120), ms(150));
        assert_eq!(at(50), ms(100), "the present tick is not the next one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_ends_a_pause_but_a_burst_of_hints_ends_only_one() {
        let (ticks, hint) = (TickAligner::new(), Notify::new());
        let slept = async |hinted: bool| {
            let begun = Instant::now();
            if hinted {
                hint.notify_one();
            }
            ticks.sleep_or(ms(100), &hint).await;
            begun.elapsed()
        };
        assert_eq!(slept(true).await, BURST);
        assert_eq!(slept(false).await, ms(80), "until the tick");
        let late = async {
            tokio::time::sleep(ms(60)).await;
            hint.notify_one();
        };
        assert_eq!(tokio::join!(slept(false), late).0, ms(60));
    }
}
