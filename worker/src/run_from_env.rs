//! Runs a worker in a program of your own: connects by environment variables, drains on a signal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_tls::TlsFiles;
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
    RedisLedger::connect(redis_config()?)?;
    let connect = || -> io::Result<Arc<dyn Ledger>> {
        let config = redis_config().map_err(io::Error::other)?;
        Ok(Arc::new(RedisLedger::connect(config).map_err(io::Error::other)?))
    };
    let code = supervise(connect).map_err(Error::Supervisor)?;
    std::process::exit(code.into())
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn namespace() -> String {
    given("LONGSHORE_NAMESPACE").unwrap_or("longshore".into())
}

/// The URL in a variable, or in the file that the variable with `_FILE` names; the reason if that
/// file can't be used.
fn url(name: &str, default: &str) -> Result<String, String> {
    let of_file = format!("{name}_FILE");
    match (given(name), given(&of_file)) {
        (Some(_), Some(_)) => Err(format!("both {name} and {of_file} are set; set one of them")),
        (None, Some(file)) => longshore_storage::read_setting(Path::new(&file)),
        (url, None) => Ok(url.unwrap_or(default.into())),
    }
}

fn tls() -> TlsFiles {
    let path = |name: &str| given(name).map(PathBuf::from);
    TlsFiles {
        ca: path("LONGSHORE_TLS_CA"),
        cert: path("LONGSHORE_TLS_CERT"),
        key: path("LONGSHORE_TLS_KEY"),
    }
}

fn redis_config() -> Result<redis::Config, longshore_ledger::Error> {
    let url = url("LONGSHORE_REDIS_URL", "redis://127.0.0.1:6379");
    let url = url.map_err(longshore_ledger::Error::BadUrl)?;
    let mut config = redis::Config::new(url, namespace());
    config.tls = tls();
    Ok(config)
}

fn rabbit_config(name: String) -> Result<rabbit::Config, longshore_broker::Error> {
    let url = url("LONGSHORE_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
    let mut config = rabbit::Config::new(url.map_err(longshore_broker::Error::BadUrl)?, name);
    config.namespace = namespace();
    config.tls = tls();
    Ok(config)
}

impl Worker {
    /// Runs with the RabbitMQ of `LONGSHORE_AMQP_URL`, the Redis of `LONGSHORE_REDIS_URL` and the
    /// namespace of `LONGSHORE_NAMESPACE`; unless set, those of this host and `longshore`.
    /// `LONGSHORE_AMQP_URL_FILE` and `LONGSHORE_REDIS_URL_FILE` name files with the URLs instead;
    /// `LONGSHORE_TLS_CA`, `LONGSHORE_TLS_CERT` and `LONGSHORE_TLS_KEY` files for TLS. SIGTERM,
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
        let mut requests = StopRequests::follow(self.drain.clone()).map_err(Error::Signals)?;
        let ledger = Arc::new(RedisLedger::connect(redis_config()?)?);
        let broker = Arc::new(Rabbit::start(rabbit_config(format!("worker {}", self.id))?)?);

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
