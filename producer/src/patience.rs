//! How long to wait before looking again, and how long an outage may last.

use std::time::Duration;

use longshore_ledger::Error;
use tokio::time::Instant;
use tracing::debug;

/// The first wait between two looks.
const FIRST: Duration = Duration::from_millis(20);

/// No wait between two looks is longer.
const LONGEST: Duration = Duration::from_millis(500);

/// How long the ledger may be away before a reader gives up. Long enough for a restart or a fail-over.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long a job that was accepted may be missing from a ledger that answers: a scheduler rebuilds a ledger that lost
/// everything within seconds, or once one runs.
const ABSENCE: Duration = Duration::from_secs(60);

/// Waits that double from 20 ms to 500 ms.
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST);
        now
    }
}

/// Bears with a ledger that has lost a job for a while.
#[derive(Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// The job is there.
    pub(crate) fn over(&mut self) {
        self.since = None;
    }

    /// Whether there is hope for a job that is missing.
    pub(crate) fn bear(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() < ABSENCE
    }
}

/// Bears with a ledger that is away for a while.
#[derive(Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
}

impl Outage {
    /// `Ok(None)` while the ledger is away and there is hope; its error once it was away for too long, or failed
    /// in a way that time doesn't heal.
    pub(crate) fn bear<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match answer {
            Ok(value) => {
                self.since = None;
                Ok(Some(value))
            }
            Err(error @ Error::Unavailable { .. }) => {
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() >= OUTAGE {
                    return Err(error);
                }
                debug!(%error, "the ledger is away; looking again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
