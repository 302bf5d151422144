//! One line in the log when something stops working, one when it works again; and waits that grow.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::PublishError;
use longshore_ledger::{Cause, Error};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

/// A service that several kinds of call speak to. While it is away the first that finds out tells so, for all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service(Arc<Mutex<Away>>);

#[derive(Debug, Default)]
struct Away {
    /// The kinds of call that found the service away, each until it works again.
    calls: BTreeSet<&'static str>,
    /// Why it refuses writes, as it was told last.
    refusal: Option<Cause>,
}

impl Service {
    /// `what` says what is tried, as a noun; no two kinds of call say the same.
    pub(crate) fn health(&self, what: &'static str) -> Health {
        Health { what, service: self.clone(), state: Mutex::new(State::Works) }
    }
}

/// Whether one kind of call works.
#[derive(Debug)]
pub(crate) struct Health {
    what: &'static str,
    service: Service,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Works,
    /// The service is away.
    Away,
    /// It is there, and the call fails.
    Fails,
}

/// Why a call failed.
pub(crate) trait Trouble: Display {
    /// Whether that is because the service is away, so that no other call to it works either.
    fn is_away(&self) -> bool {
        false
    }

    /// Whether whoever speaks to the service has told of it already, in one line for all.
    fn is_told(&self) -> bool {
        false
    }

    /// Why the service, which answers, refuses to write.
    fn refusal(&self) -> Option<Cause> {
        None
    }
}

impl Trouble for Error {
    fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    fn refusal(&self) -> Option<Cause> {
        self.cause().filter(|cause| cause.refuses_writes())
    }
}

impl Trouble for PublishError {
    fn is_told(&self) -> bool {
        matches!(self, Self::Blocked(_))
    }
}
impl Trouble for longshore_broker::Error {}
impl Trouble for longshore_storage::Error {}

impl Health {
    /// Of a kind of call that is the only one to its service.
    pub(crate) fn new(what: &'static str) -> Self {
        Service::default().health(what)
    }

    /// It worked.
    pub(crate) fn worked(&self) {
        self.turns(State::Works, &"");
    }

    /// It did not.
    pub(crate) fn failed(&self, error: &impl Trouble) {
        if error.is_told() {
            return debug!(what = self.what, %error, "fails; it will be tried again");
        }
        self.refused(error);
        self.turns(if error.is_away() { State::Away } else { State::Fails }, error);
    }

    /// Takes note of a result and passes it on.
    pub(crate) fn note<T, E: Trouble>(&self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.worked(),
            Err(error) => self.failed(error),
        }
        result
    }

    /// Tells of another refusal than the one before, while the first is not over for every kind of call.
    fn refused(&self, error: &impl Trouble) {
        let Some(refusal) = error.refusal() else { return };
        let mut away = self.service.0.lock();
        let before = away.refusal.replace(refusal);
        if !away.calls.is_empty() && before != Some(refusal) {
            warn!(what = self.what, %error, "fails for another reason; it will be tried again");
        }
    }

    fn turns(&self, now: State, error: &dyn Display) {
        let what = self.what;
        let before = std::mem::replace(&mut *self.state.lock(), now);
        if before == now {
            return;
        }
        let mut away = self.service.0.lock();
        let was_away = !away.calls.is_empty();
        if now == State::Away {
            away.calls.insert(what);
        } else {
            away.calls.remove(what);
        }
        let is_away = !away.calls.is_empty();
        if !is_away {
            away.refusal = None;
        }
        match now {
            State::Away if was_away => debug!(what, %error, "fails, too"),
            State::Away | State::Fails => warn!(what, %error, "fails; it will be tried again"),
            State::Works if is_away => debug!(what, "works again; others don't yet"),
            State::Works => info!(what, "works again"),
        }
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
    use std::fmt;

    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    fn away() -> Error {
        Error::Unavailable { address: "there".into(), reason: "away".into() }
    }

    fn broken() -> Error {
        Error::Misuse { operation: "test", detail: "broken".into() }
    }

    #[test]
    fn that_a_service_is_away_is_told_once_and_what_fails_otherwise_by_each() {
        let told = Told::default();
        let _guard =
            tracing::subscriber::set_default(tracing_subscriber::registry().with(told.clone()));
        let ledger = Service::default();
        let (reads, writes) = (ledger.health("reads"), ledger.health("writes"));
        reads.worked();
        told.are(&[]);
        reads.failed(&away());
        writes.failed(&away());
        reads.failed(&away());
        told.are(&["WARN reads"]);
        reads.worked();
        told.are(&[]);
        reads.failed(&broken());
        told.are(&["WARN reads"]);
        writes.worked();
        reads.worked();
        told.are(&["INFO writes", "INFO reads"]);
        writes.failed(&away());
        told.are(&["WARN writes"]);
    }

    #[test]
    fn another_refusal_is_told_though_the_first_is_not_over() {
        let told = Told::default();
        let _guard =
            tracing::subscriber::set_default(tracing_subscriber::registry().with(told.clone()));
        let ledger = Service::default();
        let (reads, writes) = (ledger.health("reads"), ledger.health("writes"));
        let refused =
            |reason: &str| Error::Unavailable { address: "there".into(), reason: reason.into() };
        writes.failed(&refused("READONLY: a replica"));
        reads.failed(&away());
        told.are(&["WARN writes"]);
        writes.failed(&refused("READONLY: a replica"));
        reads.failed(&refused("READONLY: a replica"));
        told.are(&[]);
        reads.failed(&refused("NOREPLICAS: not enough"));
        writes.failed(&refused("NOREPLICAS: not enough"));
        told.are(&["WARN reads"]);
        reads.worked();
        writes.worked();
        told.are(&["INFO writes"]);
        writes.failed(&refused("NOREPLICAS: not enough"));
        told.are(&["WARN writes"]);
    }

    /// What was logged for operators since the last look.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Told {
        #[track_caller]
        fn are(&self, expected: &[&str]) {
            assert_eq!(std::mem::take(&mut *self.0.lock()), expected);
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            struct What(String);
            impl Visit for What {
                fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
                fn record_str(&mut self, field: &Field, value: &str) {
                    if field.name() == "what" {
                        value.clone_into(&mut self.0);
                    }
                }
            }
            let level = *event.metadata().level();
            if level <= tracing::Level::INFO {
                let mut what = What(String::new());
                event.record(&mut what);
                self.0.lock().push(format!("{level} {}", what.0));
            }
        }
    }

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
