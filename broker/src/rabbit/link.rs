//! Keeps one connection open: connects, watches, and after any error closes and connects again.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::Config;
use super::address::Address;
use super::failure::Failure;
use super::session::Session;

/// The first pause after a failure.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. It bounds how late a broker that is back is noticed. Work has to go on within
/// three seconds, and connecting, declaring and consuming need the rest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After a session of at least this length, the next failure starts from the shortest pause again.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// The state of the connection.
#[derive(Clone)]
enum State {
    Down { failure: Option<Failure> },
    Up(Arc<Session>),
}

/// A connection that a task keeps open.
pub(crate) struct Supervised {
    state: watch::Receiver<State>,
}

/// Follows the state of a connection.
#[derive(Clone)]
pub(crate) struct Follower {
    state: watch::Receiver<State>,
}

impl Supervised {
    pub(crate) fn start(
        role: &'static str,
        address: Address,
        config: &Config,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (sender, state) = watch::channel(State::Down { failure: None });
        let supervisor = Supervisor { role, address, config: config.clone(), state: sender };
        tasks.spawn(supervisor.run(stop));
        Self { state }
    }

    pub(crate) fn follow(&self) -> Follower {
        Follower { state: self.state.clone() }
    }

    /// The failure that the connection is down for; `None` while it is up, or was never tried.
    pub(crate) fn last_failure(&self) -> Option<Failure> {
        match &*self.state.borrow() {
            State::Down { failure } => failure.clone(),
            State::Up(_) => None,
        }
    }

    /// RabbitMQ's reason for blocking the connection; `None` while it accepts messages.
    pub(crate) fn blocked(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(session) => session.blocked().borrow().clone(),
            State::Down { .. } => None,
        }
    }
}

impl Follower {
    pub(crate) fn is_up(&mut self) -> bool {
        matches!(&*self.state.borrow_and_update(), State::Up(_))
    }

    /// Waits for the next change; `false` once there will be none any more.
    pub(crate) async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }

    /// Waits for an open session; `None` once there will be none any more.
    pub(crate) async fn up(&mut self) -> Option<Arc<Session>> {
        loop {
            let found = match &*self.state.borrow_and_update() {
                State::Up(session) if !session.is_over() => Some(session.clone()),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
            self.state.changed().await.ok()?;
        }
    }
}

struct Supervisor {
    role: &'static str,
    address: Address,
    config: Config,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(self, stop: CancellationToken) {
        let mut backoff = backoff();
        while !stop.is_cancelled() {
            let begun = Instant::now();
            self.one_session(&stop).await;
            if begun.elapsed() >= GOOD_SESSION {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next_jittered(rand::random())) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn one_session(&self, stop: &CancellationToken) {
        let (role, address) = (self.role, &self.address);
        let opened = tokio::select! {
            opened = Box::pin(Session::open(address, &self.config, role)) => opened,
            () = stop.cancelled() => return,
        };
        let session = match opened {
            Ok(session) => session,
            Err(failure) => return self.down(failure, false),
        };
        info!(role, %address, "connected to RabbitMQ");
        self.state.send_replace(State::Up(session.clone()));
        tokio::select! {
            failure = session.watch(role) => {
                session.abort();
                self.down(failure, true);
            }
            () = stop.cancelled() => {
                session.close().await;
                let failure = Some(Failure::closed("closed by us"));
                self.state.send_replace(State::Down { failure });
            }
        }
    }

    /// Logs each change once; the same failure again only at debug level.
    fn down(&self, failure: Failure, was_up: bool) {
        let (role, address) = (self.role, &self.address);
        let reason = address.explain(&failure);
        let is_known =
            matches!(&*self.state.borrow(), State::Down { failure: Some(f) } if *f == failure);
        if was_up {
            warn!(role, %address, reason, "connection to RabbitMQ lost; reconnecting");
        } else if !is_known {
            warn!(role, %address, reason, "can't connect to RabbitMQ; trying again");
        } else {
            debug!(role, %address, reason, "still can't connect to RabbitMQ");
        }
        self.state.send_replace(State::Down { failure: Some(failure) });
    }
}

/// The pauses between tries to connect or to consume.
pub(crate) const fn backoff() -> Backoff {
    Backoff::doubling(SHORTEST_PAUSE, LONGEST_PAUSE)
}
