//! Sends commands to Redis within time limits: to a server, a sentinel's master, or a cluster.
//!
//! It also opens the connections on which hints are followed, and classifies failures.
//!
//! Deliberately absent: the choice of a connection (see `connections`), and retries while Redis is
//! away, which are up to the caller.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use longshore_protocol::ErrorKind;
use longshore_tls::{CertificateProblem, TlsFiles};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, RedisError, RedisResult, Value,
};
use tokio::sync::mpsc;

use super::Config;
use super::address::Address;
use super::connections::{Connection, Connections, diagnosed};
use super::error_kind;
use super::pool;
use crate::Error;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer arrived in time. Whether the command ran is unknown.
    TimedOut(String),
    /// Redis answered with an error, or the connection broke.
    Redis(RedisError),
    /// No connection could be opened.
    NoConnection { kind: ErrorKind, reason: String },
}

impl Failure {
    /// The reason for display.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::TimedOut(reason) | Self::NoConnection { reason, .. } => reason.clone(),
            Self::Redis(error) => error.to_string(),
        }
    }

    /// The kind of failure, for programs.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut(_) => ErrorKind::Timeout,
            Self::NoConnection { kind, .. } => *kind,
            Self::Redis(error) => error_kind::of(error),
        }
    }

    /// What is wrong with a certificate, if the client library's error tells.
    pub(super) fn certificate_problem(&self) -> Option<CertificateProblem> {
        match self {
            Self::Redis(error) => error_kind::certificate_problem(error),
            Self::TimedOut(_) | Self::NoConnection { .. } => None,
        }
    }

    /// Whether the connection is unusable from now on.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::NoConnection { .. } => true,
            Self::Redis(error) => {
                error.is_io_error()
                    || error.is_timeout()
                    || error.is_unrecoverable_error()
                    || self.kind() == ErrorKind::ReadOnly
            }
        }
    }

    /// Whether the connection was closed: usually before anything was sent, while it was idle.
    pub(super) fn is_hung_up(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_dropped())
    }

    /// The first word of an error that Redis answered with.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::TimedOut(_) | Self::NoConnection { .. } => None,
        }
    }
}

/// The most pushed messages that wait to be read. A subscriber that falls further behind receives a
/// gap.
const PUSHES: usize = 1_024;

/// A connection that is subscribed to a channel.
pub(super) struct Followed {
    pub(super) connection: MultiplexedConnection,
    pub(super) pushes: mpsc::Receiver<PushInfo>,
    /// Set when a push was dropped because the queue was full.
    pub(super) lost: Arc<AtomicBool>,
    /// The connection's line of `CLIENT INFO`, if this user may read it.
    pub(super) line: Option<String>,
    /// The `run_id` of the server, if this user may read it.
    pub(super) run: Option<String>,
    /// The round trip times of the first three commands.
    pub(super) round_trips: [Duration; 3],
}

/// Connections and their time limits.
pub(super) struct Transport {
    address: Address,
    files: TlsFiles,
    connections: Connections,
    response: Duration,
    connect: Duration,
}

impl Transport {
    /// Connects when a connection is first needed.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        longshore_tls::install_crypto_provider();
        let address = Address::parse(&config.url)?;
        let connections = Connections::new(&address, config).map_err(Error::BadUrl)?;
        let (response, connect) = (config.response_timeout, config.connect_timeout);
        Ok(Self { address, files: config.tls.clone(), connections, response, connect })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.connections.is_cluster()
    }

    /// Sends one command, in a cluster to the node that serves its first key.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value, Failure> {
        self.send(|mut connection| async move {
            connection.as_connection().req_packed_command(cmd).await
        })
        .await
        .and_then(checked)
    }

    /// Sends one command that every node answers alike, in a cluster to a random node.
    pub(super) async fn run_anywhere(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let ask = |connection| async move {
            match connection {
                Connection::One(mut connection) => connection.req_packed_command(cmd).await,
                Connection::Cluster(mut connection) => {
                    let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                    connection.route_command(cmd.clone(), anywhere).await
                }
            }
        };
        self.send(ask).await.and_then(checked)
    }

    /// The server's name of the connection that carries all requests of a handle with few requests.
    pub(super) async fn name(&self) -> Option<String> {
        self.connections.name().await
    }

    /// Sends commands so that each has run before the next one starts, and returns all answers.
    pub(super) async fn run_in_order(&self, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        if !self.is_cluster() {
            return self.run_all(commands).await;
        }
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(self.run(command).await?);
        }
        Ok(answers)
    }

    /// Sends commands together and returns all answers. In a cluster they go to the nodes that
    /// serve their keys, in no particular order.
    pub(super) async fn run_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let ask = |connection| async move {
            match connection {
                Connection::One(mut connection) => {
                    let mut pipeline = Pipeline::with_capacity(commands.len());
                    for cmd in commands {
                        pipeline.add_command(cmd.clone());
                    }
                    connection.req_packed_commands(&pipeline, 0, commands.len()).await
                }
                Connection::Cluster(connection) => {
                    let each = commands.iter().map(|cmd| {
                        let mut connection = connection.clone();
                        async move { connection.req_packed_command(cmd).await }
                    });
                    try_join_all(each).await
                }
            }
        };
        self.send(ask).await?.into_iter().map(checked).collect()
    }

    /// Sends a request on one of the connections, and once more on another one if the first turns
    /// out to be closed. Every request may be repeated: operations are idempotent.
    async fn send<T, F>(&self, send: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let first = self.connections.lease().await?;
        match first.end(self.in_time(send(first.connection())).await) {
            Err(failure) if failure.is_hung_up() => {
                let second = self.connections.lease().await?;
                second.end(self.in_time(send(second.connection())).await)
            }
            sent => sent,
        }
    }

    /// A separate connection to the server on which all workers and schedulers register theirs.
    pub(super) async fn connect_to_registry(&self) -> Result<MultiplexedConnection, Failure> {
        let info = self.registry_server().await?;
        self.connect(info, self.times()).await
    }

    /// A connection to the same server that is subscribed to a channel.
    pub(super) async fn follow(&self, channel: &str) -> Result<Followed, Failure> {
        let (sender, pushes) = mpsc::channel(PUSHES);
        let lost = Arc::new(AtomicBool::new(false));
        let losing = lost.clone();
        let times = self.times().set_push_sender(move |push| {
            let sent = sender.try_send(push);
            losing.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent
        });
        let info = self.registry_server().await?;
        // The older protocol allows no other commands on a connection with a subscription.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let mut connection = self.connect(info.set_redis_settings(settings), times).await?;
        let who = redis::cmd("CLIENT").arg("INFO").to_owned();
        let begun = Instant::now();
        let line = self.in_time(who.query_async::<String>(&mut connection)).await.ok();
        let first = begun.elapsed();
        let run = self.run_id(&mut connection).await;
        let second = begun.elapsed();
        self.in_time(connection.subscribe(channel)).await?;
        let round_trips = [first, second - first, begun.elapsed() - second];
        Ok(Followed { connection, pushes, lost, line, run, round_trips })
    }

    /// The id of a server process (`run_id`), if this user may read it.
    pub(super) async fn run_id(&self, connection: &mut MultiplexedConnection) -> Option<String> {
        let info = redis::cmd("INFO").arg("server").to_owned();
        let told = self.in_time(info.query_async::<String>(connection)).await.ok()?;
        let run = told.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim();
        (!run.is_empty()).then(|| run.to_owned())
    }

    fn times(&self) -> AsyncConnectionConfig {
        pool::times(self.connect, self.response)
    }

    async fn connect(
        &self,
        info: ConnectionInfo,
        times: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, Failure> {
        let address = Address::Alone(info.clone());
        let certificates = pool::certificates(&self.files)?;
        let connecting = async {
            let client = pool::client(info, certificates)?;
            client.get_multiplexed_async_connection_with_config(&times).await
        };
        match within(self.connect + self.response, "connecting", connecting).await {
            Err(failure) => Err(diagnosed(&address, &self.files, self.connect, failure).await),
            connected => connected,
        }
    }

    /// The one server; the master that sentinels name; in a cluster, the node that serves the first
    /// slot.
    async fn registry_server(&self) -> Result<ConnectionInfo, Failure> {
        match &self.address {
            Address::Alone(info) => Ok(info.clone()),
            Address::Sentinel { .. } => {
                let certificates = pool::certificates(&self.files)?;
                let asking = async {
                    let mut sentinels = pool::sentinel_client(&self.address, certificates)?;
                    Ok(sentinels.async_get_client().await?.get_connection_info().clone())
                };
                let limit = self.connect + self.response;
                match within(limit, "asking the sentinels", asking).await {
                    Err(failure) => {
                        Err(diagnosed(&self.address, &self.files, self.connect, failure).await)
                    }
                    found => found,
                }
            }
            Address::Cluster(nodes) => {
                let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
                let table = self.run_anywhere(&slots).await?;
                first_server(&table, &nodes[0]).ok_or_else(|| Failure::NoConnection {
                    kind: ErrorKind::ClusterDown,
                    reason: "no node of the cluster serves slot 0".into(),
                })
            }
        }
    }

    pub(super) async fn in_time<T>(
        &self,
        sent: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failure> {
        within(self.response, "waiting for an answer", sent).await
    }
}

/// The server of the first slot in the table of slots, with the settings of `like`.
fn first_server(table: &Value, like: &ConnectionInfo) -> Option<ConnectionInfo> {
    let list = |value: &Value| match value {
        Value::Array(items) => Some(items.clone()),
        _ => None,
    };
    let ranges = list(table)?.into_iter().filter_map(|range| list(&range));
    let first = ranges.into_iter().find(|range| range.first() == Some(&Value::Int(0)))?;
    let server = list(first.get(2)?)?;
    let Value::Int(port) = *server.get(1)? else { return None };
    let port = u16::try_from(port).ok()?;
    // A server that does not know its own address leaves it empty: it is the server that was asked.
    let told = match server.first()? {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok().filter(|h| !h.is_empty()),
        _ => None,
    };
    let address = match like.addr().clone() {
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(told.unwrap_or(host), port),
        ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: told.unwrap_or(host), port, insecure, tls_params }
        }
        other => other,
    };
    Some(like.clone().set_addr(address))
}

/// Turns an error that some connections return as a value into an error.
fn checked(value: Value) -> Result<Value, Failure> {
    value.extract_error().map_err(Failure::Redis)
}

pub(super) async fn within<T>(
    limit: Duration,
    doing: &str,
    what: impl Future<Output = RedisResult<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, what).await {
        Ok(done) => done.map_err(Failure::Redis),
        Err(_) => Err(Failure::TimedOut(format!("timed out after {limit:?} {doing}"))),
    }
}
