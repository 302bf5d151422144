//! Sends heartbeats from a thread of its own, and fences the worker while none gets through.
//!
//! No handler can stop that thread. What the ledger answers and hints is passed on to the held
//! chunks.
//!
//! ```text
//!   ledger (own connections) <-- beat() - heartbeat --- stop, drain ---> held chunks, closing
//!   ledger ------ hints ----------------> heartbeat --- Liveness ------> slots
//! ```
//!
//! A worker whose heartbeats fail for three quarters of `dead_after` is fenced until a heartbeat
//! works again. It claims nothing. Its chunks go on: while the ledger is away nobody can have taken
//! them, and the answer to the next heartbeat names those that were given to others. Chunks of
//! exclusive tasks stop, so that they have ended before `dead_after`, when a scheduler may give
//! them away. Hints about ended and paused jobs arrive here too, since a cancel must get through to
//! a busy worker; the answer to a heartbeat repeats what a lost hint said.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longshore_ledger::{Beat, BeatParams, Event, Ledger, Topic};
use longshore_protocol::{Hint, NodeInfo, Timestamp};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::Environment;
use crate::availability::Availability;
use crate::drain_state::DrainState;
use crate::held_chunks::{HeldChunks, StopMode};
use crate::metrics;
use crate::records::Records;

/// How often a heartbeat measures its process, which costs more than the heartbeat itself.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// A failed heartbeat is repeated after this time, or after the usual one if that is shorter.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The first heartbeat waits at most this long for the subscription to hints.
const FIRST_HEARTBEAT_WITHIN: Duration = Duration::from_millis(250);

/// A worker is fenced after this part of `dead_after` without a heartbeat. The rest is for
/// exclusive tasks to stop in (see [`exclusive_stop_grace`]), and for a slow host.
const FENCED_AFTER: (u32, u32) = (3, 4);

/// How long an attempt at an exclusive task may take to stop once the worker is fenced; then it is
/// killed. It must have ended before `dead_after`.
pub(crate) fn exclusive_stop_grace(dead_after: Duration) -> Duration {
    dead_after / 8
}

/// The pause before hints are subscribed to again after the ledger refused them.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(1);

/// Whether a worker may claim chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// No heartbeat has worked yet. Nobody would miss a node that the ledger does not know. The
    /// first heartbeat moves it on.
    Starting,
    /// The ledger knows that the worker lives.
    Live,
    /// No heartbeat worked for most of `dead_after`. The next one that works moves it on.
    Fenced,
}

/// The liveness of a worker, for the tasks that depend on it.
#[derive(Clone, Debug)]
pub(crate) struct LivenessReceiver(watch::Receiver<Liveness>);

impl LivenessReceiver {
    /// Waits until the ledger knows that the worker lives.
    pub(crate) async fn until_live(&self) {
        let mut liveness = self.0.clone();
        if liveness.wait_for(|liveness| *liveness == Liveness::Live).await.is_err() {
            // The heartbeat ended: the worker never becomes live again.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the worker is fenced.
    pub(crate) fn is_fenced(&self) -> bool {
        self.current() == Liveness::Fenced
    }

    fn current(&self) -> Liveness {
        *self.0.borrow()
    }
}

/// What a heartbeat reports, and how often.
pub(crate) struct HeartbeatConfig {
    /// The node as it was at the start; the heartbeat keeps the changing parts up to date.
    pub(crate) info: NodeInfo,
    pub(crate) environment: Arc<Environment>,
    /// The time from one heartbeat to the next.
    pub(crate) interval: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) chunks: Arc<HeldChunks>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) records: Arc<Records>,
    pub(crate) drain: Arc<DrainState>,
}

/// A running heartbeat. Dropping it without [`Heartbeat::stop`] lets it end in the background.
pub(crate) struct Heartbeat {
    handle: Option<HeartbeatHandle>,
    stop: CancellationToken,
    liveness: LivenessReceiver,
}

/// What a heartbeat runs on.
enum HeartbeatHandle {
    /// A thread of its own, so that a handler which keeps the processor busy can't stop it.
    Thread(JoinHandle<()>),
    /// A task on the worker's runtime, where a simulation keeps the time.
    Task(tokio::task::JoinHandle<()>),
}

impl Heartbeat {
    /// Starts the heartbeat, which does not share its `ledger` with the worker.
    pub(crate) fn start(
        config: HeartbeatConfig,
        ledger: Arc<dyn Ledger>,
    ) -> Result<Self, std::io::Error> {
        let stop = CancellationToken::new();
        let (sender, receiver) = watch::channel(Liveness::Starting);
        let on_this_runtime = config.environment.is_simulated();
        let work = run(config, ledger, sender, stop.clone());
        let handle = if on_this_runtime {
            HeartbeatHandle::Task(tokio::spawn(work))
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name("longshore-beat".into());
            HeartbeatHandle::Thread(thread.spawn(move || runtime.block_on(work))?)
        };
        Ok(Self { handle: Some(handle), stop, liveness: LivenessReceiver(receiver) })
    }

    pub(crate) fn liveness(&self) -> LivenessReceiver {
        self.liveness.clone()
    }

    /// Stops the heartbeat and waits for its end, so that no late heartbeat brings back a node that
    /// left.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended_well = match self.handle.take() {
            Some(HeartbeatHandle::Thread(thread)) => {
                matches!(tokio::task::spawn_blocking(|| thread.join()).await, Ok(Ok(())))
            }
            Some(HeartbeatHandle::Task(task)) => task.await.is_ok(),
            None => true,
        };
        if !ended_well {
            error!("the heartbeat panicked");
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    config: HeartbeatConfig,
    ledger: Arc<dyn Ledger>,
    liveness: watch::Sender<Liveness>,
    stop: CancellationToken,
) {
    let (config, ledger, again) = (&config, ledger.as_ref(), Notify::new());
    let heartbeat = HeartbeatLoop { config, ledger, liveness, again };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = heartbeat.beat() => {}
        () = heartbeat.listen() => {}
    }
}

/// Sends heartbeats and follows hints.
struct HeartbeatLoop<'a> {
    config: &'a HeartbeatConfig,
    ledger: &'a dyn Ledger,
    liveness: watch::Sender<Liveness>,
    /// Asks for a heartbeat at once.
    again: Notify,
}

impl HeartbeatLoop<'_> {
    async fn beat(&self) {
        let HeartbeatConfig { interval, dead_after, .. } = *self.config;
        let (part, whole) = FENCED_AFTER;
        let fenced_after = dead_after * part / whole;
        // The first heartbeat registers the connection whose end shows that this process died, so
        // that no death is overlooked. Where there is no subscription to hints it goes without.
        let _ = tokio::time::timeout(FIRST_HEARTBEAT_WITHIN, self.again.notified()).await;
        let mut reporter = Reporter::new(self.config);
        let mut last_success = Instant::now();
        loop {
            let begun = Instant::now();
            let info = reporter.report(self.config, begun);
            let wait = match self.beat_once(&info, last_success + fenced_after).await {
                Ok(beat) => {
                    last_success = begun;
                    self.take_answer(&beat);
                    interval
                }
                Err(reason) => {
                    debug!(reason, "a heartbeat failed");
                    self.config.chunks.jobs_not_reported(info.jobs);
                    interval.min(RETRY_AFTER)
                }
            };
            self.wait(begun + wait, last_success + fenced_after).await;
        }
    }

    /// Sends one heartbeat; fences the worker when `fence_at` comes before the answer.
    async fn beat_once(&self, info: &NodeInfo, fence_at: Instant) -> Result<Beat, String> {
        let params = BeatParams::new(info.clone(), self.config.chunks.granted());
        let beat = self.ledger.beat(&params);
        let beat = tokio::time::timeout(self.config.dead_after / 2, beat);
        tokio::pin!(beat);
        loop {
            tokio::select! {
                biased;
                answer = &mut beat => return match answer {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("no answer in time".into()),
                },
                () = tokio::time::sleep_until(fence_at), if self.is_live() => self.fence(),
            }
        }
    }

    /// Waits for the next heartbeat, or until something is worth one at once.
    async fn wait(&self, until: Instant, fence_at: Instant) {
        let closing = self.config.drain.closing();
        let was_closing = closing.is_cancelled();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                () = self.again.notified() => return,
                () = self.config.availability.changed() => return,
                () = self.config.drain.changed() => return,
                () = closing.cancelled(), if !was_closing => return,
                () = tokio::time::sleep_until(fence_at), if self.is_live() => self.fence(),
            }
        }
    }

    fn is_live(&self) -> bool {
        *self.liveness.borrow() == Liveness::Live
    }

    fn fence(&self) {
        let held = self.config.chunks.len();
        error!(held, "the ledger is away; nothing is claimed, held chunks go on");
        // In this order: code that marks a chunk as exclusive later checks the liveness after that.
        self.liveness.send_replace(Liveness::Fenced);
        metrics::fenced(true);
        self.config.chunks.fence();
    }

    fn take_answer(&self, beat: &Beat) {
        self.config.chunks.stop(&beat.stop);
        self.config.drain.answered(beat.drain);
        if self.liveness.send_replace(Liveness::Live) == Liveness::Fenced {
            info!(stopped = beat.stop.len(), "heartbeats get through again");
            metrics::fenced(false);
        }
    }

    async fn listen(&self) {
        loop {
            match self.ledger.events(Topic::Workers).await {
                Ok(mut events) => {
                    // The connection whose end shows that this process died is known now; the next
                    // heartbeat registers it.
                    self.again.notify_one();
                    loop {
                        self.follow(events.next().await);
                    }
                }
                Err(error) => debug!(%error, "no hints from the ledger; heartbeats do without"),
            }
            tokio::time::sleep(RESUBSCRIBE_AFTER).await;
        }
    }

    fn follow(&self, event: Event) {
        match event {
            Event::Hint(Hint::Job { job, state }) if state.is_paused() => {
                self.config.chunks.stop_job(job, StopMode::Drain);
            }
            Event::Hint(Hint::Job { job, state }) if state.is_terminal() => {
                self.config.chunks.stop_job(job, StopMode::Abandon);
            }
            // The answer to a heartbeat repeats what the missed hints said, a drain included.
            Event::Gap => self.again.notify_one(),
            Event::Hint(Hint::Node { node }) if node == self.config.info.id => {
                self.again.notify_one();
            }
            Event::Hint(_) | Event::Ended(_) => {}
        }
    }
}

/// What a worker reports about itself, kept up to date.
struct Reporter {
    info: NodeInfo,
    system: Option<System>,
    measure_at: Option<Instant>,
}

impl Reporter {
    fn new(config: &HeartbeatConfig) -> Self {
        let system = || {
            System::new().inspect_err(|error| {
                warn!(%error, "CPU and memory of this process can't be measured");
            })
        };
        let system = (!config.environment.is_simulated()).then(system).and_then(Result::ok);
        Self { info: config.info.clone(), system, measure_at: None }
    }

    fn report(&mut self, config: &HeartbeatConfig, now: Instant) -> NodeInfo {
        if self.measure_at.is_none_or(|at| at <= now) {
            self.measure_at = Some(now + MEASURE_EVERY);
            self.measure();
        }
        // Some held chunks may only wait for a slot, or for their last commit.
        let busy = u32::try_from(config.chunks.len()).unwrap_or(u32::MAX);
        self.info.busy = busy.min(self.info.slots);
        self.info.jobs = Some(config.chunks.take_jobs_to_report());
        self.info.records = config.records.reportable();
        self.info.disabled = config.availability.disabled();
        let is_disabled = |task: &String| self.info.disabled.iter().any(|it| it.task == *task);
        self.info.tasks =
            config.info.tasks.iter().filter(|task| !is_disabled(task)).cloned().collect();
        self.info.state = config.drain.state();
        self.info.clone()
    }

    fn measure(&mut self) {
        let Some(system) = &mut self.system else { return };
        let pid = sysinfo::Pid::from_u32(self.info.pid);
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
        if let Some(process) = system.process(pid) {
            self.info.cpu = f64::from(process.cpu_usage()) / 100.0;
            self.info.rss = process.memory();
        }
    }
}

/// The time by the clock of this host. People read it; nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "a worker reports its start by its own clock")]
pub(crate) fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
