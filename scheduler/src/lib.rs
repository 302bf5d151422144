//! The scheduler: its settings, and the start of the loops that admit, feed and recover jobs.
//!
//! ```text
//!   jobs queue ─▶ admitter ─▶ ledger
//!                    └─ refused ─▶ dead letters
//!
//!   membership ──▶ peers, clock ─────────┐
//!   watcher ──▶ nodes ───────────────────┤
//!   connection_watch ──▶ lost processes ─┼─▶ feeder: engine ─▶ executor
//!   active_jobs ──▶ list of active jobs ─┤      ▲                  │
//!   listener ──▶ hints, link ────────────┘      └───── answers ────┘
//!
//!   admitter, executor ─▶ journal ─▶ restorer ─▶ ledger, where it lost something
//! ```
//!
//! [`engine`] is pure and decides everything; the loops around it bring it events and execute its
//! actions. Each loop goes on by itself while the ledger or the broker is away, and logs once that
//! it fails and once that it works again. Any number of schedulers may run; each feeds the queues
//! that it owns by rendezvous hashing, and admits jobs of all queues.
//!
//! Deliberately absent: settings files, the loading of the ledger's functions, the export of
//! metrics.

mod active_jobs;
mod admitter;
mod auditor;
mod connection_watch;
pub mod engine;
mod executor;
mod feeder;
mod globs;
mod health;
mod job_ids;
mod journal;
mod listener;
mod membership;
pub mod metrics;
mod plans;
mod sweeper;
mod tick_aligner;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use longshore_broker::Broker;
use longshore_ledger::Ledger;
use longshore_protocol::SchedulerId;
use longshore_storage::AllowedRoots;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use globs::Expand;
pub use longshore_protocol::rendezvous::owner;

use engine::Event;
use executor::Executor;
use feeder::EngineHandle;
use globs::Globs;
use health::Service;
use journal::restorer::JournalRestorer;
use journal::{ControlLog, Journal};
use tick_aligner::TickAligner;

/// The most events that wait for the engine, which takes some hundreds of thousands a second. When
/// there are more, the senders wait; no event gets lost.
const INBOX: usize = 4_096;

/// The settings of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The id of this process: a new one at each start.
    pub id: SchedulerId,
    /// A worker that was silent for this long is dead, unless it announced another time.
    pub dead_after: Duration,
    /// Whether globs may be relative to the working directory of this process: only where the
    /// submitter is the same process.
    pub allow_relative: bool,
    /// Where the files and results of jobs may lie; everywhere unless set. Other jobs are refused.
    pub allow_roots: AllowedRoots,
    /// How long calls in flight may take at shutdown.
    pub grace: Duration,
}

impl Config {
    /// The defaults: 5 s of silence, no relative globs, files and results anywhere, 2 s to finish.
    pub fn new(id: SchedulerId) -> Self {
        Self {
            id,
            dead_after: Duration::from_secs(5),
            allow_relative: false,
            allow_roots: AllowedRoots::default(),
            grace: Duration::from_secs(2),
        }
    }
}

/// Why a scheduler stopped though it was not told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of its loops ended or panicked, which is a bug.
    #[error("the scheduler's {part} stopped: {reason}")]
    Stopped {
        /// The name of the loop.
        part: &'static str,
        /// The message of the panic, if there was one.
        reason: String,
    },
}

/// A scheduler that has not started yet.
pub struct Scheduler {
    config: Config,
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    expand: Expand,
}

impl Scheduler {
    /// A scheduler on this broker and ledger. Nothing happens before [`Self::run`].
    pub fn new(config: Config, broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        let expand = globs::real(config.allow_roots.clone());
        Self { config, broker, ledger, expand }
    }

    /// Expands globs in another way, for tests in which file systems are away.
    #[must_use]
    pub fn expanding(self, expand: Expand) -> Self {
        Self { expand, ..self }
    }

    /// Works until `shutdown`, through all failures of the broker and the ledger. Leaves both open.
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
            warn!(scheduler = %self.config.id, "stopped while calls were in flight");
        }
        // The others notice within seconds anyway; this lets them take over at once.
        let deregister = self.ledger.deregister_scheduler(&self.config.id);
        let _ = tokio::time::timeout(self.config.grace, deregister).await;
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
        let fleet_changed = Arc::new(Notify::new());
        let reconnected = Arc::new(Notify::new());
        let (nodes_sender, nodes) = watch::channel(Arc::default());
        let (peers_sender, peers) = watch::channel(Vec::new());
        let (active_sender, active) = watch::channel(Vec::new());
        let journal = Arc::new(Journal::new(self.broker.clone()));
        let control_log = Arc::new(ControlLog::default());
        let ledger = (self.ledger.clone(), Service::default());
        let executor = Executor::new(
            self.broker.clone(),
            ledger.clone(),
            journal.clone(),
            control_log.clone(),
        );
        let config =
            engine::Config { me: self.config.id.clone(), dead_after: self.config.dead_after };
        let ticks = TickAligner::new();
        let mut parts = JoinSet::new();
        let mut spawn = |part: &'static str, work: BoxFuture<'static, ()>| {
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
        spawn("membership", {
            let (id, reconnected) = (self.config.id.clone(), reconnected.clone());
            let inbox = inbox.clone();
            Box::pin(membership::run(ledger.clone(), ticks, id, reconnected, peers_sender, inbox))
        });
        spawn("watcher", {
            let (changed, active) = (fleet_changed.clone(), active.clone());
            let inbox = inbox.clone();
            Box::pin(watcher::run(ledger.clone(), ticks, changed, active, nodes_sender, inbox))
        });
        spawn("connection watch", {
            let (active, inbox) = (active.clone(), inbox.clone());
            Box::pin(connection_watch::run(ledger.clone(), ticks, nodes, peers, active, inbox))
        });
        spawn("active jobs", {
            Box::pin(active_jobs::run(ledger.clone(), ticks, active_sender, inbox.clone()))
        });
        spawn("auditor", Box::pin(auditor::run(ledger.clone(), ticks, active)));
        spawn("listener", {
            Box::pin(listener::run(ledger.clone(), fleet_changed, reconnected, inbox.clone()))
        });
        spawn("link", Box::pin(listener::follow_link(broker.clone(), inbox)));
        spawn("journal restorer", {
            let id = self.config.id.clone();
            let (broker, ledger) = (broker.clone(), ledger.clone());
            let (journal, control_log) = (journal.clone(), control_log.clone());
            Box::pin(JournalRestorer::new(id, broker, ledger, journal, control_log).run())
        });
        spawn("admitter", {
            let globs = Globs::new(self.expand.clone(), self.config.allow_relative);
            let globs = (globs, self.config.allow_roots.clone());
            let (broker, ledger) = (broker.clone(), ledger.clone());
            Box::pin(admitter::run(broker, ledger, (journal, control_log), globs, engine))
        });
        parts.spawn({
            let stop = stop.clone();
            async move {
                feeder::run(config, executor, (events, admissions), stop).await;
                "feeder"
            }
        });
        parts
    }
}
