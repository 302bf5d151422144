//! Runs a worker from its setup to its leave: heartbeat, consuming, draining, waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::{Broker, Queue, Subscription};
use longshore_ledger::{DeclareLostParams, Ledger, LossCause, LossEvidence};
use longshore_protocol::{DisabledTask, LivenessTerms, NodeId, NodeInfo};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::availability::Availability;
use crate::builder::{Builder, Setup, Teardown};
use crate::drain_state::DrainState;
use crate::heartbeat::{Heartbeat, HeartbeatConfig, clock};
use crate::held_chunks::{HeldChunks, StopMode};
use crate::pipeline::{Pipeline, TASK_DISABLED};
use crate::plans::Plans;
use crate::prefetch::Prefetcher;
use crate::prefetch_controller::PrefetchMode;
use crate::records::Records;
use crate::results::UnwritableLocations;
use crate::retry::LedgerHealth;
use crate::task::Handlers;
use crate::{Config, Environment, Error, Supervised, shim};

/// How long a draining worker waits for chunks that it cancelled after `grace`: the stop of a
/// command and a commit take that long.
const CANCEL_WITHIN: Duration = Duration::from_secs(6);

/// How long it then waits for releases that the ledger has not answered.
const LAST_TRY: Duration = Duration::from_secs(2);

/// A worker, ready to run.
pub struct Worker {
    pub(crate) id: NodeId,
    /// Cancelled by the supervisor, if there is one, when it was asked to stop.
    pub(crate) drain: CancellationToken,
    pub(crate) environment: Arc<Environment>,
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
    /// A builder with default settings and the built-in tasks.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The worker of a supervised program; see [`supervised`](crate::supervised()).
    #[must_use]
    pub fn supervised(self, Supervised { node, drain }: Supervised) -> Self {
        Self { id: node, drain, ..self }
    }

    /// The node id under which the cluster will know the worker.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The tasks that the worker can run, sorted.
    pub fn tasks(&self) -> Vec<String> {
        let disabled = self.availability.disabled();
        let mut names = self.handlers.names();
        names.retain(|name| disabled.iter().all(|it| it.task != *name));
        names
    }

    /// The tasks that the worker has and can't start on this host, sorted.
    pub fn disabled(&self) -> Vec<DisabledTask> {
        self.availability.disabled()
    }

    /// Runs until `shutdown` is cancelled; then finishes the subtasks that run within `grace`,
    /// releases the rest and leaves. Waits for the broker and the ledger while they can't be
    /// reached.
    ///
    /// Asked to drain through the ledger, it finishes and releases in the same way, and stays: it
    /// takes no chunk until the drain is withdrawn.
    pub async fn run(
        self,
        broker: Arc<dyn Broker>,
        ledger: Arc<dyn Ledger>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Self { id, environment, config, handlers, availability, setup, teardown, drain: _ } =
            self;
        if handlers.have_programs() && !shim::is_prepared() {
            return Err(Error::Unprepared);
        }
        if let Some(setup) = setup {
            setup().await.map_err(Error::Setup)?;
        }
        for DisabledTask { task, reason, .. } in availability.disabled() {
            warn!(task, reason, "{TASK_DISABLED}");
        }
        let chunks = Arc::new(HeldChunks::default());
        let drain_state = Arc::new(DrainState::default());
        let records = Arc::new(Records::default());
        let heartbeat = HeartbeatConfig {
            info: info(&id, &environment, &config, &handlers),
            environment: environment.clone(),
            interval: config.heartbeat,
            dead_after: config.dead_after,
            chunks: chunks.clone(),
            availability: availability.clone(),
            records: records.clone(),
            drain: drain_state.clone(),
        };
        let heartbeat = Heartbeat::start(heartbeat, ledger.separate())?;
        let liveness = heartbeat.liveness();
        let pipeline_until = |closing: CancellationToken| Pipeline {
            prefetcher: Prefetcher::new(&config, liveness.clone(), closing.clone()),
            node: id.clone(),
            environment: environment.clone(),
            ledger: ledger.clone(),
            ledger_health: LedgerHealth::default(),
            handlers: handlers.clone(),
            availability: availability.clone(),
            records: records.clone(),
            chunks: chunks.clone(),
            plans: Plans::default(),
            locations: UnwritableLocations::default(),
            liveness: liveness.clone(),
            closing,
            over: CancellationToken::new(),
            left_behind: CancellationToken::new(),
            config: config.clone(),
        };
        let (outcome, left_behind) = loop {
            let pipeline = Arc::new(pipeline_until(drain_state.closing()));
            let running = TaskTracker::new();
            let outcome = tokio::select! {
                biased;
                outcome = consume(&pipeline, &broker, &running, &shutdown) => outcome,
                () = availability.probe(&handlers) => Ok(()),
            };
            drain(&pipeline, &running).await;
            let left_behind = pipeline.left_behind.is_cancelled();
            if outcome.is_err() || shutdown.is_cancelled() || left_behind {
                break (outcome, left_behind);
            }
            drain_state.drained();
            info!(node = %id, "drained; the worker takes no chunks until it is undrained");
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break (Ok(()), false),
                () = drain_state.withdrawn() => {}
            }
            info!(node = %id, "the drain was withdrawn");
            chunks.reopen();
            drain_state.reopen();
        };
        handlers.teardown().await;
        if let Some(teardown) = teardown {
            teardown().await;
        }
        heartbeat.stop().await;
        if !left_behind {
            // Should the ledger list a chunk for this node all the same, schedulers queue it again.
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

/// Takes deliveries until the worker is told to stop, or the broker was closed.
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
        () = pipeline.liveness.until_live() => {}
    }
    let config = &pipeline.config;
    info!(node = %pipeline.node, slots = config.slots, queues = ?config.queues, "the worker runs");
    let mut consumers = JoinSet::new();
    let queues = config.queues.iter().cloned().map(Queue::Work);
    for queue in queues.chain([Queue::Node(pipeline.node.clone())]) {
        let subscription = broker.subscribe(&queue, pipeline.prefetcher.message_limit()).await;
        consumers.spawn(process_all(pipeline.clone(), running.clone(), subscription, false));
    }
    for queue in config.queues.iter().cloned().map(Queue::Work) {
        consumers.spawn(prefetch(pipeline.clone(), running.clone(), broker.clone(), queue));
    }
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        () = closing.cancelled() => Ok(()),
        // Never ends.
        () = pipeline.plans.drop_idle_regularly() => Ok(()),
        Some(ended) = consumers.join_next() => ended.unwrap_or(Ok(())),
    };
    // In this order, so that a node that is reported as draining begins nothing any more.
    pipeline.chunks.close(StopMode::Drain);
    closing.cancel();
    // Subscriptions are dropped before the chunks that run have ended: messages that were fetched
    // go to other workers at once.
    while consumers.join_next().await.is_some() {}
    if shutdown.is_cancelled() { Ok(()) } else { ended }
}

/// Processes the deliveries of a subscription; those fetched ahead of the slots only as long as the
/// worker is in that mode.
async fn process_all(
    pipeline: Arc<Pipeline>,
    running: TaskTracker,
    mut subscription: Box<dyn Subscription>,
    is_prefetched: bool,
) -> Result<(), Error> {
    loop {
        let on_demand = pipeline.prefetcher.until(PrefetchMode::OnDemand);
        tokio::select! {
            biased;
            () = pipeline.closing.cancelled() => return Ok(()),
            () = on_demand, if is_prefetched => return Ok(()),
            delivery = subscription.next() => match delivery {
                // As many as the broker delivers without acknowledgement, so this is bounded.
                Some(delivery) => running.spawn(pipeline.clone().process(delivery, is_prefetched)),
                None => return Err(Error::BrokerClosed),
            },
        };
    }
}

/// Fetches more messages than there are slots while chunks are short.
async fn prefetch(
    pipeline: Arc<Pipeline>,
    running: TaskTracker,
    broker: Arc<dyn Broker>,
    queue: Queue,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            () = pipeline.closing.cancelled() => return Ok(()),
            () = pipeline.prefetcher.until(PrefetchMode::Ahead) => {}
        }
        let limit = pipeline.prefetcher.message_limit_ahead();
        let subscription = broker.subscribe(&queue, limit).await;
        process_all(pipeline.clone(), running.clone(), subscription, true).await?;
    }
}

/// Lets running subtasks finish within the grace, cancels the others, and waits until every chunk
/// is released.
async fn drain(pipeline: &Pipeline, running: &TaskTracker) {
    let Pipeline { chunks, config, over, left_behind, .. } = pipeline;
    running.close();
    info!(busy = chunks.len(), grace = ?config.grace, "draining");
    if tokio::time::timeout(config.grace, running.wait()).await.is_ok() {
        return;
    }
    warn!(busy = chunks.len(), "the grace is over; stopping what runs");
    chunks.close(StopMode::Cancel);
    if tokio::time::timeout(CANCEL_WITHIN, running.wait()).await.is_ok() {
        return;
    }
    let held = chunks.len();
    warn!(held, "the ledger did not answer; the outcomes of these chunks are lost, they run again");
    chunks.close(StopMode::Abandon);
    over.cancel();
    if tokio::time::timeout(LAST_TRY, running.wait()).await.is_err() {
        left_behind.cancel();
    }
}

fn info(id: &NodeId, environment: &Environment, config: &Config, handlers: &Handlers) -> NodeInfo {
    NodeInfo {
        host: environment.name(),
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
