//! What is sent to Redis and in which time: to one server, to the master that sentinels name, or to a cluster.
//!
//! Every wait has an end. Deliberately absent: which connection it goes on (see `lanes`); patience with a Redis that is away,
//! which whoever asks has or has not.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline,
    ProtocolVersion, PushInfo, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::mpsc;

use super::Config;
use super::address::Address;
use super::lanes::{Lanes, Wire, node_info};
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

    /// Whether nothing good can come of the connection any more.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Pool(_) => true,
            Self::Redis(error) => {
                let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
                error.is_io_error()
                    || error.is_timeout()
                    || error.is_unrecoverable_error()
                    || error.kind() == read_only
            }
        }
    }

    /// Whether the connection has ended: as a rule before anything was sent, since it had been closed while nobody used it.
    pub(super) fn is_hung_up(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_dropped())
    }

    /// The first word of an error that Redis replied with.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::TimedOut(_) | Self::Pool(_) => None,
        }
    }
}

/// Pushed messages that wait to be read. A follower that falls further behind is told that it missed some.
const PUSHES: usize = 1_024;

/// A connection that follows a channel.
pub(super) struct Followed {
    pub(super) connection: MultiplexedConnection,
    pub(super) pushes: mpsc::Receiver<PushInfo>,
    /// Set when a push found no room.
    pub(super) lost: Arc<AtomicBool>,
    /// Its line in Redis's list of connections, if this user may ask for it.
    pub(super) line: Option<String>,
    /// What the server calls itself, if this user may ask for it.
    pub(super) run: Option<String>,
    /// How long the answers to its first questions took.
    pub(super) round_trips: [Duration; 3],
}

/// Connections and the times that they are granted.
pub(super) struct Transport {
    address: Address,
    lanes: Lanes,
    response: Duration,
    connect: Duration,
}

impl Transport {
    /// Connects when it is first needed.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let lanes = Lanes::new(&address, config).map_err(Error::BadUrl)?;
        let (response, connect) = (config.response_timeout, config.connect_timeout);
        Ok(Self { address, lanes, response, connect })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.lanes.is_cluster()
    }

    /// Sends one command, in a cluster to the node that its first key says.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value, Failure> {
        self.send(|mut wire| async move { wire.as_connection().req_packed_command(cmd).await })
            .await
            .and_then(sound)
    }

    /// Sends one command that every node answers alike; in a cluster one of them is asked.
    pub(super) async fn run_anywhere(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let ask = |wire| async move {
            match wire {
                Wire::One(mut connection) => connection.req_packed_command(cmd).await,
                Wire::Cluster(mut connection) => {
                    let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                    connection.route_command(cmd.clone(), anywhere).await
                }
            }
        };
        self.send(ask).await.and_then(sound)
    }

    /// What the server calls the connection on which a handle that asks little asks everything.
    pub(super) async fn name(&self) -> Option<String> {
        self.lanes.name().await
    }

    /// Sends commands so that each has been run when the next one is, and gives all answers.
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

    /// Sends commands together and gives all answers. In a cluster they go to the nodes that their
    /// keys say, in no order.
    pub(super) async fn run_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let ask = |wire| async move {
            match wire {
                Wire::One(mut connection) => {
                    let mut pipeline = Pipeline::with_capacity(commands.len());
                    for cmd in commands {
                        pipeline.add_command(cmd.clone());
                    }
                    connection.req_packed_commands(&pipeline, 0, commands.len()).await
                }
                Wire::Cluster(connection) => {
                    let each = commands.iter().map(|cmd| {
                        let mut connection = connection.clone();
                        async move { connection.req_packed_command(cmd).await }
                    });
                    try_join_all(each).await
                }
            }
        };
        self.send(ask).await?.into_iter().map(sound).collect()
    }

    /// Sends something on one of the connections; once more on another one if that turns out to have ended. All that is sent
    /// may be repeated: operations are idempotent.
    async fn send<T, F>(&self, send: impl Fn(Wire) -> F) -> Result<T, Failure>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let first = self.lanes.turn().await?;
        match first.end(self.in_time(send(first.wire())).await) {
            Err(failure) if failure.is_hung_up() => {
                let second = self.lanes.turn().await?;
                second.end(self.in_time(send(second.wire())).await)
            }
            sent => sent,
        }
    }

    /// A connection of its own to where the hearts of workers are: every worker's and every scheduler's is to the same server.
    pub(super) async fn connect_to_hearts(&self) -> Result<MultiplexedConnection, Failure> {
        let info = self.heart_server().await?;
        self.connect(info, self.times()).await
    }

    /// A connection to the same place that follows a channel.
    pub(super) async fn follow(&self, channel: &str) -> Result<Followed, Failure> {
        let (sender, pushes) = mpsc::channel(PUSHES);
        let lost = Arc::new(AtomicBool::new(false));
        let losing = lost.clone();
        let times = self.times().set_push_sender(move |push| {
            let sent = sender.try_send(push);
            losing.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent
        });
        let info = self.heart_server().await?;
        // The older protocol has no room for questions beside a subscription.
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

    /// What a server calls itself from its start to its end, if this user may ask for it.
    pub(super) async fn run_id(&self, connection: &mut MultiplexedConnection) -> Option<String> {
        let info = redis::cmd("INFO").arg("server").to_owned();
        let told = self.in_time(info.query_async::<String>(connection)).await.ok()?;
        let run = told.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim();
        (!run.is_empty()).then(|| run.to_owned())
    }

    fn times(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.response))
    }

    async fn connect(
        &self,
        info: ConnectionInfo,
        times: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, Failure> {
        let connecting = async {
            let client = Client::open(info)?;
            client.get_multiplexed_async_connection_with_config(&times).await
        };
        within(self.connect + self.response, "connecting", connecting).await
    }

    /// The one server; the master that sentinels name; of a cluster, whoever serves the first slot.
    async fn heart_server(&self) -> Result<ConnectionInfo, Failure> {
        match &self.address {
            Address::Alone(info) => Ok(info.clone()),
            Address::Sentinel { .. } => {
                let asking = async {
                    let client = self.sentinel_client()?.async_get_client().await?;
                    Ok(client.get_connection_info().clone())
                };
                within(self.connect + self.response, "asking the sentinels", asking).await
            }
            Address::Cluster(nodes) => {
                let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
                let table = self.run_anywhere(&slots).await?;
                first_server(&table, &nodes[0])
                    .ok_or_else(|| Failure::Pool("no node of the cluster serves slot 0".into()))
            }
        }
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

    pub(super) async fn in_time<T>(
        &self,
        sent: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failure> {
        within(self.response, "waiting for an answer", sent).await
    }
}

/// Who serves the first slot, from the table of slots, reached as `like` is reached.
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
    // A server that does not know its own address leaves it empty: it is the one that was asked.
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

/// An error that Redis replied with comes as a value from some connections.
fn sound(value: Value) -> Result<Value, Failure> {
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
