//! A worker for those who write their own: connects by the environment and drains on a signal.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::redis::{self, RedisLedger};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{Error, Worker};

/// How long what is on its way to RabbitMQ may take at the end.
const CLOSE: Duration = Duration::from_secs(2);

impl Worker {
    /// Runs against the RabbitMQ of `LONGSHORE_AMQP_URL` and the Redis of `LONGSHORE_REDIS_URL`,
    /// under the names of `LONGSHORE_NAMESPACE`; on this machine and as `longshore` where they are
    /// not set. SIGTERM and Ctrl-C drain; a second signal ends the worker at once.
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
        let setting = |name: &str, default: &str| {
            std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or(default.into())
        };
        let namespace = setting("LONGSHORE_NAMESPACE", "longshore");
        let amqp = setting("LONGSHORE_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
        let redis = setting("LONGSHORE_REDIS_URL", "redis://127.0.0.1:6379");

        let mut signals = Signals::new()?;
        let mut config = redis::Config::new(redis, namespace.clone());
        // Slots commit side by side; each connection carries one request at a time.
        config.pool_size = config.pool_size.max(self.config.slots as usize);
        let ledger = Arc::new(RedisLedger::connect(config)?);
        let name = format!("worker {}", self.id);
        let broker = Rabbit::start(rabbit::Config { namespace, ..rabbit::Config::new(amqp, name) });
        let broker = Arc::new(broker?);

        let shutdown = CancellationToken::new();
        let interrupted = async {
            signals.next().await;
            info!("draining; a second signal ends the worker at once");
            shutdown.cancel();
            signals.next().await;
        };
        let outcome = tokio::select! {
            outcome = self.run(broker.clone(), ledger, shutdown.clone()) => outcome,
            () = interrupted => Err(Error::Interrupted),
        };
        broker.close(CLOSE).await;
        outcome
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
