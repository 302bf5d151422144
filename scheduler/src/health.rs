//! One line in the log when something stops working, one when it works again; and waits that grow.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};

/// Whether one kind of call works.
#[derive(Debug)]
pub(crate) struct Health {
    what: &'static str,
    failing: AtomicBool,
}

impl Health {
    /// `what` says what is tried, as a noun.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, failing: AtomicBool::new(false) }
    }

    /// It worked.
    pub(crate) fn worked(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            info!(what = self.what, "works again");
        }
    }

    /// It did not.
    pub(crate) fn failed(&self, error: &dyn Display) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(what = self.what, %error, "fails; it will be tried again");
        }
    }

    /// Takes note of a result and passes it on.
    pub(crate) fn note<T, E: Display>(&self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.worked(),
            Err(error) => self.failed(error),
        }
        result
    }
}

/// Waits of 0.1 s, 0.2 s, 0.4 s and so on up to 5 s.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// Starts anew.
    pub(crate) const fn new() -> Self {
        Self(Self::FIRST)
    }

    /// Waits, the next time longer.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_five_seconds() {
        let mut backoff = Backoff::new();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let before = tokio::time::Instant::now();
            backoff.wait().await;
            waits.push(before.elapsed().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
