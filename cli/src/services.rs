//! Connects verbs to a server, or to RabbitMQ and Redis.
//!
//! Commands connect with a short limit, schedulers and workers wait until both services are there.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_producer::{ApiSecret, ApiTokens, Client, DeadLetters, Jobs, Nodes, ServerSettings};

use crate::failure::Failure;
use crate::local_server;
use crate::output::talk;
use crate::settings::{NO_TOKEN, Reach, Settings};

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

/// The server that the commands of a client use; `None` for RabbitMQ and Redis themselves.
async fn server(settings: &Settings) -> Result<Option<Client>, Failure> {
    let (url, token) = match &settings.reach {
        Reach::Services => return Ok(None),
        Reach::Server(url) => (url.clone(), token(settings)?),
        Reach::Unsaid => match local_server::find().await {
            None => return Ok(None),
            Some(url) => {
                talk(format_args!("using `longshore dev` at {url}"));
                (url, None)
            }
        },
    };
    let server = ServerSettings::new(url).token(token).tls(settings.tls.clone());
    Ok(Some(Client::http(&server)?))
}

/// The API token of the settings.
fn token(settings: &Settings) -> Result<Option<ApiSecret>, Failure> {
    let Some(file) = settings.token_file.as_ref().filter(|_| settings.token.is_none()) else {
        return Ok(settings.token.clone());
    };
    let wrong = |reason: String| Failure::usage(format_args!("token_file: {reason}")).of_settings();
    let token = ApiSecret::parse(&longshore_storage::read_setting(file).map_err(wrong)?);
    token.map(Some).ok_or_else(|| wrong(format!("{}: {NO_TOKEN}", file.display())))
}

/// A client that reads and controls jobs.
pub(crate) async fn jobs(settings: &Settings) -> Result<Jobs, Failure> {
    match server(settings).await? {
        Some(client) => Ok(client.jobs().clone()),
        None => {
            let jobs = Jobs::new(Arc::new(ledger(settings)?));
            Ok(jobs.within(settings.restrictions.allow_roots.clone()))
        }
    }
}

/// A client that lists and controls workers.
pub(crate) async fn nodes(settings: &Settings) -> Result<Nodes, Failure> {
    match server(settings).await? {
        Some(client) => Ok(client.nodes()),
        None => Ok(Nodes::new(Arc::new(ledger(settings)?))),
    }
}

/// A client that lists, creates and revokes API tokens.
pub(crate) async fn tokens(settings: &Settings) -> Result<ApiTokens, Failure> {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let who = format!("{} (command line)", user.as_deref().unwrap_or("unknown user"));
    Ok(match server(settings).await? {
        Some(client) => client.tokens(),
        None => ApiTokens::new(Arc::new(ledger(settings)?)).recorded_as(who),
    })
}

/// A client that handles dead letters, and the connection to close behind it.
pub(crate) async fn dead_letters(
    settings: &Settings,
) -> Result<(DeadLetters, Option<Arc<Rabbit>>), Failure> {
    if let Some(client) = server(settings).await? {
        return Ok((client.dead_letters(), None));
    }
    let rabbit = rabbit(settings, "longshore dead").await?;
    Ok((DeadLetters::new(rabbit.clone()), Some(rabbit)))
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

/// A client that submits jobs, for an interactive command.
pub(crate) async fn client(settings: &Settings) -> Result<Client, Failure> {
    match server(settings).await? {
        Some(client) => Ok(client),
        None => direct_client(settings).await,
    }
}

/// A client with working connections to both services.
pub(crate) async fn direct_client(settings: &Settings) -> Result<Client, Failure> {
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
