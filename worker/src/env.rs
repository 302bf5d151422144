//! A worker for those who write their own: connects by the environment and drains on a signal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{Error, StopRequests, Watched, Worker, shim, watch, watched};

/// How long what is on its way to RabbitMQ may take at the end.
const CLOSE: Duration = Duration::from_secs(2);

/// Splits the program in two: a worker, for which this comes back at once, and the process that
/// started it and watches it ([`watch`]), with the Redis of the environment. That one never comes
/// back from this: it ends when there is nothing left to watch. What comes before it is done by
/// both, so check there what can be checked and do nothing else.
///
/// ```no_run
/// use longshore_worker::{Worker, supervise_from_env};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let worker = Worker::builder().build()?;
/// let watched = supervise_from_env().await?;
/// // From here on this is the worker, and it may crash.
/// worker.watched(watched).run_from_env().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors When the address of Redis can't be understood, the program can't be started again, or
/// signals can't be followed.
pub async fn supervise_from_env() -> Result<Watched, Error> {
    // A shim begins where the worker does: what this program needs to come here, it needs there.
    shim::init_with(std::env::args_os().skip(1));
    if let Some(watched) = watched().map_err(Error::Supervisor)? {
        return Ok(watched);
    }
    RedisLedger::connect(redis_config())?;
    let connect = || -> io::Result<Arc<dyn Ledger>> {
        Ok(Arc::new(RedisLedger::connect(redis_config()).map_err(io::Error::other)?))
    };
    let code = watch(connect).map_err(Error::Supervisor)?;
    std::process::exit(code.into())
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or(default.into())
}

fn redis_config() -> redis::Config {
    let url = setting("LONGSHORE_REDIS_URL", "redis://127.0.0.1:6379");
    redis::Config::new(url, setting("LONGSHORE_NAMESPACE", "longshore"))
}

impl Worker {
    /// Runs against the RabbitMQ of `LONGSHORE_AMQP_URL` and the Redis of `LONGSHORE_REDIS_URL`,
    /// under the names of `LONGSHORE_NAMESPACE`; on this machine and as `longshore` where they are
    /// not set. SIGTERM, SIGHUP and Ctrl-C drain; a second signal ends the worker at once.
    ///
    /// ```no_run
    /// use longshore_worker::{Context, TaskResult, Worker};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let worker = Worker::builder()
    ///     .task("square", |_: Context, n: f64| async move { TaskResult::Ok(n * n) })
    ///     .build()?;
    /// worker.run_from_env().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_from_env(self) -> Result<(), Error> {
        let namespace = setting("LONGSHORE_NAMESPACE", "longshore");
        let amqp = setting("LONGSHORE_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
        let mut requests = StopRequests::follow(self.drain.clone()).map_err(Error::Signals)?;
        let ledger = Arc::new(RedisLedger::connect(redis_config())?);
        let name = format!("worker {}", self.id);
        let broker = Rabbit::start(rabbit::Config { namespace, ..rabbit::Config::new(amqp, name) });
        let broker = Arc::new(broker?);

        let shutdown = CancellationToken::new();
        let interrupted = async {
            requests.next().await;
            info!("draining; a second signal ends the worker at once");
            shutdown.cancel();
            requests.next().await;
        };
        let outcome = tokio::select! {
            outcome = self.run(broker.clone(), ledger, shutdown.clone()) => outcome,
            () = interrupted => Err(Error::Interrupted),
        };
        broker.close(CLOSE).await;
        outcome
    }
}
