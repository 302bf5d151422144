//! Runs a worker in a program of your own: connects by environment variables, drains on a signal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{Error, StopRequests, Supervised, Worker, shim, supervise, supervised};

/// How long the last messages to RabbitMQ may take.
const CLOSE: Duration = Duration::from_secs(2);

/// Splits the program in two processes: the worker, where this function returns at once, and its
/// supervisor ([`supervise`]), where it never returns: the supervisor ends with the worker. It
/// tells the Redis of the environment about crashes. Both processes run the code before this call,
/// so use that code for checks only.
///
/// ```no_run
/// use longshore_worker::{Worker, supervise_from_env};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let worker = Worker::builder().build()?;
/// let supervised = supervise_from_env().await?;
/// // From here on this is the worker, and it may crash.
/// worker.supervised(supervised).run_from_env().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors When the address of Redis is invalid, the program can't be started again, or signals
/// can't be followed.
pub async fn supervise_from_env() -> Result<Supervised, Error> {
    // Shims start with the arguments of the worker: the program needs them to reach this line.
    shim::init_with(std::env::args_os().skip(1));
    if let Some(supervised) = supervised().map_err(Error::Supervisor)? {
        return Ok(supervised);
    }
    RedisLedger::connect(redis_config())?;
    let connect = || -> io::Result<Arc<dyn Ledger>> {
        Ok(Arc::new(RedisLedger::connect(redis_config()).map_err(io::Error::other)?))
    };
    let code = supervise(connect).map_err(Error::Supervisor)?;
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
    /// Runs with the RabbitMQ of `LONGSHORE_AMQP_URL`, the Redis of `LONGSHORE_REDIS_URL` and the
    /// namespace of `LONGSHORE_NAMESPACE`; unless set, those of this host and `longshore`. SIGTERM,
    /// SIGHUP and Ctrl-C drain the worker; a second signal ends it at once.
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
