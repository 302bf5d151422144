//! Decides: admits jobs, hands out their chunks, watches the fleet.
//!
//! ```text
//!   jobs queue ─▶ admitter ─▶ ledger          registrar ─▶ peers, clock ──┐
//!                    └─ refused ─▶ dead           └─▶ hearts ─▶ severed ──┤
//!                                              watcher ─▶ nodes ──────────┤
//!                    auditor ◀─ lister ─▶ active jobs ────────────────────┼─▶ feeder: engine ─▶ executor
//!                                              listener ─▶ hints, link ───┘      ▲                  │
//!                                                                                └───── answers ────┘
//!   admitter, executor ─▶ journal ─▶ keeper ─▶ ledger, where it lost something
//! ```
//!
//! [`engine`] is pure and decides everything; the loops around it bring it news and do as it says.
//! Each of them goes on by itself when the ledger or the broker is away, and says so in the log
//! once when it goes and once when it is back. Any number of schedulers may run; each feeds the
//! queues that fall to it by rendezvous hashing, and admits jobs for all.
//!
//! Deliberately absent: settings files, the loading of the ledger's functions, whoever collects the metrics.

mod admitter;
mod auditor;
pub mod engine;
mod executor;
mod feeder;
mod globs;
mod health;
mod hearts;
mod journal;
mod listener;
mod lister;
pub mod metrics;
mod naming;
mod plans;
mod registrar;
mod rounds;
mod sweeper;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_ledger::Ledger;
use longshore_protocol::SchedulerId;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use engine::ring::owner;
pub use globs::Expand;

use engine::Event;
use executor::Executor;
use feeder::EngineHandle;
use globs::Globs;
use health::Service;
use journal::keeper::Keeper;
use journal::{Journal, Notes};
use rounds::Rounds;

/// Events that wait for the engine, which takes in some hundreds of thousands a second. When more
/// come the senders wait; what they have to tell does not get lost.
const INBOX: usize = 4_096;

/// How a scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// This incarnation: new at every start.
    pub id: SchedulerId,
    /// A worker that was silent for so long is dead.
    pub dead_after: Duration,
    /// Whether globs may be relative to this process's directory: only where the submitter is the
    /// same process.
    pub allow_relative: bool,
    /// How long what is under way may take at shutdown.
    pub grace: Duration,
}

impl Config {
    /// The usual: 5 s of silence, no relative globs, 2 s to finish.
    pub fn new(id: SchedulerId) -> Self {
        Self {
            id,
            dead_after: Duration::from_secs(5),
            allow_relative: false,
            grace: Duration::from_secs(2),
        }
    }
}

/// Why a scheduler stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of its loops ended or panicked: a bug.
    #[error("the scheduler's {part} stopped: {reason}")]
    Stopped {
        /// Which loop.
        part: &'static str,
        /// The panic's text, if there was one.
        reason: String,
    },
}

/// A scheduler, ready to run.
pub struct Scheduler {
    config: Config,
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    expand: Expand,
}

impl Scheduler {
    /// Nothing happens before [`Self::run`].
    pub fn new(config: Config, broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        Self { config, broker, ledger, expand: globs::real() }
    }

    /// Expands globs in another way, for tests of what happens while file systems are away.
    #[must_use]
    pub fn expanding(self, expand: Expand) -> Self {
        Self { expand, ..self }
    }

    /// Works until `shutdown`, through whatever happens to the broker and the ledger. Leaves both
    /// open.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        info!(scheduler = %self.config.id, ledger = %self.ledger.describe(), "scheduler started");
        let stop = shutdown.child_token();
        let mut parts = self.start(&stop);
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = parts.join_next() => ended,
        };
        stop.cancel();
        let finish = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.grace, finish).await.is_err() {
            warn!(scheduler = %self.config.id, "stopped with calls still under way");
        }
        // Others notice within seconds anyway; this lets them take over at once.
        let withdraw = self.ledger.deregister_scheduler(&self.config.id);
        let _ = tokio::time::timeout(self.config.grace, withdraw).await;
        info!(scheduler = %self.config.id, "scheduler stopped");
        match ended {
            Some(Ok(_)) if shutdown.is_cancelled() => Ok(()),
            None => Ok(()),
            Some(Ok(part)) => Err(Error::Stopped { part, reason: "it ended".into() }),
            Some(Err(panic)) => Err(Error::Stopped { part: "loop", reason: panic.to_string() }),
        }
    }

    fn start(&self, stop: &CancellationToken) -> JoinSet<&'static str> {
        let (inbox, events) = mpsc::channel::<Event>(INBOX);
        let (engine, admissions) = EngineHandle::new(inbox.clone());
        let (fleet_changed, heart_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (nodes, listed) = watch::channel(Arc::default());
        let (peers, signed_in) = watch::channel(Vec::new());
        let (jobs, active) = watch::channel(Vec::new());
        let journal = Arc::new(Journal::new(self.broker.clone()));
        let notes = Arc::new(Notes::default());
        let ledger = (self.ledger.clone(), Service::default());
        let executor =
            Executor::new(self.broker.clone(), ledger.clone(), journal.clone(), notes.clone());
        let settings =
            engine::Config { me: self.config.id.clone(), dead_after: self.config.dead_after };
        let rounds = Rounds::new();
        let mut parts = JoinSet::new();
        let mut spawn = |part: &'static str, work: futures_util::future::BoxFuture<'static, ()>| {
            let stop = stop.clone();
            parts.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = work => {}
                }
                part
            });
        };
        let broker = &self.broker;
        spawn("registrar", {
            let (id, heart_changed) = (self.config.id.clone(), heart_changed.clone());
            let inbox = inbox.clone();
            Box::pin(registrar::run(ledger.clone(), rounds, id, heart_changed, peers, inbox))
        });
        spawn("watcher", {
            let (changed, active) = (fleet_changed.clone(), active.clone());
            let inbox = inbox.clone();
            Box::pin(watcher::run(ledger.clone(), rounds, changed, active, nodes, inbox))
        });
        spawn("hearts", {
            let (active, inbox) = (active.clone(), inbox.clone());
            Box::pin(hearts::run(ledger.clone(), rounds, listed, signed_in, active, inbox))
        });
        spawn("lister", Box::pin(lister::run(ledger.clone(), rounds, jobs, inbox.clone())));
        spawn("auditor", Box::pin(auditor::run(ledger.clone(), rounds, active)));
        spawn("listener", {
            Box::pin(listener::run(ledger.clone(), fleet_changed, heart_changed, inbox.clone()))
        });
        spawn("link", Box::pin(listener::follow_link(broker.clone(), inbox.clone())));
        spawn("keeper", {
            let id = self.config.id.clone();
            let (broker, ledger) = (broker.clone(), ledger.clone());
            let keeper = Keeper::new(id, broker, ledger, journal.clone(), notes.clone());
            Box::pin(keeper.run())
        });
        spawn("admitter", {
            let globs = Globs::new(self.expand.clone(), self.config.allow_relative);
            Box::pin(admitter::run(broker.clone(), ledger.clone(), (journal, notes), globs, engine))
        });
        parts.spawn({
            let stop = stop.clone();
            async move {
                feeder::run(settings, executor, (events, admissions), stop).await;
                "feeder"
            }
        });
        parts
    }
}
