//! The life of a worker: set-up, heart, consuming, draining, leaving.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Queue, Subscription};
use longshore_ledger::{DeclareLostParams, Ledger, LossCause, LossEvidence};
use longshore_protocol::{DisabledTask, LivenessTerms, NodeId, NodeInfo};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::availability::Availability;
use crate::backoff::Reach;
use crate::builder::{Builder, Setup, Teardown};
use crate::heart::{Body, Heart, clock};
use crate::holdings::{Ending, Holdings};
use crate::pace::{Gait, Pace};
use crate::passed::Passed;
use crate::pipeline::{Pipeline, TASK_DISABLED};
use crate::plans::Plans;
use crate::records::Records;
use crate::results::UnwritableLocations;
use crate::task::Handlers;
use crate::{Config, Error, Machine, Watched, shim};

/// After `grace` what still runs is stopped; that takes the wind-up of a command and a commit.
const LEAVE: Duration = Duration::from_secs(6);

/// The last chance of releases that the ledger has not answered.
const LAST_TRY: Duration = Duration::from_secs(2);

/// A worker, ready to run.
pub struct Worker {
    pub(crate) id: NodeId,
    /// Cancelled by a supervisor that was asked to stop, if there is one.
    pub(crate) drain: CancellationToken,
    pub(crate) machine: Arc<Machine>,
    pub(crate) config: Config,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) setup: Option<Setup>,
    pub(crate) teardown: Option<Teardown>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("config", &self.config)
            .field("tasks", &self.handlers.names())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts to put a worker together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The watched half of a supervised program; see [`watched`](crate::watched()).
    #[must_use]
    pub fn watched(self, Watched { node, drain }: Watched) -> Self {
        Self { id: node, drain, ..self }
    }

    /// The name under which the worker will be known.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The tasks that it can run, sorted.
    pub fn tasks(&self) -> Vec<String> {
        let disabled = self.availability.disabled();
        let mut names = self.handlers.names();
        names.retain(|name| disabled.iter().all(|it| it.task != *name));
        names
    }

    /// The tasks that it has and can't start on this machine, sorted.
    pub fn disabled(&self) -> Vec<DisabledTask> {
        self.availability.disabled()
    }

    /// Works until `shutdown` is cancelled or somebody asks the node to drain; then finishes what
    /// runs within `grace`, releases the rest and leaves. Waits for the broker and the ledger while
    /// they can't be reached.
    pub async fn run(
        self,
        broker: Arc<dyn Broker>,
        ledger: Arc<dyn Ledger>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Self { id, machine, config, handlers, availability, setup, teardown, drain: _ } = self;
        if handlers.have_programs() && !shim::is_prepared() {
            return Err(Error::Unprepared);
        }
        if let Some(setup) = setup {
            setup().await.map_err(Error::Setup)?;
        }
        for DisabledTask { task, reason, .. } in availability.disabled() {
            warn!(task, reason, "{TASK_DISABLED}");
        }
        let holdings = Arc::new(Holdings::default());
        let closing = CancellationToken::new();
        let records = Arc::new(Records::default());
        let body = Body {
            info: info(&id, &machine, &config, &handlers),
            machine: machine.clone(),
            heartbeat: config.heartbeat,
            dead_after: config.dead_after,
            holdings: holdings.clone(),
            availability: availability.clone(),
            records: records.clone(),
            closing: closing.clone(),
        };
        let heart = Heart::start(body, ledger.separate())?;
        let places_ahead = places_ahead(config.slots);
        let pipeline = Arc::new(Pipeline {
            slots: Semaphore::new(config.slots as usize),
            ahead: Semaphore::new(places_ahead as usize),
            places_ahead,
            pace: Pace::new(config.prefetch_ahead_after.saturating_mul(config.slots).max(1)),
            passed: Passed::default(),
            node: id.clone(),
            machine,
            ledger: ledger.clone(),
            reach: Reach::default(),
            handlers: handlers.clone(),
            availability: availability.clone(),
            records,
            holdings: holdings.clone(),
            plans: Plans::default(),
            locations: UnwritableLocations::default(),
            wrist: heart.wrist(),
            closing: closing.clone(),
            over: CancellationToken::new(),
            left_behind: CancellationToken::new(),
            config,
        });
        let running = TaskTracker::new();
        let outcome = tokio::select! {
            biased;
            outcome = consume(&pipeline, &broker, &running, &shutdown) => outcome,
            () = availability.probe(&handlers) => Ok(()),
        };
        drain(&pipeline, &running).await;
        handlers.teardown().await;
        if let Some(teardown) = teardown {
            teardown().await;
        }
        heart.stop().await;
        if !pipeline.left_behind.is_cancelled() {
            // Should it hold something all the same, the owners of the queues take it back.
            let params = DeclareLostParams::new(id.clone(), LossEvidence::Certain, LossCause::Left);
            let leaving = ledger.declare_lost(&params);
            if !matches!(tokio::time::timeout(LAST_TRY, leaving).await, Ok(Ok(_))) {
                warn!(node = %id, "the ledger does not know that the worker left");
            }
        }
        info!(node = %id, "the worker left");
        outcome
    }
}

/// Takes deliveries until it is told to stop, or the broker was closed.
async fn consume(
    pipeline: &Arc<Pipeline>,
    broker: &Arc<dyn Broker>,
    running: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let closing = &pipeline.closing;
    tokio::select! {
        biased;
        () = shutdown.cancelled() => { closing.cancel(); return Ok(()) }
        () = pipeline.wrist.beating() => {}
    }
    let config = &pipeline.config;
    info!(node = %pipeline.node, slots = config.slots, queues = ?config.queues, "the worker runs");
    let mut pumps = JoinSet::new();
    let queues = config.queues.iter().cloned().map(Queue::Work);
    for queue in queues.chain([Queue::Node(pipeline.node.clone())]) {
        // A message for each slot, and some on their way to those that become free meanwhile.
        let prefetch = u16::try_from(config.slots + (config.slots / 16).max(1)).unwrap_or(u16::MAX);
        let subscription = broker.subscribe(&queue, prefetch).await;
        pumps.spawn(pump(pipeline.clone(), running.clone(), subscription, false));
    }
    for queue in config.queues.iter().cloned().map(Queue::Work) {
        pumps.spawn(pump_ahead(pipeline.clone(), running.clone(), broker.clone(), queue));
    }
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        () = closing.cancelled() => Ok(()),
        // Never ends.
        () = pipeline.plans.tidy() => Ok(()),
        Some(ended) = pumps.join_next() => ended.unwrap_or(Ok(())),
    };
    // In this order, so that a node that is seen to drain begins nothing any more.
    pipeline.holdings.close(Ending::Yield);
    closing.cancel();
    // Subscriptions are dropped before the chunks that run are waited for: what was fetched goes to
    // others at once.
    while pumps.join_next().await.is_some() {}
    if shutdown.is_cancelled() { Ok(()) } else { ended }
}

/// How many very short chunks may be claimed ahead of the slots, so that calls and acknowledgements
/// of dozens go together also where slots are few.
fn places_ahead(slots: u32) -> u32 {
    (8 * slots).clamp(128, 256)
}

/// Works off what comes.
async fn pump(
    pipeline: Arc<Pipeline>,
    running: TaskTracker,
    mut subscription: Box<dyn Subscription>,
    is_ahead: bool,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            () = pipeline.closing.cancelled() => return Ok(()),
            () = pipeline.pace.until(Gait::Walk), if is_ahead => return Ok(()),
            delivery = subscription.next() => match delivery {
                // As many as the prefetch allows, so this is bounded.
                Some(delivery) => running.spawn(pipeline.clone().work_off(delivery, is_ahead)),
                None => return Err(Error::BrokerClosed),
            },
        };
    }
}

/// While chunks are short, fetches more of them than there are slots.
async fn pump_ahead(
    pipeline: Arc<Pipeline>,
    running: TaskTracker,
    broker: Arc<dyn Broker>,
    queue: Queue,
) -> Result<(), Error> {
    let prefetch = 4 * u16::try_from(pipeline.places_ahead).unwrap_or(u16::MAX);
    loop {
        tokio::select! {
            biased;
            () = pipeline.closing.cancelled() => return Ok(()),
            () = pipeline.pace.until(Gait::Run) => {}
        }
        let subscription = broker.subscribe(&queue, prefetch).await;
        pump(pipeline.clone(), running.clone(), subscription, true).await?;
    }
}

/// Lets what runs finish within the grace, stops what does not, and sees that everything is handed
/// back.
async fn drain(pipeline: &Pipeline, running: &TaskTracker) {
    let Pipeline { holdings, config, over, left_behind, .. } = pipeline;
    running.close();
    info!(busy = holdings.busy(), grace = ?config.grace, "draining");
    if tokio::time::timeout(config.grace, running.wait()).await.is_ok() {
        return;
    }
    warn!(busy = holdings.busy(), "the grace is over; stopping what runs");
    holdings.close(Ending::Leave);
    if tokio::time::timeout(LEAVE, running.wait()).await.is_ok() {
        return;
    }
    let held = holdings.busy();
    warn!(held, "the ledger did not answer; what these chunks came to is lost, and runs again");
    holdings.close(Ending::Abandon);
    over.cancel();
    if tokio::time::timeout(LAST_TRY, running.wait()).await.is_err() {
        left_behind.cancel();
    }
}

fn info(id: &NodeId, machine: &Machine, config: &Config, handlers: &Handlers) -> NodeInfo {
    NodeInfo {
        host: machine.name(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        queues: config.queues.clone(),
        tasks: handlers.names(),
        non_speculative: config.non_speculative.iter().cloned().collect(),
        terms: LivenessTerms {
            heartbeat: Some(config.heartbeat),
            dead_after: Some(config.dead_after),
            exclusive: config.exclusive.iter().cloned().collect(),
        },
        labels: config.labels.clone(),
        slots: config.slots,
        jobs: Some(BTreeSet::new()),
        started_at: clock(),
        ..NodeInfo::new(id.clone())
    }
}
