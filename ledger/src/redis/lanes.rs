//! A few connections to Redis, each shared by all requests that are under way on it: redis-rs writes them one behind the other
//! and sorts the answers, so a request needs no connection of its own and no round trip to see whether one is sound.
//!
//! A connection that timed out, broke, or turned out to lead to a replica is given up, and the next request opens another one.
//! One that nobody used for a while is asked whether it is still there, since a server or a firewall may have closed it in
//! silence. Deliberately absent: retries; what a request says (see `call`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::sentinel::{self, SentinelNodeConnectionInfo, SentinelServerType, TlsMode};
use deadpool_redis::{PoolConfig, RedisConnectionInfo, Runtime, Timeouts, cluster};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::Instant;

use super::Config;
use super::address::Address;
use super::hearts;
use super::transport::{Failure, within};

/// A connection with so many requests under way gets no more while there is another one.
const BUSY: usize = 32;

/// After this time without a request a connection is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5);

/// Most that is read of a server that hangs up at once.
const LONGEST_GREETING: u64 = 256;

/// A connection, as whoever sends something holds it.
#[derive(Clone)]
pub(super) enum Wire {
    /// To one server.
    One(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Wire {
    pub(super) fn as_connection(&mut self) -> &mut (dyn ConnectionLike + Send) {
        match self {
            Self::One(connection) => connection,
            Self::Cluster(connection) => connection,
        }
    }
}

/// All connections of one ledger.
pub(super) struct Lanes {
    pool: Pool,
    /// Host and port of the one server, if it is one and speaks plain TCP.
    server: Option<(String, u16)>,
    lanes: Vec<Lane>,
    response: Duration,
    connect: Duration,
}

impl Lanes {
    /// Opens nothing yet.
    pub(super) fn new(address: &Address, config: &Config) -> Result<Self, String> {
        let lanes = (0..config.connections.max(1)).map(|_| Lane::default()).collect();
        let (response, connect) = (config.response_timeout, config.connect_timeout);
        let server = match address {
            Address::Alone(info) => match info.addr() {
                ConnectionAddr::Tcp(host, port) => Some((host.clone(), *port)),
                _ => None,
            },
            Address::Sentinel { .. } | Address::Cluster(_) => None,
        };
        Ok(Self { pool: Pool::new(address, config)?, server, lanes, response, connect })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.pool, Pool::Cluster(_))
    }

    /// A connection to send one thing on.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Failure> {
        let lane = self.choose();
        let under_way = UnderWay::on(lane);
        let limit = self.connect + self.response;
        match tokio::time::timeout(limit, self.connection(lane)).await {
            Ok(connection) => connection.map(|(number, wire)| Turn { under_way, number, wire }),
            Err(_) => Err(Failure::TimedOut(format!("no connection within {limit:?}"))),
        }
    }

    /// What the server calls the first connection, which whoever asks little asks everything on.
    /// `None` where it does not say, and in a cluster, where each is to many servers.
    pub(super) async fn name(&self) -> Option<String> {
        let lane = self.lanes.first().filter(|_| !self.is_cluster())?;
        let limit = self.connect + self.response;
        let (number, wire) = tokio::time::timeout(limit, self.connection(lane)).await.ok()?.ok()?;
        if let Some(name) = lane.name(number) {
            return name;
        }
        let Wire::One(mut connection) = wire else { return None };
        let who = redis::cmd("CLIENT").arg("INFO").to_owned();
        let asked = who.query_async::<String>(&mut connection);
        let name = match within(self.response, "waiting for an answer", asked).await {
            Ok(line) => hearts::name(&line),
            Err(failure) if failure.breaks_connection() => {
                lane.give_up(number);
                return None;
            }
            Err(_) => None,
        };
        lane.call(number, name.clone());
        name
    }

    /// The first that is not busy, so that who asks little keeps one connection; else the one with the least to do.
    fn choose(&self) -> &Lane {
        let load = |lane: &&Lane| lane.under_way.load(Ordering::Relaxed);
        let free = self.lanes.iter().find(|lane| load(lane) < BUSY);
        free.or_else(|| self.lanes.iter().min_by_key(load)).expect("there is at least one")
    }

    async fn connection(&self, lane: &Lane) -> Result<(u64, Wire), Failure> {
        if let Some(found) = lane.in_use() {
            return Ok(found);
        }
        let _opening = lane.opening.lock().await;
        // Meanwhile somebody else may have.
        if let Some(found) = lane.in_use() {
            return Ok(found);
        }
        if let Some((number, mut wire)) = lane.idle() {
            let ping = redis::cmd("PING");
            let asked = wire.as_connection().req_packed_command(&ping);
            match within(self.response, "waiting for an answer", asked).await {
                Err(failure) if failure.breaks_connection() => lane.give_up(number),
                _ => return Ok(lane.keep_using(number, wire)),
            }
        }
        match self.pool.open(self.response).await {
            Ok(pooled) => Ok(lane.put(pooled)),
            Err(failure) => Err(self.explained(failure).await),
        }
    }

    /// Of a server that hangs up at once, what it says before it does: that it has too many clients. By then the library
    /// has written to a closed connection, and says no more than that.
    async fn explained(&self, failure: Failure) -> Failure {
        let Some(target) = self.server.as_ref().filter(|_| failure.is_hung_up()) else {
            return failure;
        };
        let listen = async {
            let stream = tokio::net::TcpStream::connect(target).await.ok()?;
            let mut line = String::new();
            BufReader::new(stream.take(LONGEST_GREETING)).read_line(&mut line).await.ok()?;
            line.strip_prefix('-').map(|said| said.trim().to_owned())
        };
        match tokio::time::timeout(self.connect, listen).await {
            Ok(Some(said)) => Failure::Pool(said),
            _ => failure,
        }
    }
}

/// One connection, once it is open.
#[derive(Default)]
struct Lane {
    open: Mutex<Option<Open>>,
    /// Connections that it had.
    opened: AtomicU64,
    /// Held by who opens it, or finds out whether it is still there.
    opening: tokio::sync::Mutex<()>,
    under_way: AtomicUsize,
}

struct Open {
    number: u64,
    pooled: Pooled,
    used: Instant,
    /// What the server calls it, once it was asked, if it says.
    name: Option<Option<String>>,
}

impl Lane {
    /// The connection, if it was used a short while ago.
    fn in_use(&self) -> Option<(u64, Wire)> {
        let mut open = self.open.lock();
        let open = open.as_mut().filter(|open| open.used.elapsed() < IDLE)?;
        open.used = Instant::now();
        Some((open.number, open.pooled.wire()))
    }

    /// The connection, used or not.
    fn idle(&self) -> Option<(u64, Wire)> {
        self.open.lock().as_ref().map(|open| (open.number, open.pooled.wire()))
    }

    fn keep_using(&self, number: u64, wire: Wire) -> (u64, Wire) {
        if let Some(open) = self.open.lock().as_mut().filter(|open| open.number == number) {
            open.used = Instant::now();
        }
        (number, wire)
    }

    fn put(&self, pooled: Pooled) -> (u64, Wire) {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let wire = pooled.wire();
        *self.open.lock() = Some(Open { number, pooled, used: Instant::now(), name: None });
        (number, wire)
    }

    /// What the server calls this connection, if it was asked already.
    fn name(&self, number: u64) -> Option<Option<String>> {
        self.open.lock().as_ref().filter(|open| open.number == number)?.name.clone()
    }

    fn call(&self, number: u64, name: Option<String>) {
        if let Some(open) = self.open.lock().as_mut().filter(|open| open.number == number) {
            open.name = Some(name);
        }
    }

    /// Whoever comes next opens another connection. Who still waits for answers on this one keeps it.
    fn give_up(&self, number: u64) {
        let given_up = self.open.lock().take_if(|open| open.number == number);
        if let Some(open) = given_up {
            open.pooled.take();
        }
    }
}

/// Counts a request on its lane while it lives.
struct UnderWay<'a>(&'a Lane);

impl<'a> UnderWay<'a> {
    fn on(lane: &'a Lane) -> Self {
        lane.under_way.fetch_add(1, Ordering::Relaxed);
        Self(lane)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request's use of a connection.
pub(super) struct Turn<'a> {
    under_way: UnderWay<'a>,
    number: u64,
    wire: Wire,
}

impl Turn<'_> {
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Gives the connection up if what came of the request says that nothing good can come of it any more.
    pub(super) fn end<T>(&self, sent: Result<T, Failure>) -> Result<T, Failure> {
        if sent.as_ref().is_err_and(Failure::breaks_connection) {
            self.under_way.0.give_up(self.number);
        }
        sent
    }
}

/// Where connections come from.
enum Pool {
    Alone(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

enum Pooled {
    Alone(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

impl Pooled {
    fn wire(&self) -> Wire {
        match self {
            Self::Alone(connection) => Wire::One((**connection).clone()),
            Self::Sentinel(connection) => Wire::One((**connection).clone()),
            Self::Cluster(connection) => Wire::Cluster((**connection).clone()),
        }
    }

    /// Takes it out of the pool for good.
    fn take(self) {
        match self {
            Self::Alone(connection) => drop(deadpool_redis::Connection::take(connection)),
            Self::Sentinel(connection) => drop(sentinel::Connection::take(connection)),
            Self::Cluster(connection) => drop(cluster::Connection::take(connection)),
        }
    }
}

impl Pool {
    fn new(address: &Address, config: &Config) -> Result<Self, String> {
        let limit = config.connect_timeout + config.response_timeout;
        let pool_config = PoolConfig {
            max_size: config.connections.max(1),
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
                Self::Alone(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
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
                Self::Sentinel(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
            }
            Address::Cluster(nodes) => {
                let manager = cluster::Manager::new(nodes.clone(), false).map_err(text)?;
                let builder = cluster::Pool::builder(manager).config(pool_config);
                Self::Cluster(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
            }
        })
    }

    async fn open(&self, response: Duration) -> Result<Pooled, Failure> {
        Ok(match self {
            Self::Alone(pool) => Pooled::Alone(pool.get().await.map_err(failure)?),
            Self::Sentinel(pool) => {
                let mut connection = pool.get().await.map_err(failure)?;
                connection.set_response_timeout(response);
                Pooled::Sentinel(connection)
            }
            Self::Cluster(pool) => Pooled::Cluster(pool.get().await.map_err(failure)?),
        })
    }
}

fn failure(error: deadpool_redis::PoolError) -> Failure {
    match error {
        deadpool_redis::PoolError::Backend(error) => Failure::Redis(error),
        other => Failure::Pool(other.to_string()),
    }
}

/// How the nodes behind sentinels are reached.
pub(super) fn node_info(node: &redis::ConnectionInfo, tls: bool) -> SentinelNodeConnectionInfo {
    SentinelNodeConnectionInfo {
        tls_mode: tls.then_some(TlsMode::Secure),
        redis_connection_info: Some(RedisConnectionInfo::from(node.redis_settings().clone())),
    }
}
