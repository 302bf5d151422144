//! Connects verbs to RabbitMQ and Redis: with a short limit, or for services until both are there.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_producer::{Client, Jobs, Nodes};

use crate::failure::Failure;
use crate::settings::Settings;

/// The longest wait of an interactive command for RabbitMQ.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The longest wait for the close of the RabbitMQ connection.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The ledger in Redis, which connects on its first operation.
pub(crate) fn ledger(settings: &Settings) -> Result<RedisLedger, Failure> {
    let mut config = redis::Config::new(&settings.redis_url, &settings.namespace);
    config.tls.clone_from(&settings.tls);
    Ok(RedisLedger::connect(config)?)
}

/// A client that reads and controls jobs.
pub(crate) fn jobs(settings: &Settings) -> Result<Jobs, Failure> {
    let jobs = Jobs::new(Arc::new(ledger(settings)?));
    Ok(jobs.within(settings.restrictions.allow_roots.clone()))
}

/// A client that lists and controls workers.
pub(crate) fn nodes(settings: &Settings) -> Result<Nodes, Failure> {
    Ok(Nodes::new(Arc::new(ledger(settings)?)))
}

/// How to reach RabbitMQ; `name` is the name of the connection there.
pub(crate) fn rabbit_config(settings: &Settings, name: &str) -> rabbit::Config {
    let mut config = rabbit::Config::new(&settings.amqp_url, name);
    config.namespace.clone_from(&settings.namespace);
    config.tls.clone_from(&settings.tls);
    config.work_queue_kind = settings.work_queues;
    config
}

/// A working connection to RabbitMQ, for an interactive command.
pub(crate) async fn rabbit(settings: &Settings, name: &str) -> Result<Arc<Rabbit>, Failure> {
    let rabbit = Rabbit::start(rabbit_config(settings, name))?;
    if let Err(error) = rabbit.connected(CONNECT_WITHIN).await {
        rabbit.close(Duration::ZERO).await;
        return Err(error.into());
    }
    Ok(Arc::new(rabbit))
}

/// A client with working connections to both services, for an interactive command.
pub(crate) async fn client(settings: &Settings) -> Result<Client, Failure> {
    let ledger = ledger(settings)?;
    ledger.now().await?;
    let rabbit = rabbit(settings, "longshore submit").await?;
    let client = Client::new(rabbit, Arc::new(ledger));
    Ok(client.within(settings.restrictions.allow_roots.clone()))
}

/// The connections of a scheduler or a worker.
pub(crate) struct Services {
    pub(crate) broker: Arc<Rabbit>,
    pub(crate) ledger: Arc<RedisLedger>,
}

impl Services {
    /// Starts to connect to both services.
    pub(crate) fn start(settings: &Settings, name: &str) -> Result<Self, Failure> {
        let ledger = Arc::new(ledger(settings)?);
        let broker = Arc::new(Rabbit::start(rabbit_config(settings, name))?);
        Ok(Self { broker, ledger })
    }

    /// Waits until both services are available, and logs each change. Fails only if waiting can't
    /// help, because the login is refused.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        self.ledger.ready().await?;
        Ok(self.broker.ready().await?)
    }

    /// Waits until a service refuses the login, which may be never. Logs as [`Self::ready`] does.
    pub(crate) async fn refused(&self) -> Failure {
        match self.ready().await {
            Err(failure) => failure,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Closes the connection to RabbitMQ; Redis needs no close.
    pub(crate) async fn close(&self) {
        self.broker.close(CLOSE_WITHIN).await;
    }
}
