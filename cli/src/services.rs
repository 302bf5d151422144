//! The services that most verbs speak to, and how to wait for them.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_producer::{Client, Jobs};

use crate::failure::Failure;
use crate::settings::Settings;

/// How long a command that somebody waits for tries to reach RabbitMQ.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a good-bye to RabbitMQ may take.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The ledger. Connects when it is first asked something.
pub(crate) fn ledger(settings: &Settings) -> Result<RedisLedger, Failure> {
    Ok(RedisLedger::connect(redis::Config::new(&settings.redis_url, &settings.namespace))?)
}

/// Jobs to read and control.
pub(crate) fn jobs(settings: &Settings) -> Result<Jobs, Failure> {
    Ok(Jobs::new(Arc::new(ledger(settings)?)))
}

/// How to reach RabbitMQ; `name` is what it shows for us.
pub(crate) fn rabbit_config(settings: &Settings, name: &str) -> rabbit::Config {
    let mut config = rabbit::Config::new(&settings.amqp_url, name);
    config.namespace.clone_from(&settings.namespace);
    config.work_queue_kind = settings.work_queues;
    config
}

/// Both services, there and ready, for a command that somebody waits for.
pub(crate) async fn client(settings: &Settings) -> Result<Client, Failure> {
    let ledger = ledger(settings)?;
    ledger.now().await?;
    let rabbit = Rabbit::start(rabbit_config(settings, "longshore submit"))?;
    if let Err(error) = rabbit.connected(CONNECT_WITHIN).await {
        rabbit.close(Duration::ZERO).await;
        return Err(error.into());
    }
    Ok(Client::new(Arc::new(rabbit), Arc::new(ledger)))
}

/// Both services, for a scheduler or a worker.
pub(crate) struct Services {
    pub(crate) broker: Arc<Rabbit>,
    pub(crate) ledger: Arc<RedisLedger>,
}

impl Services {
    /// Starts to connect to both.
    pub(crate) fn start(settings: &Settings, name: &str) -> Result<Self, Failure> {
        let ledger = Arc::new(ledger(settings)?);
        let broker = Arc::new(Rabbit::start(rabbit_config(settings, name))?);
        Ok(Self { broker, ledger })
    }

    /// Waits until both are there, with a line for each change; gives up only where waiting can't help: when they
    /// refuse the login.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        self.ledger.ready().await?;
        Ok(self.broker.ready().await?)
    }

    /// Says good-bye to RabbitMQ; Redis needs none.
    pub(crate) async fn close(&self) {
        self.broker.close(CLOSE_WITHIN).await;
    }
}
