//! The processes of a run, which run the production code: workers, schedulers, the application.
//!
//! Workers and schedulers are restarted after each death; the application submits and controls
//! jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Ledger, RetryParams};
use longshore_producer::{Client, JobDocument};
use longshore_protocol::SchedulerId;
use longshore_scheduler::{Expand, Scheduler};
use longshore_worker::{
    CancellationToken, Config, Context, Environment, Inputs, TaskError, Worker,
};

use crate::broker::RemoteBroker;
use crate::ledger::RemoteLedger;
use crate::process::Process;
use crate::rng::Rng;
use crate::storage::RemoteStore;
use crate::workload::{ADD, Behavior, Control, EXCLUSIVE, Job, MARK, WORK, files_of};
use crate::world::World;

/// The longest time between a death and the restart.
const RESTART_MS: u64 = 3_000;

/// What the workers in one place of the fleet can run. Restarts don't change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs all tasks.
    Sound,
    /// Does not have this task.
    Lacks(&'static str),
    /// Fails all subtasks at once, but no reductions.
    FailsAll,
}

impl Kind {
    /// The kinds of all places. The first is sound, and in at most one all subtasks fail.
    pub(crate) fn some(rng: &Rng, places: usize) -> Vec<Self> {
        let mut kinds = vec![Self::Sound; places];
        for kind in kinds.iter_mut().skip(1) {
            if rng.chance(200) {
                *kind = Self::Lacks(if rng.chance(667) { WORK } else { ADD });
            }
        }
        if places > 1 && rng.chance(300) {
            kinds[rng.among(1..places as u64) as usize] = Self::FailsAll;
        }
        kinds
    }
}

/// Keeps a worker running in one place of the fleet, each time as a new process.
pub(crate) async fn keep_worker(world: Arc<World>, place: usize, config: Config, kind: Kind) {
    let rng = Arc::new(world.rng.fork());
    for start in 0.. {
        let process = Process::start(&world, format!("worker-{place}.{start}"), true);
        process.announces(config.dead_after);
        let worker = worker(&process, &config, &rng, kind);
        world.note(|| format!("{} starts as {}", process.name, worker.id()));
        let (broker, ledger) = (RemoteBroker::new(&process), RemoteLedger::connect(&process));
        let run = tokio::spawn(worker.run(broker, ledger, CancellationToken::new()));
        live(&process, run).await;
        tokio::time::sleep(rng.millis(0..RESTART_MS)).await;
    }
}

/// Keeps a scheduler running, each time as a new process.
pub(crate) async fn keep_scheduler(world: Arc<World>, place: usize) {
    let rng = world.rng.fork();
    for start in 0.. {
        // Until now no scheduler could revoke chunks.
        if !world.living().iter().any(|it| it.name.starts_with("scheduler")) {
            world.history.lock().scheduler_died = world.now();
        }
        let process = Process::start(&world, format!("scheduler-{place}.{start}"), true);
        world.note(|| format!("{} starts", process.name));
        let id = SchedulerId::new(process.name.clone());
        let mut config = longshore_scheduler::Config::new(id);
        config.dead_after = world.dead_after;
        let scheduler =
            Scheduler::new(config, RemoteBroker::new(&process), RemoteLedger::connect(&process))
                .expanding(files(&world));
        let run = tokio::spawn(scheduler.run(CancellationToken::new()));
        live(&process, run).await;
        tokio::time::sleep(rng.millis(0..RESTART_MS)).await;
    }
}

/// Expands globs, unless the files are away.
fn files(world: &Arc<World>) -> Expand {
    let world = world.clone();
    Arc::new(move |globs| {
        let world = world.clone();
        Box::pin(async move {
            // Sometimes longer than a document may wait in the admitter.
            tokio::time::sleep(world.rng.millis(0..500)).await;
            let (path, reason) = (globs[0].clone(), "stale file handle".to_owned());
            if world.happens("files away", |rates| rates.files_away) {
                return Err(longshore_storage::Error::Io { path, reason });
            }
            Ok(files_of(&path))
        })
    })
}

/// Waits until the process is killed or its program exits. An error or a panic is a violation.
async fn live<E: std::fmt::Display>(
    process: &Process,
    mut run: tokio::task::JoinHandle<Result<(), E>>,
) {
    tokio::select! {
        biased;
        () = process.died() => run.abort(),
        ended = &mut run => {
            let world = &process.world;
            let wrong = match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic.to_string()),
            };
            if let Some(wrong) = wrong {
                world.violated("S12", || format!("{} ended: {wrong}", process.name));
            }
            world.count("processes that left by themselves");
            process.kill();
        }
    }
}

fn worker(process: &Arc<Process>, config: &Config, rng: &Arc<Rng>, kind: Kind) -> Worker {
    let (works, adds, rng) = (process.clone(), process.clone(), rng.clone());
    let alone = process.clone();
    let environment = Environment::simulated(process.name.clone(), move || rng.next())
        .with_results(RemoteStore::new(process));
    let mut builder = Worker::builder().environment(environment).config(config.clone());
    if process.world.has_exclusive() {
        builder = builder
            .task(EXCLUSIVE, move |ctx: Context, _: serde_json::Value| {
                subtask(alone.clone(), ctx, None)
            })
            .exclusive(EXCLUSIVE);
    }
    if kind == Kind::FailsAll {
        builder =
            builder.task(WORK, move |ctx: Context, _: serde_json::Value| fail(works.clone(), ctx));
    } else if kind != Kind::Lacks(WORK) {
        builder = builder.task(WORK, move |ctx: Context, _: serde_json::Value| {
            subtask(works.clone(), ctx, None)
        });
    }
    if kind != Kind::Lacks(ADD) {
        builder = builder.task(ADD, move |ctx: Context, all: Inputs<u64>| {
            subtask(adds.clone(), ctx, Some(all.inputs.iter().map(|input| input % MARK).sum()))
        });
    }
    builder.build().expect("the configuration is valid")
}

/// An attempt on a node where all subtasks fail.
async fn fail(process: Arc<Process>, ctx: Context) -> Result<u64, TaskError> {
    process.running().await;
    let (job, index, attempt) = (ctx.job(), ctx.index(), ctx.attempt());
    let _running = process.world.attempt_begins(&process, job, index, attempt);
    process.world.attempt_failed_where_all_fail(&process, job, index, attempt);
    Err(TaskError::retryable("all fail here"))
}

/// An attempt at a subtask, or with `sum` at a node of the reduce tree.
async fn subtask(process: Arc<Process>, ctx: Context, sum: Option<u64>) -> Result<u64, TaskError> {
    let world = &process.world;
    let (id, index, attempt) = (ctx.job(), ctx.index(), ctx.attempt());
    let Some(job) = world.jobs.get(&id) else {
        return Err(TaskError::permanent("this job was never submitted"));
    };
    progress(&process, job).await;
    if ctx.is_cancelled() {
        // An attempt that is stopped before its first step does not count as begun.
        return Err(TaskError::retryable("stopped"));
    }
    let running = world.attempt_begins(&process, id, index, attempt);
    tokio::time::sleep(job.duration(index, attempt)).await;
    progress(&process, job).await;
    match job.behavior(index) {
        Behavior::FailsForGood => {
            world.attempt_failed(id, index, attempt);
            return Err(TaskError::permanent("never"));
        }
        Behavior::FailsFirst(times) if attempt <= times => {
            world.attempt_failed(id, index, attempt);
            return Err(TaskError::retryable("not this time"));
        }
        Behavior::Defers(times) if world.attempt_deferred(id, index, times) => {
            return Err(TaskError::not_now("full"));
        }
        _ => {}
    }
    world.attempt_succeeded(id, index);
    // The run number shows which attempt a result is of.
    Ok(running.run * MARK + sum.unwrap_or_else(|| job.value(index)))
}

/// Waits while the process is frozen. A subtask with a time limit goes on: a freeze would count as
/// its timeout, as on a real machine, and the outcome would not be known beforehand.
async fn progress(process: &Process, job: &Job) {
    match job.document.timeout {
        Some(_) => process.alive().await,
        None => process.running().await,
    }
}

/// The application: submits and controls jobs at their times.
pub(crate) async fn application(world: Arc<World>) {
    let process = Process::start(&world, "application".into(), false);
    let ledger = RemoteLedger::connect(&process);
    let client = Client::new(RemoteBroker::new(&process), ledger.clone());
    for job in world.jobs.values() {
        tokio::spawn(submit(world.clone(), client.clone(), job.clone()));
        for (at, control) in job.controls.clone() {
            tokio::spawn(control_job(world.clone(), ledger.clone(), job.clone(), at, control));
        }
    }
}

async fn submit(world: Arc<World>, client: Client, job: Job) {
    tokio::time::sleep_until(world.at(job.submitted_after)).await;
    for _ in 0..job.submissions {
        publish(&client, &job.document).await;
    }
    world.confirmed(job.id);
}

/// Publishes until the broker confirms.
async fn publish(client: &Client, document: &JobDocument) {
    while client.publish(document).await.is_err() {}
}

async fn control_job(
    world: Arc<World>,
    ledger: Arc<dyn Ledger>,
    job: Job,
    at: Duration,
    control: Control,
) {
    tokio::time::sleep_until(world.at(at)).await;
    // The state of the job may not allow the operation, or the answer may be lost.
    let _ = match control {
        Control::Pause => ledger.pause(job.id).await.map(drop),
        Control::Resume => ledger.resume(job.id).await.map(drop),
        Control::Cancel => ledger.cancel(job.id).await.map(drop),
        Control::Retry => ledger.retry(job.id, &RetryParams::all()).await.map(drop),
    };
}

/// Submits confirmed jobs again that a rollback of the ledger has lost.
pub(crate) async fn resubmit(world: Arc<World>) {
    let process = Process::start(&world, "application again".into(), false);
    let client = Client::new(RemoteBroker::new(&process), RemoteLedger::connect(&process));
    for id in world.confirmed_jobs() {
        if world.ledger.job(id).await.ok().flatten().is_none() {
            world.count("jobs submitted again after a rollback");
            publish(&client, &world.jobs[&id].document).await;
        }
    }
}

/// The configuration of a worker of the fleet.
pub(crate) fn worker_config(
    rng: &Rng,
    place: usize,
    queues: &[String],
    has_short_timeouts: bool,
) -> Config {
    let queues = match place {
        // At least one worker takes from every queue.
        0 => queues.to_vec(),
        _ => vec![rng.pick(queues).clone()],
    };
    let (mut heartbeat, mut dead_after) =
        if has_short_timeouts { (300, 1_500) } else { (1_000, 5_000) };
    if rng.chance(200) {
        // By a scheduler's setting this worker would be lost between two heartbeats.
        (heartbeat, dead_after) = (dead_after * 3 / 2, dead_after * 4);
    }
    Config {
        slots: rng.among(1..4) as u32,
        queues,
        non_speculative: BTreeSet::new(),
        exclusive: BTreeSet::new(),
        labels: BTreeMap::new(),
        heartbeat: Duration::from_millis(heartbeat),
        dead_after: Duration::from_millis(dead_after),
        ack_after: rng.millis(500..5_000),
        grace: Duration::from_secs(1),
        commit_every: rng.millis(1..300),
        // Low, because the jobs of a run are small.
        prefetch_ahead_after: *rng.pick(&[1, 3, 64]),
        max_result: 1 << 20,
        ..Config::default()
    }
}
