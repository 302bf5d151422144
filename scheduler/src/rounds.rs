//! What is asked again and again is asked at the same moments: on a machine that is busy, a thread that wakes up takes the processor
//! from somebody, which costs more than its question.

use std::time::Duration;

use tokio::time::Instant;

/// Between two moments.
const APART: Duration = Duration::from_millis(50);

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

    /// The last moment within this pause; its end, if there is none.
    pub(crate) fn within(self, pause: Duration) -> Instant {
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

    #[tokio::test(start_paused = true)]
    async fn those_who_begin_at_different_times_come_together() {
        let ms = Duration::from_millis;
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
}
