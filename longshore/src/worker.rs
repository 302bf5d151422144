//! A worker program: its tasks and settings, and its run until a signal.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use longshore_broker::Broker;
use longshore_broker::rabbit::Rabbit;
use longshore_ledger::redis::RedisLedger;
use longshore_protocol::ErrorKind;
use longshore_worker::{AllowedRoots, BuildError, BuiltinTasks, CancellationToken, StopRequests};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use crate::{Config, Context, Error, telemetry};

/// How long closing the connections may take at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A worker with the tasks of the application, ready to run.
///
/// ```no_run
/// use longshore::{Context, TaskResult, Worker};
///
/// #[tokio::main]
/// async fn main() -> Result<(), longshore::Error> {
///     Worker::builder()
///         .task("greet", |_: Context, name: String| async move {
///             TaskResult::Ok(format!("hello {name}"))
///         })
///         .build()?
///         .run_from_env()
///         .await
/// }
/// ```
#[derive(Debug)]
pub struct Worker {
    inner: longshore_worker::Worker,
}

/// Builds a [`Worker`].
#[derive(Default)]
pub struct WorkerBuilder {
    inner: longshore_worker::Builder,
    allow_roots: Option<Vec<String>>,
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder").finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// An asynchronous task. Its argument is the input of a subtask, read by serde; its result is
    /// written by serde. An error is retried unless it is a [`TaskError`](crate::TaskError) that
    /// says otherwise; a panic fails the attempt.
    #[must_use]
    pub fn task<F, T, Fut, O, E>(self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
        O: Serialize,
        E: Display + 'static,
    {
        Self { inner: self.inner.task(name, task), ..self }
    }

    /// A task that computes or blocks, and runs on a thread of its own. A long one has to check
    /// [`Context::is_cancelled`] from time to time, since nothing else can stop it.
    #[must_use]
    pub fn blocking_task<F, T, O, E>(self, name: impl Into<String>, task: F) -> Self
    where
        F: Fn(Context, T) -> Result<O, E> + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Display + 'static,
    {
        Self { inner: self.inner.blocking_task(name, task), ..self }
    }

    /// Never runs two attempts at one subtask of this task at the same time: running attempts are
    /// stopped when the worker loses its connection to Redis, before another worker may begin them.
    #[must_use]
    pub fn exclusive(self, task: impl Into<String>) -> Self {
        Self { inner: self.inner.exclusive(task), ..self }
    }

    /// Turns off speculative execution for this task: no second attempt is started beside one that
    /// takes much longer than others.
    #[must_use]
    pub fn without_speculation(self, task: impl Into<String>) -> Self {
        Self { inner: self.inner.non_speculative(task), ..self }
    }

    /// Runs once before the worker claims anything. If it fails, so does the worker.
    #[must_use]
    pub fn setup<F, Fut, E>(self, setup: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        Self { inner: self.inner.setup(setup), ..self }
    }

    /// Runs once after the last subtask.
    #[must_use]
    pub fn teardown<F, Fut>(self, teardown: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { inner: self.inner.teardown(teardown), ..self }
    }

    /// The number of subtasks that run side by side; one per core unless set.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        Self { inner: self.inner.slots(slots), ..self }
    }

    /// The queues that the worker serves; `default` unless set.
    #[must_use]
    pub fn queues<S: Into<String>>(self, queues: impl IntoIterator<Item = S>) -> Self {
        Self { inner: self.inner.queues(queues), ..self }
    }

    /// Labels of the worker, as text for people.
    #[must_use]
    pub fn labels(self, labels: BTreeMap<String, String>) -> Self {
        Self { inner: self.inner.labels(labels), ..self }
    }

    /// The absolute folders, and URLs such as `s3://bucket/prefix/`, below which the files and the
    /// results of jobs may lie; everywhere unless set. Subtasks of other jobs fail.
    #[must_use]
    pub fn allow_roots<S: Into<String>>(self, roots: impl IntoIterator<Item = S>) -> Self {
        let roots = roots.into_iter().map(Into::into).collect();
        Self { allow_roots: Some(roots), ..self }
    }

    /// Offers no built-in tasks (`wordcount`, `noop`, `sleep`, …), only those of the application.
    #[must_use]
    pub fn without_builtin_tasks(self) -> Self {
        Self { inner: self.inner.builtin_tasks(BuiltinTasks::none()), ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] with the name of the setting, what was found and what is allowed.
    pub fn build(self) -> Result<Worker, Error> {
        let mut inner = self.inner;
        if let Some(roots) = &self.allow_roots {
            let roots = AllowedRoots::new(roots);
            inner = inner.allow_roots(roots.map_err(BuildError::BadName)?);
        }
        Ok(Worker { inner: inner.build()? })
    }
}

impl Worker {
    /// Starts to build a worker.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::default()
    }

    /// Runs the worker as the whole of a program: logs to standard error (`RUST_LOG`), serves
    /// metrics at `LONGSHORE_HTTP_LISTEN`, and [runs](Self::run) with the services of
    /// [`Config::from_env`].
    pub async fn run_from_env(self) -> Result<(), Error> {
        telemetry::log();
        let config = Config::from_env()?;
        telemetry::serve_metrics(&config)?;
        self.run(&config).boxed().await
    }

    /// Runs until SIGTERM, SIGHUP or Ctrl-C. Waits for RabbitMQ and Redis while they are away, and
    /// logs that it does. The first signal drains the worker: nothing new starts, and running
    /// subtasks may finish. A second one ends the worker at once.
    ///
    /// # Errors
    /// When RabbitMQ or Redis refuses the login, when the set-up of the application fails, and
    /// after a second signal.
    pub async fn run(self, config: &Config) -> Result<(), Error> {
        let signals =
            |error| Error::new(ErrorKind::Other, format!("can't follow signals: {error}"));
        let mut requests = StopRequests::follow(CancellationToken::new()).map_err(signals)?;
        let ledger = Arc::new(RedisLedger::connect(config.redis())?);
        let broker =
            Arc::new(Rabbit::start(config.rabbit(&format!("worker {}", self.inner.id())))?);
        let ready = async {
            ledger.ready().await?;
            broker.ready().await?;
            Ok::<(), Error>(())
        }
        .boxed();
        let outcome = tokio::select! {
            ready = ready => match ready {
                Ok(()) => {
                    run_until_stopped(self.inner, &broker, &ledger, &mut requests).boxed().await
                }
                Err(error) => Err(error),
            },
            () = requests.next() => Ok(()),
        };
        broker.close(CLOSE_WITHIN).await;
        outcome
    }

    pub(crate) fn into_inner(self) -> longshore_worker::Worker {
        self.inner
    }
}

async fn run_until_stopped(
    worker: longshore_worker::Worker,
    broker: &Arc<Rabbit>,
    ledger: &Arc<RedisLedger>,
    requests: &mut StopRequests,
) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let running = worker.run(broker.clone(), ledger.clone(), shutdown.clone()).boxed();
    let interrupted = async {
        requests.next().await;
        info!("draining; a second signal ends the worker at once");
        shutdown.cancel();
        requests.next().await;
    };
    tokio::select! {
        outcome = running => Ok(outcome?),
        () = interrupted => Err(longshore_worker::Error::Interrupted.into()),
    }
}
