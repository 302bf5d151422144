//! Connections to Redis: a bounded pool for one server, for the master that sentinels name, or for
//! a cluster.
//!
//! Every wait has an end. A connection that timed out, broke, or turned out to lead to a replica is
//! taken out of the pool: what it still answers belongs to nobody. Deliberately absent: retries;
//! whoever repeats an operation knows that it is idempotent.

use std::future::Future;
use std::time::Duration;

use deadpool_redis::sentinel::{self, SentinelNodeConnectionInfo, SentinelServerType, TlsMode};
use deadpool_redis::{PoolConfig, RedisConnectionInfo, Runtime, Timeouts, cluster};
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, PubSub};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};

use super::Config;
use super::address::Address;
use crate::Error;

/// What went wrong below an operation.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answered in time; whether the command ran is unknown.
    TimedOut(String),
    /// Redis refused, or the connection broke.
    Redis(RedisError),
    /// The pool could not give a connection.
    Pool(String),
}

impl Failure {
    /// For people.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::TimedOut(what) | Self::Pool(what) => what.clone(),
            Self::Redis(error) => error.to_string(),
        }
    }

    /// Whether user or password are wrong.
    pub(super) fn is_authentication(&self) -> bool {
        let words = ["WRONGPASS", "NOAUTH", "AuthenticationFailed"];
        matches!(self, Self::Redis(e) if e.kind() == ErrorKind::AuthenticationFailed)
            || words.iter().any(|word| self.reason().contains(word))
    }

    /// Whether the user may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code() == Some("NOPERM")
    }

    /// The first word of an error that Redis replied with.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::TimedOut(_) | Self::Pool(_) => None,
        }
    }
}

enum Pool {
    Alone(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

enum Wire {
    Alone(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

/// A pool and the times that it grants.
pub(super) struct Transport {
    address: Address,
    pool: Pool,
    response: Duration,
    connect: Duration,
}

impl Transport {
    /// Connects when it is first needed.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let pool = pool(&address, config).map_err(Error::BadUrl)?;
        let (response, connect) = (config.response_timeout, config.connect_timeout);
        Ok(Self { address, pool, response, connect })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.pool, Pool::Cluster(_))
    }

    /// Sends one command, in a cluster to the node that its first key says.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let mut wire = self.wire().await?;
        let sent = self.in_time(wire.as_connection().req_packed_command(cmd)).await;
        wire.keep_if_sound(sent.and_then(sound))
    }

    /// Sends one command that every node answers alike; in a cluster one of them is asked.
    pub(super) async fn run_anywhere(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let mut wire = self.wire().await?;
        let Wire::Cluster(connection) = &mut wire else {
            let sent = self.in_time(wire.as_connection().req_packed_command(cmd)).await;
            return wire.keep_if_sound(sent.and_then(sound));
        };
        let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        let sent = self.in_time(connection.route_command(cmd.clone(), anywhere)).await;
        wire.keep_if_sound(sent.and_then(sound))
    }

    /// Sends commands together and gives all answers. In a cluster they go to the nodes that their
    /// keys say.
    pub(super) async fn run_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut wire = self.wire().await?;
        let sent = if let Wire::Cluster(connection) = &mut wire {
            let each = commands.iter().map(|cmd| {
                let mut connection = (**connection).clone();
                async move { connection.req_packed_command(cmd).await }
            });
            self.in_time(try_join_all(each)).await
        } else {
            let mut pipeline = Pipeline::with_capacity(commands.len());
            for cmd in commands {
                pipeline.add_command(cmd.clone());
            }
            let count = commands.len();
            self.in_time(wire.as_connection().req_packed_commands(&pipeline, 0, count)).await
        };
        let checked =
            sent.and_then(|values| values.into_iter().map(sound).collect::<Result<Vec<_>, _>>());
        wire.keep_if_sound(checked)
    }

    /// A connection of its own that follows a channel. `turn` picks the node of a cluster.
    pub(super) async fn subscribe(&self, channel: &str, turn: usize) -> Result<PubSub, Failure> {
        let connecting = async {
            let client = match &self.address {
                Address::Alone(info) => Client::open(info.clone())?,
                Address::Cluster(nodes) => Client::open(nodes[turn % nodes.len()].clone())?,
                Address::Sentinel { .. } => self.sentinel_client()?.async_get_client().await?,
            };
            let mut connection = client.get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            Ok(connection)
        };
        within(self.connect + self.response, "connecting", connecting).await
    }

    fn sentinel_client(&self) -> RedisResult<redis::sentinel::SentinelClient> {
        let Address::Sentinel { sentinels, master, node, tls } = &self.address else {
            return Err((ErrorKind::InvalidClientConfig, "no sentinels").into());
        };
        redis::sentinel::SentinelClient::build(
            sentinels.clone(),
            master.clone(),
            Some(node_info(node, *tls).into()),
            redis::sentinel::SentinelServerType::Master,
        )
    }

    async fn wire(&self) -> Result<Wire, Failure> {
        let limit = self.connect + self.response;
        let checkout = async {
            Ok(match &self.pool {
                Pool::Alone(pool) => Wire::Alone(pool.get().await.map_err(pool_failure)?),
                Pool::Sentinel(pool) => {
                    let mut connection = pool.get().await.map_err(pool_failure)?;
                    connection.set_response_timeout(self.response);
                    Wire::Sentinel(connection)
                }
                Pool::Cluster(pool) => Wire::Cluster(pool.get().await.map_err(pool_failure)?),
            })
        };
        match tokio::time::timeout(limit, checkout).await {
            Ok(wire) => wire,
            Err(_) => Err(Failure::TimedOut(format!("no connection within {limit:?}"))),
        }
    }

    async fn in_time<T>(&self, sent: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        within(self.response, "waiting for an answer", sent).await
    }
}

/// An error that Redis replied with comes as a value from some connections.
fn sound(value: Value) -> Result<Value, Failure> {
    value.extract_error().map_err(Failure::Redis)
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    what: impl Future<Output = RedisResult<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, what).await {
        Ok(done) => done.map_err(Failure::Redis),
        Err(_) => Err(Failure::TimedOut(format!("timed out after {limit:?} {doing}"))),
    }
}

impl Wire {
    fn as_connection(&mut self) -> &mut (dyn ConnectionLike + Send) {
        match self {
            Self::Alone(connection) => connection,
            Self::Sentinel(connection) => connection,
            Self::Cluster(connection) => connection,
        }
    }

    /// Puts the connection back into the pool, or drops it if nothing good can come of it any more.
    fn keep_if_sound<T>(self, sent: Result<T, Failure>) -> Result<T, Failure> {
        if sent.as_ref().is_err_and(breaks_connection) {
            match self {
                Self::Alone(connection) => drop(deadpool_redis::Connection::take(connection)),
                Self::Sentinel(connection) => drop(sentinel::Connection::take(connection)),
                Self::Cluster(connection) => drop(cluster::Connection::take(connection)),
            }
        }
        sent
    }
}

fn breaks_connection(failure: &Failure) -> bool {
    match failure {
        Failure::TimedOut(_) | Failure::Pool(_) => true,
        Failure::Redis(error) => {
            let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
            error.is_io_error()
                || error.is_timeout()
                || error.is_unrecoverable_error()
                || error.kind() == read_only
        }
    }
}

fn pool_failure(error: deadpool_redis::PoolError) -> Failure {
    match error {
        deadpool_redis::PoolError::Backend(error) => Failure::Redis(error),
        other => Failure::Pool(other.to_string()),
    }
}

fn pool(address: &Address, config: &Config) -> Result<Pool, String> {
    let limit = config.connect_timeout + config.response_timeout;
    let pool_config = PoolConfig {
        max_size: config.pool_size.max(1),
        timeouts: Timeouts {
            wait: Some(limit),
            create: Some(config.connect_timeout),
            recycle: Some(config.response_timeout),
        },
        ..PoolConfig::default()
    };
    let text = |e: RedisError| e.to_string();
    Ok(match address {
        Address::Alone(info) => {
            let times = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(config.connect_timeout))
                .set_response_timeout(Some(config.response_timeout));
            let manager =
                deadpool_redis::Manager::new_with_config(info.clone(), times).map_err(text)?;
            let builder = deadpool_redis::Pool::builder(manager).config(pool_config);
            Pool::Alone(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
        }
        Address::Sentinel { sentinels, master, node, tls } => {
            let manager = sentinel::Manager::new(
                sentinels.clone(),
                master.clone(),
                Some(node_info(node, *tls)),
                SentinelServerType::Master,
            )
            .map_err(text)?;
            let builder = sentinel::Pool::builder(manager).config(pool_config);
            Pool::Sentinel(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
        }
        Address::Cluster(nodes) => {
            let manager = cluster::Manager::new(nodes.clone(), false).map_err(text)?;
            let builder = cluster::Pool::builder(manager).config(pool_config);
            Pool::Cluster(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
        }
    })
}

fn node_info(node: &redis::ConnectionInfo, tls: bool) -> SentinelNodeConnectionInfo {
    SentinelNodeConnectionInfo {
        tls_mode: tls.then_some(TlsMode::Secure),
        redis_connection_info: Some(RedisConnectionInfo::from(node.redis_settings().clone())),
    }
}
