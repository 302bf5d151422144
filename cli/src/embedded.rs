//! Runs a scheduler and a worker in this process, over a broker and a ledger in memory.
//!
//! Also builds the worker that the settings describe, in this mode and for `longshore worker`.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::memory::MemoryBroker;
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_producer::{Client, JobDocument};
use longshore_protocol::names::machine_name;
use longshore_protocol::{DisabledTask, SchedulerId};
use longshore_scheduler::Scheduler;
use longshore_worker::Worker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::http::{Listener, Server};
use crate::restrictions::Restrictions;
use crate::settings::Settings;

/// The longest wait for scheduler and worker to stop after the last subtask. The commands of tasks
/// get some seconds between SIGTERM and SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// A running scheduler and a running worker in this process.
pub(crate) struct Embedded {
    client: Client,
    broker: Arc<MemoryBroker>,
    ledger: Arc<MemoryLedger>,
    stop: CancellationToken,
    scheduler: JoinHandle<Result<(), longshore_scheduler::Error>>,
    worker: JoinHandle<Result<(), longshore_worker::Error>>,
}

impl Embedded {
    /// Starts a scheduler and the given worker, which [`worker`] has built.
    pub(crate) fn start(worker: Worker, settings: &Settings) -> Self {
        let broker = Arc::new(MemoryBroker::new());
        let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock)));
        let roots = settings.restrictions.allow_roots.clone();
        let client = Client::new(broker.clone(), ledger.clone()).within(roots);
        let stop = CancellationToken::new();
        let mut config = longshore_scheduler::Config::new(scheduler_id());
        config.dead_after = settings.dead_after;
        config.allow_roots = settings.restrictions.allow_roots.clone();
        let scheduler = Scheduler::new(config, broker.clone(), ledger.clone());
        let scheduler = tokio::spawn(scheduler.run(stop.clone()));
        let running = worker.run(broker.clone(), ledger.clone(), stop.clone());
        let worker = tokio::spawn(running);
        Self { client, broker, ledger, stop, scheduler, worker }
    }

    /// The client to submit and follow jobs.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Serves the HTTP API of the jobs here.
    pub(crate) fn serve(&self, listener: Listener) -> Server {
        listener.serve(self.broker.clone(), self.ledger.clone())
    }

    /// Waits until the scheduler or the worker ends, which happens only after an error.
    pub(crate) async fn broken(&mut self) -> Failure {
        tokio::select! {
            ended = &mut self.scheduler => match ended {
                Ok(Err(error)) => Failure::other(error),
                Ok(Ok(())) => Failure::other("the scheduler stopped by itself"),
                Err(error) => Failure::other(format_args!("the scheduler: {error}")),
            },
            ended = &mut self.worker => match ended {
                Ok(Err(error)) => Failure::other(error),
                Ok(Ok(())) => Failure::other("the worker stopped by itself"),
                Err(error) => Failure::other(format_args!("the worker: {error}")),
            },
        }
    }

    /// Stops both. Running subtasks get the worker's grace period.
    pub(crate) async fn stop(self, grace: Duration) {
        self.stop.cancel();
        let ended = async {
            // `broken` has reported one that ended before.
            if !self.worker.is_finished() {
                let _ = self.worker.await;
            }
            if !self.scheduler.is_finished() {
                let _ = self.scheduler.await;
            }
        };
        // Whatever hangs longer ends with the process.
        let _ = tokio::time::timeout(grace + STOP_WITHIN, ended).await;
    }
}

/// A new id for a scheduler of this process.
pub(crate) fn scheduler_id() -> SchedulerId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = machine_name(host.as_deref().unwrap_or("scheduler"));
    SchedulerId::new(format!("{host}-{}", uuid::Uuid::new_v4()))
}

/// Builds the worker that the settings describe, for these queues; `bench` adds the tasks of the
/// benchmark.
pub(crate) fn worker(
    settings: &Settings,
    queues: Vec<String>,
    grace: Duration,
    bench: bool,
) -> Result<Worker, Failure> {
    let Restrictions { allow_roots, builtin_tasks, pass_env, http_allow_addresses } =
        settings.restrictions.clone();
    let mut config = longshore_worker::Config {
        queues,
        allow_roots,
        builtin_tasks,
        pass_env,
        http_allow_addresses,
        labels: settings.labels.clone(),
        heartbeat: settings.heartbeat,
        dead_after: settings.dead_after,
        ack_after: settings.ack_after,
        grace,
        ..longshore_worker::Config::default()
    };
    if let Some(slots) = settings.slots {
        config.slots = slots;
    }
    let mut builder = Worker::builder().config(config);
    for (name, spec) in &settings.tasks {
        builder = builder.configured_task(name, spec.clone());
    }
    if bench {
        builder = with_benchmark_tasks(builder)?;
    }
    builder.build().map_err(Failure::usage)
}

/// Adds the tasks of the benchmark.
#[cfg(feature = "bench")]
fn with_benchmark_tasks(
    builder: longshore_worker::Builder,
) -> Result<longshore_worker::Builder, Failure> {
    Ok(longshore_bench::spin(builder))
}

/// Fails, because this program is built without the benchmark.
#[cfg(not(feature = "bench"))]
fn with_benchmark_tasks(
    _: longshore_worker::Builder,
) -> Result<longshore_worker::Builder, Failure> {
    Err(Failure::usage(
        "--bench: this program is built without the benchmark; build it with `--features bench`",
    ))
}

/// Refuses a document that the worker of this process could never run.
pub(crate) fn check_tasks(
    document: &JobDocument,
    known: &[String],
    disabled: &[DisabledTask],
) -> Result<(), Failure> {
    let reduce = document.reduce.as_ref().map(|reduce| ("reduce.task", reduce.task.as_str()));
    for (place, task) in std::iter::once(("task", document.task.as_str())).chain(reduce) {
        if let Some(disabled) = disabled.iter().find(|disabled| disabled.task == task) {
            let reason = &disabled.reason;
            return Err(Failure::usage(format!("{place}: task `{task}` can't start: {reason}")));
        }
        if !known.iter().any(|name| name == task) {
            return Err(Failure::usage(format!(
                "{place}: unknown task `{task}`; use {}, or declare [task.{task}] in longshore.toml",
                known.join(", ")
            )));
        }
    }
    Ok(())
}
