//! How often a waiting client polls, and how long it tolerates an outage or a missing job.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

/// The first interval between two polls.
const SHORTEST: Duration = Duration::from_millis(20);

/// The longest interval between two polls.
const LONGEST: Duration = Duration::from_millis(500);

/// How long the ledger or a server may be unavailable before a reader gives up: long enough for a
/// restart or a failover.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long an accepted job may be missing from a ledger that answers. A scheduler rebuilds a
/// ledger that lost its data within seconds, or as soon as a scheduler runs.
const MISSING: Duration = Duration::from_secs(60);

/// Intervals that double from 20 ms to 500 ms.
pub(crate) struct PollInterval(Duration);

impl PollInterval {
    pub(crate) fn new() -> Self {
        Self(SHORTEST)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST);
        now
    }
}

/// Measures how long a job has been missing from the ledger.
#[derive(Default)]
pub(crate) struct MissingTimer {
    since: Option<Instant>,
}

impl MissingTimer {
    /// The job was found.
    pub(crate) fn reset(&mut self) {
        self.since = None;
    }

    /// The job is missing. `false` once it has been missing for too long.
    pub(crate) fn tolerates(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() < MISSING
    }
}

/// An error that may be gone when the same call is made again.
pub(crate) trait MayPass: fmt::Display {
    /// Whether waiting may help.
    fn may_pass(&self) -> bool;
}

impl MayPass for longshore_ledger::Error {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Measures how long a service has been unavailable.
#[derive(Default)]
pub(crate) struct OutageTimer {
    since: Option<Instant>,
}

impl OutageTimer {
    /// `Ok(None)` while the service is unavailable. Its error once the outage has lasted too long,
    /// or at once if waiting does not help.
    pub(crate) fn tolerate<T, E: MayPass>(&mut self, answer: Result<T, E>) -> Result<Option<T>, E> {
        match answer {
            Ok(value) => {
                self.reset();
                Ok(Some(value))
            }
            Err(error) if error.may_pass() => {
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() >= OUTAGE {
                    return Err(error);
                }
                debug!(%error, "a service is unavailable; trying again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The service has answered.
    pub(crate) fn reset(&mut self) {
        self.since = None;
    }
}
