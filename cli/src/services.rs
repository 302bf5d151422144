//! The services that most verbs speak to, and how to wait for them.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::redis::{self, RedisLedger};
use longshore_ledger::{Cause, Error, Ledger};
use longshore_producer::{Client, Jobs};
use tracing::{info, warn};

use crate::failure::Failure;
use crate::settings::Settings;

/// How long a command that somebody waits for tries to reach RabbitMQ.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The wait between two looks at a service that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
        await_ledger(&self.ledger).await?;
        await_rabbit(&self.broker).await
    }

    /// Says good-bye to RabbitMQ; Redis needs none.
    pub(crate) async fn close(&self) {
        self.broker.close(CLOSE_WITHIN).await;
    }
}

async fn await_ledger(ledger: &RedisLedger) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let reason = match ledger.load_functions().await {
            Ok(()) => {
                info!(ledger = %ledger.describe(), "connected");
                return Ok(());
            }
            Err(error @ Error::Unavailable { .. })
                if !error.cause().is_some_and(Cause::is_refusal) =>
            {
                error.to_string()
            }
            Err(error) => return Err(error.into()),
        };
        if told != reason {
            warn!(error = %reason, "waiting");
            told = reason;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The connection's own supervision tells each change; what is left to see is whether waiting makes sense.
async fn await_rabbit(rabbit: &Rabbit) -> Result<(), Failure> {
    loop {
        match rabbit.connected(LOOK_AGAIN).await {
            Ok(()) => return Ok(()),
            Err(error) if is_refusal(&error.to_string()) => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// Whether RabbitMQ is there and does not want us: then no waiting helps. It says so in words only.
fn is_refusal(reason: &str) -> bool {
    ["ACCESS_REFUSED", "NOT_ALLOWED"].iter().any(|word| reason.contains(word))
}
