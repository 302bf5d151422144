//! The heart: signs of life from a thread of their own, so that no handler can stop them.
//!
//! ```text
//!   ledger (own connections) <-- beat --- heart --- stop, drain ---> holdings, closing
//!   ledger ------ hints ----------------> heart --- Pulse ---------> slots
//! ```
//!
//! A worker whose beats fail for three quarters of `dead_after` is fenced until a beat works again.
//! It claims nothing. What it runs goes on: while the ledger is away nobody can have taken it, and
//! when a beat works again, its answer names what was given to others. Chunks of exclusive tasks
//! stop, so that they have ended before `dead_after`, when a scheduler may give them away. Hints
//! about ended and paused jobs arrive here too, since a cancel must get through to a busy worker;
//! the beat repeats whatever a lost hint said.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longshore_ledger::{Beat, BeatParams, Event, Ledger, Topic};
use longshore_protocol::{NodeInfo, NodeState, Timestamp};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::Machine;
use crate::availability::Availability;
use crate::holdings::{Ending, Holdings};
use crate::metrics;
use crate::records::Records;

/// What a beat costs the machine is bounded by measuring it no more often than this.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// A failed beat is repeated after this time, or after the usual one if that is shorter.
const BEAT_AGAIN: Duration = Duration::from_millis(250);

/// The first beat waits at most so long for the hints to be followed.
const FIRST_BEAT: Duration = Duration::from_millis(250);

/// A worker is fenced after this part of `dead_after` without a beat. The rest is for exclusive
/// tasks to stop in (see [`wind_up_of_exclusive`]), and for a machine that is slow.
const FENCED_AFTER: (u32, u32) = (3, 4);

/// How long an attempt at an exclusive task may take to stop once the worker is fenced; then it is
/// killed. It must have ended before `dead_after`.
pub(crate) fn wind_up_of_exclusive(dead_after: Duration) -> Duration {
    dead_after / 8
}

/// The wait before hints are asked for again after the ledger refused them.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Whether new work may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// No beat has worked yet. A node that nobody knows would be missed by nobody. The first beat
    /// moves it on.
    Starting,
    /// The ledger knows that we live.
    Beating,
    /// No beat worked for most of `dead_after`. The next one that works moves it on.
    Fenced,
}

/// The pulse, where everybody can feel it.
#[derive(Debug)]
pub(crate) struct Wrist(watch::Sender<Pulse>);

impl Wrist {
    fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Pulse::Starting)))
    }

    /// Waits until the heart beats.
    pub(crate) async fn beating(&self) {
        // The sender is ours, so it is there.
        let _ = self.0.subscribe().wait_for(|pulse| *pulse == Pulse::Beating).await;
    }

    /// Whether the worker lost the ledger.
    pub(crate) fn is_fenced(&self) -> bool {
        self.feel() == Pulse::Fenced
    }

    fn feel(&self) -> Pulse {
        *self.0.borrow()
    }

    /// Gives the pulse before.
    fn set(&self, pulse: Pulse) -> Pulse {
        self.0.send_replace(pulse)
    }
}

/// What the heart needs to know of its worker.
pub(crate) struct Body {
    /// What stays the same, or was true at the start.
    pub(crate) info: NodeInfo,
    pub(crate) machine: Arc<Machine>,
    pub(crate) heartbeat: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) records: Arc<Records>,
    /// Cancelled, by the heart too, when nothing new is to be claimed.
    pub(crate) closing: CancellationToken,
}

/// A beating heart. Dropping it without [`Heart::stop`] lets it end on its own time.
pub(crate) struct Heart {
    ground: Option<Ground>,
    stop: CancellationToken,
    wrist: Arc<Wrist>,
}

/// Where a heart beats.
enum Ground {
    /// On a thread of its own, so that a handler which burns the processor can't stop it.
    Thread(JoinHandle<()>),
    /// On the worker's runtime, where a simulation keeps the time.
    Task(tokio::task::JoinHandle<()>),
}

impl Heart {
    /// Starts to beat. `ledger` is used by the heart alone.
    pub(crate) fn start(body: Body, ledger: Arc<dyn Ledger>) -> Result<Self, std::io::Error> {
        let stop = CancellationToken::new();
        let wrist = Wrist::new();
        let on_this_runtime = body.machine.is_simulated();
        let life = live(body, ledger, wrist.clone(), stop.clone());
        let ground = if on_this_runtime {
            Ground::Task(tokio::spawn(life))
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name("longshore-heart".into());
            Ground::Thread(thread.spawn(move || runtime.block_on(life))?)
        };
        Ok(Self { ground: Some(ground), stop, wrist })
    }

    pub(crate) fn wrist(&self) -> Arc<Wrist> {
        self.wrist.clone()
    }

    /// Stops the heart and waits for its end, so that no late beat brings back a node that left.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended_well = match self.ground.take() {
            Some(Ground::Thread(thread)) => {
                matches!(tokio::task::spawn_blocking(|| thread.join()).await, Ok(Ok(())))
            }
            Some(Ground::Task(task)) => task.await.is_ok(),
            None => true,
        };
        if !ended_well {
            error!("the heart panicked");
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn live(body: Body, ledger: Arc<dyn Ledger>, wrist: Arc<Wrist>, stop: CancellationToken) {
    let chest = Chest { body: &body, ledger: ledger.as_ref(), wrist, again: Notify::new() };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = chest.beat() => {}
        () = chest.listen() => {}
    }
}

/// What beats and listens.
struct Chest<'a> {
    body: &'a Body,
    ledger: &'a dyn Ledger,
    wrist: Arc<Wrist>,
    /// Asks for a beat at once.
    again: Notify,
}

impl Chest<'_> {
    async fn beat(&self) {
        let Body { heartbeat, dead_after, .. } = *self.body;
        let (part, whole) = FENCED_AFTER;
        let fenced_after = dead_after * part / whole;
        // The first beat registers the connection that ends with this process, so that no death is
        // overlooked. Where hints can't be followed it goes without.
        let _ = tokio::time::timeout(FIRST_BEAT, self.again.notified()).await;
        let mut body = Measure::new(self.body);
        let mut last_heard = Instant::now();
        loop {
            let begun = Instant::now();
            let info = body.take(self.body, begun);
            let wait = match self.beat_once(&info, last_heard + fenced_after).await {
                Ok(beat) => {
                    last_heard = begun;
                    self.hear(&beat);
                    heartbeat
                }
                Err(reason) => {
                    debug!(reason, "a heartbeat failed");
                    self.body.holdings.untold(info.jobs);
                    heartbeat.min(BEAT_AGAIN)
                }
            };
            self.rest(begun + wait, last_heard + fenced_after).await;
        }
    }

    /// One beat; fences the worker when `fence_at` comes while it waits for the answer.
    async fn beat_once(&self, info: &NodeInfo, fence_at: Instant) -> Result<Beat, String> {
        let params = BeatParams::new(info.clone(), self.body.holdings.held());
        let beat = self.ledger.beat(&params);
        let beat = tokio::time::timeout(self.body.dead_after / 2, beat);
        tokio::pin!(beat);
        loop {
            tokio::select! {
                biased;
                answer = &mut beat => return match answer {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("no answer in time".into()),
                },
                () = tokio::time::sleep_until(fence_at), if self.is_beating() => self.fence(),
            }
        }
    }

    /// Waits for the next beat, or until something is worth one at once.
    async fn rest(&self, until: Instant, fence_at: Instant) {
        let was_closing = self.body.closing.is_cancelled();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                () = self.again.notified() => return,
                () = self.body.availability.changed() => return,
                () = self.body.closing.cancelled(), if !was_closing => return,
                () = tokio::time::sleep_until(fence_at), if self.is_beating() => self.fence(),
            }
        }
    }

    fn is_beating(&self) -> bool {
        self.wrist.feel() == Pulse::Beating
    }

    fn fence(&self) {
        let held = self.body.holdings.busy();
        error!(held, "the ledger is away; nothing is claimed, held chunks go on");
        // In this order: a chunk that is marked as exclusive later looks at the pulse then.
        self.wrist.set(Pulse::Fenced);
        metrics::fenced(true);
        self.body.holdings.fence();
    }

    fn hear(&self, beat: &Beat) {
        self.body.holdings.stop(&beat.stop);
        if beat.drain && !self.body.closing.is_cancelled() {
            info!("asked to drain");
            self.body.closing.cancel();
        }
        if self.wrist.set(Pulse::Beating) == Pulse::Fenced {
            info!(stopped = beat.stop.len(), "heartbeats get through again");
            metrics::fenced(false);
        }
    }

    async fn listen(&self) {
        loop {
            match self.ledger.events(Topic::Workers).await {
                Ok(mut events) => {
                    // The connection that ends with this process is known now, and worth a beat.
                    self.again.notify_one();
                    loop {
                        self.follow(events.next().await);
                    }
                }
                Err(error) => debug!(%error, "no hints from the ledger; heartbeats do without"),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    fn follow(&self, event: Event) {
        match event {
            Event::Job { job, state } if state.is_paused() => {
                self.body.holdings.end_job(job, Ending::Yield);
            }
            Event::Job { job, state } if state.is_terminal() => {
                self.body.holdings.end_job(job, Ending::Abandon);
            }
            // The answer to a beat says all that the missed hints did; so does the wish to drain.
            Event::Gap => self.again.notify_one(),
            Event::Node { node } if node == self.body.info.id => self.again.notify_one(),
            Event::Job { .. }
            | Event::Room { .. }
            | Event::Node { .. }
            | Event::Scheduler { .. }
            | Event::Ended(_) => {}
        }
    }
}

/// What the worker says of itself, brought up to date.
struct Measure {
    info: NodeInfo,
    system: Option<System>,
    due: Option<Instant>,
}

impl Measure {
    fn new(body: &Body) -> Self {
        let real = !body.machine.is_simulated();
        let look =
            || System::new().inspect_err(|error| warn!(%error, "can't measure this process"));
        let system = real.then(look).and_then(Result::ok);
        Self { info: body.info.clone(), system, due: None }
    }

    fn take(&mut self, body: &Body, now: Instant) -> NodeInfo {
        if self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + MEASURE_EVERY);
            self.measure();
        }
        // Some of what is held may only wait for a slot, or for its last commit.
        let busy = u32::try_from(body.holdings.busy()).unwrap_or(u32::MAX);
        self.info.busy = busy.min(self.info.slots);
        self.info.jobs = Some(body.holdings.jobs_to_tell());
        self.info.records = body.records.announced();
        self.info.disabled = body.availability.disabled();
        let is_disabled = |task: &String| self.info.disabled.iter().any(|it| it.task == *task);
        self.info.tasks =
            body.info.tasks.iter().filter(|task| !is_disabled(task)).cloned().collect();
        self.info.state =
            if body.closing.is_cancelled() { NodeState::Draining } else { NodeState::Active };
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

/// The time by this machine's clock. People read it; nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "when a worker started is told by its own clock")]
pub(crate) fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
