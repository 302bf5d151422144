//! Logs once when a kind of call starts to fail and once when it works again; also has a backoff.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::PublishError;
use longshore_ledger::Error;
use longshore_protocol::ErrorKind;
use parking_lot::Mutex;
use tracing::{debug, info, warn};

/// A service (the ledger) that several kinds of call use. While it is away, only the first kind
/// that fails logs a warning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service(Arc<Mutex<Outage>>);

#[derive(Debug, Default)]
struct Outage {
    /// The kinds of call that found the service away, and have not worked since.
    calls: BTreeSet<&'static str>,
    /// Why it refuses writes, as logged last.
    refusal: Option<ErrorKind>,
}

impl Service {
    /// The health of one kind of call. `what` names the calls in the log, and only them.
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
    /// The service is there, and the call fails.
    Fails,
}

/// Why a call failed.
pub(crate) trait Failure: Display {
    /// Whether the service is away, so that no other call to it works either.
    fn is_away(&self) -> bool {
        false
    }

    /// Whether the client of the service has logged the failure already, once for all calls.
    fn is_logged(&self) -> bool {
        false
    }

    /// Why the service refuses writes, if it answers.
    fn refusal(&self) -> Option<ErrorKind> {
        None
    }
}

impl Failure for Error {
    fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    fn refusal(&self) -> Option<ErrorKind> {
        Some(self.kind()).filter(|kind| kind.refuses_writes())
    }
}

impl Failure for PublishError {
    fn is_logged(&self) -> bool {
        matches!(self, Self::Blocked(_))
    }
}
impl Failure for longshore_broker::Error {}
impl Failure for longshore_storage::Error {}

impl Health {
    /// The health of the only kind of call to a service.
    pub(crate) fn new(what: &'static str) -> Self {
        Service::default().health(what)
    }

    /// A call worked.
    pub(crate) fn worked(&self) {
        self.set(State::Works, &"");
    }

    /// A call failed.
    pub(crate) fn failed(&self, error: &impl Failure) {
        if error.is_logged() {
            return debug!(what = self.what, %error, "fails; it will be tried again");
        }
        self.log_refusal(error);
        self.set(if error.is_away() { State::Away } else { State::Fails }, error);
    }

    /// Records a result and passes it on.
    pub(crate) fn note<T, E: Failure>(&self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.worked(),
            Err(error) => self.failed(error),
        }
        result
    }

    /// Logs that writes are refused for another reason than before, while the service is away.
    fn log_refusal(&self, error: &impl Failure) {
        let Some(refusal) = error.refusal() else { return };
        let mut outage = self.service.0.lock();
        let before = outage.refusal.replace(refusal);
        if !outage.calls.is_empty() && before != Some(refusal) {
            warn!(what = self.what, %error, "fails for another reason; it will be tried again");
        }
    }

    fn set(&self, now: State, error: &dyn Display) {
        let what = self.what;
        let before = std::mem::replace(&mut *self.state.lock(), now);
        if before == now {
            return;
        }
        let mut outage = self.service.0.lock();
        let was_away = !outage.calls.is_empty();
        if now == State::Away {
            outage.calls.insert(what);
        } else {
            outage.calls.remove(what);
        }
        let is_away = !outage.calls.is_empty();
        if !is_away {
            outage.refusal = None;
        }
        match now {
            State::Away if was_away => debug!(what, %error, "fails too"),
            State::Away | State::Fails => warn!(what, %error, "fails; it will be tried again"),
            State::Works if is_away => debug!(what, "works again; other calls don't yet"),
            State::Works => info!(what, "works again"),
        }
    }
}

/// Pauses of 0.1 s, 0.2 s, 0.4 s and so on up to 5 s.
#[derive(Debug)]
pub(crate) struct Backoff(longshore_protocol::Backoff);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The first pause is next.
    pub(crate) const fn new() -> Self {
        Self(longshore_protocol::Backoff::doubling(Self::FIRST, Self::LONGEST))
    }

    /// Waits for one pause; the next one is longer.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use tracing::field::{Field, Visit};
    use tracing::subscriber::DefaultGuard;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    fn away() -> Error {
        refused(ErrorKind::Unreachable)
    }

    fn refused(kind: ErrorKind) -> Error {
        Error::Unavailable { kind, address: "there".into(), reason: "away".into() }
    }

    fn broken() -> Error {
        Error::Misuse { operation: "test", detail: "broken".into() }
    }

    /// Follows the log of this thread. A test on another thread may be registering a call site that
    /// no subscriber was interested in a moment ago; once that is over, all call sites are asked
    /// again.
    fn follow(logged: &Logged) -> DefaultGuard {
        let subscriber = tracing_subscriber::registry().with(logged.clone());
        let guard = tracing::subscriber::set_default(subscriber);
        std::thread::sleep(Duration::from_millis(10));
        tracing::callsite::rebuild_interest_cache();
        guard
    }

    #[test]
    fn an_outage_is_logged_once_and_other_failures_by_each_kind_of_call() {
        let logged = Logged::default();
        let _guard = follow(&logged);
        let ledger = Service::default();
        let (reads, writes) = (ledger.health("reads"), ledger.health("writes"));
        reads.worked();
        logged.are(&[]);
        reads.failed(&away());
        writes.failed(&away());
        reads.failed(&away());
        logged.are(&["WARN reads"]);
        reads.worked();
        logged.are(&[]);
        reads.failed(&broken());
        logged.are(&["WARN reads"]);
        writes.worked();
        reads.worked();
        logged.are(&["INFO writes", "INFO reads"]);
        writes.failed(&away());
        logged.are(&["WARN writes"]);
    }

    #[test]
    fn another_refusal_is_logged_though_the_first_is_not_over() {
        let logged = Logged::default();
        let _guard = follow(&logged);
        let ledger = Service::default();
        let (reads, writes) = (ledger.health("reads"), ledger.health("writes"));
        writes.failed(&refused(ErrorKind::ReadOnly));
        reads.failed(&away());
        logged.are(&["WARN writes"]);
        writes.failed(&refused(ErrorKind::ReadOnly));
        reads.failed(&refused(ErrorKind::ReadOnly));
        logged.are(&[]);
        reads.failed(&refused(ErrorKind::TooFewReplicas));
        writes.failed(&refused(ErrorKind::TooFewReplicas));
        logged.are(&["WARN reads"]);
        reads.worked();
        writes.worked();
        logged.are(&["INFO writes"]);
        writes.failed(&refused(ErrorKind::TooFewReplicas));
        logged.are(&["WARN writes"]);
    }

    /// What was logged for operators since the last check.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<String>>>);

    impl Logged {
        #[track_caller]
        fn are(&self, expected: &[&str]) {
            assert_eq!(std::mem::take(&mut *self.0.lock()), expected);
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Logged {
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
    async fn pauses_double_up_to_five_seconds() {
        let mut backoff = Backoff::new();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let before = tokio::time::Instant::now();
            backoff.wait().await;
            pauses.push(before.elapsed().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
