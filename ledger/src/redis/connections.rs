//! Chooses one of a few shared connections to Redis for each request, and replaces broken ones.
//!
//! redis-rs pipelines the requests of one connection and matches the answers, so a request needs
//! neither a connection of its own nor a round trip that checks one.
//!
//! A connection that timed out, broke, or turned out to lead to a replica is discarded, and the
//! next request opens another one. A connection that was idle for a while is pinged before it is
//! used, since a server or a firewall may have closed it without notice. Deliberately absent:
//! retries; the contents of requests (see `call`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use longshore_protocol::ErrorKind;
use longshore_tls::TlsFiles;
use parking_lot::Mutex;
use redis::ConnectionAddr;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::Instant;

use super::Config;
use super::address::Address;
use super::connection_watch;
use super::error_kind;
use super::pool::{self, Pool, Pooled};
use super::transport::{Failure, within};

/// A connection with this many requests in flight gets no more while there is another one.
const BUSY: usize = 32;

/// A connection that was idle for this time is pinged before it is used.
const IDLE: Duration = Duration::from_secs(5);

/// The most bytes that are read from a server that closes a new connection at once.
const LONGEST_GREETING: u64 = 256;

/// A connection on which commands are sent.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) fn as_connection(&mut self) -> &mut (dyn ConnectionLike + Send) {
        match self {
            Self::One(connection) => connection,
            Self::Cluster(connection) => connection,
        }
    }
}

/// All connections of one ledger.
pub(super) struct Connections {
    pool: Pool,
    /// Host and port of the one server, if it is one and speaks plain TCP.
    server: Option<(String, u16)>,
    /// The first node of a cluster's address.
    cluster_node: Option<redis::ConnectionInfo>,
    address: Address,
    files: TlsFiles,
    slots: Vec<Slot>,
    response: Duration,
    connect: Duration,
}

impl Connections {
    /// Opens nothing yet.
    pub(super) fn new(address: &Address, config: &Config) -> Result<Self, String> {
        let slots = (0..config.connections.max(1)).map(|_| Slot::default()).collect();
        let (response, connect) = (config.response_timeout, config.connect_timeout);
        let server = match address {
            Address::Alone(info) => match info.addr() {
                ConnectionAddr::Tcp(host, port) => Some((host.clone(), *port)),
                _ => None,
            },
            Address::Sentinel { .. } | Address::Cluster(_) => None,
        };
        let cluster_node = match address {
            Address::Cluster(nodes) => nodes.first().cloned(),
            Address::Alone(_) | Address::Sentinel { .. } => None,
        };
        let pool = Pool::new(address, config)?;
        let (address, files) = (address.clone(), config.tls.clone());
        Ok(Self { pool, server, cluster_node, address, files, slots, response, connect })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.address, Address::Cluster(_))
    }

    /// A connection for one request.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let slot = self.choose();
        let in_flight = InFlightGuard::on(slot);
        let limit = self.connect + self.response;
        match tokio::time::timeout(limit, self.connection(slot)).await {
            Ok(connection) => {
                connection.map(|(number, connection)| Lease { in_flight, number, connection })
            }
            Err(_) => Err(Failure::TimedOut(format!("no connection within {limit:?}"))),
        }
    }

    /// The server's name of the first connection, which carries all requests of a process with few
    /// requests. `None` if the server does not tell it, and in a cluster, where each connection
    /// leads to many servers.
    pub(super) async fn name(&self) -> Option<String> {
        let slot = self.slots.first().filter(|_| !self.is_cluster())?;
        let limit = self.connect + self.response;
        let (number, connection) =
            tokio::time::timeout(limit, self.connection(slot)).await.ok()?.ok()?;
        if let Some(name) = slot.name(number) {
            return name;
        }
        let Connection::One(mut connection) = connection else { return None };
        let who = redis::cmd("CLIENT").arg("INFO").to_owned();
        let asked = who.query_async::<String>(&mut connection);
        let name = match within(self.response, "waiting for an answer", asked).await {
            Ok(line) => connection_watch::name(&line),
            Err(failure) if failure.breaks_connection() => {
                slot.discard(number);
                return None;
            }
            Err(_) => None,
        };
        slot.set_name(number, name.clone());
        name
    }

    /// The first slot that is not busy, so that few requests use one connection; otherwise the slot
    /// with the fewest requests in flight.
    fn choose(&self) -> &Slot {
        let load = |slot: &&Slot| slot.in_flight.load(Ordering::Relaxed);
        let free = self.slots.iter().find(|slot| load(slot) < BUSY);
        free.or_else(|| self.slots.iter().min_by_key(load)).expect("there is at least one")
    }

    async fn connection(&self, slot: &Slot) -> Result<(u64, Connection), Failure> {
        if let Some(found) = slot.in_use() {
            return Ok(found);
        }
        let _opening = slot.opening.lock().await;
        // Another task may have opened it meanwhile.
        if let Some(found) = slot.in_use() {
            return Ok(found);
        }
        if let Some((number, mut connection)) = slot.idle() {
            let ping = redis::cmd("PING");
            let asked = connection.as_connection().req_packed_command(&ping);
            match within(self.response, "waiting for an answer", asked).await {
                Err(failure) if failure.breaks_connection() => slot.discard(number),
                _ => return Ok(slot.keep_using(number, connection)),
            }
        }
        match self.pool.open(self.response).await {
            Ok(pooled) => Ok(slot.put(pooled)),
            Err(failure) => Err(self.explained(failure).await),
        }
    }

    /// The failure to open a connection, with the cause that the client library does not report.
    async fn explained(&self, failure: Failure) -> Failure {
        let failure = diagnosed(&self.address, &self.files, self.connect, failure).await;
        if !failure.is_hung_up() {
            return failure;
        }
        match (&self.server, &self.cluster_node) {
            (Some(server), _) => self.greeting(server, failure).await,
            (None, Some(node)) => self.node_failure(node, failure).await,
            (None, None) => failure,
        }
    }

    /// Reads the error that a server sends before it closes a new connection: that it has too many
    /// clients. The client library, which writes first, only reports that the connection is closed.
    async fn greeting(&self, server: &(String, u16), failure: Failure) -> Failure {
        let listen = async {
            let stream = tokio::net::TcpStream::connect(server).await.ok()?;
            let mut line = String::new();
            BufReader::new(stream.take(LONGEST_GREETING)).read_line(&mut line).await.ok()?;
            line.strip_prefix('-').map(|said| said.trim().to_owned())
        };
        match tokio::time::timeout(self.connect, listen).await {
            Ok(Some(reason)) => {
                let (code, detail) = reason.split_once(' ').unwrap_or((&reason, ""));
                Failure::NoConnection { kind: error_kind::of_reply(code, detail), reason }
            }
            _ => failure,
        }
    }

    /// Of a cluster of which no node could be connected to, the kind of the failure: the library
    /// gives it as text alone, so one of the nodes is connected to once more.
    async fn node_failure(&self, node: &redis::ConnectionInfo, failure: Failure) -> Failure {
        let times = pool::times(self.connect, self.response);
        let Ok(certificates) = pool::certificates(&self.files) else { return failure };
        let connecting = async {
            let client = pool::client(node.clone(), certificates)?;
            client.get_multiplexed_async_connection_with_config(&times).await
        };
        match within(self.connect, "connecting", connecting).await {
            Ok(_) => failure,
            Err(cause) => Failure::NoConnection { kind: cause.kind(), reason: failure.reason() },
        }
    }
}

/// The failure to open a connection to one of the servers of `address`; with TLS, the problem with
/// a certificate that is behind it, if there is one. It is looked for on connections of its own,
/// because the client library gives the failure of a cluster's nodes as text alone, and a server
/// that demands a certificate may reset a connection before the reason was read.
pub(super) async fn diagnosed(
    address: &Address,
    files: &TlsFiles,
    limit: Duration,
    failure: Failure,
) -> Failure {
    // An answer of Redis shows that there is a connection.
    if !address.is_tls() || !failure.breaks_connection() || failure.code().is_some() {
        return failure;
    }
    let examining = async {
        for (host, port) in address.hosts() {
            if let Some(problem) = longshore_tls::examine(host, port, files).await {
                return Some(problem.describe(&format!("{host}:{port}")));
            }
        }
        let server = match address {
            Address::Sentinel { .. } => format!("the master behind {address}"),
            Address::Alone(_) | Address::Cluster(_) => address.to_string(),
        };
        Some(failure.certificate_problem()?.describe(&server))
    };
    match tokio::time::timeout(limit, examining).await {
        Ok(Some(reason)) => Failure::NoConnection { kind: ErrorKind::BadCertificate, reason },
        _ => failure,
    }
}

/// One connection, opened when it is first needed.
#[derive(Default)]
struct Slot {
    open: Mutex<Option<Open>>,
    /// The number of connections that this slot has had.
    opened: AtomicU64,
    /// Held while a task opens or pings the connection.
    opening: tokio::sync::Mutex<()>,
    in_flight: AtomicUsize,
}

struct Open {
    number: u64,
    pooled: Pooled,
    used: Instant,
    /// The server's name of the connection: `None` before the server was asked, `Some(None)` if it
    /// does not tell.
    name: Option<Option<String>>,
}

impl Slot {
    /// The connection, if it was used recently.
    fn in_use(&self) -> Option<(u64, Connection)> {
        let mut open = self.open.lock();
        let open = open.as_mut().filter(|open| open.used.elapsed() < IDLE)?;
        open.used = Instant::now();
        Some((open.number, open.pooled.connection()))
    }

    /// The connection, whenever it was last used.
    fn idle(&self) -> Option<(u64, Connection)> {
        self.open.lock().as_ref().map(|open| (open.number, open.pooled.connection()))
    }

    fn keep_using(&self, number: u64, connection: Connection) -> (u64, Connection) {
        if let Some(open) = self.open.lock().as_mut().filter(|open| open.number == number) {
            open.used = Instant::now();
        }
        (number, connection)
    }

    fn put(&self, pooled: Pooled) -> (u64, Connection) {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let connection = pooled.connection();
        *self.open.lock() = Some(Open { number, pooled, used: Instant::now(), name: None });
        (number, connection)
    }

    /// The server's name of this connection, if the server was asked already.
    fn name(&self, number: u64) -> Option<Option<String>> {
        self.open.lock().as_ref().filter(|open| open.number == number)?.name.clone()
    }

    fn set_name(&self, number: u64, name: Option<String>) {
        if let Some(open) = self.open.lock().as_mut().filter(|open| open.number == number) {
            open.name = Some(name);
        }
    }

    /// Discards a connection, so that the next request opens another one. Requests in flight keep
    /// it.
    fn discard(&self, number: u64) {
        let discarded = self.open.lock().take_if(|open| open.number == number);
        if let Some(open) = discarded {
            open.pooled.take();
        }
    }
}

/// Counts a request as in flight on its slot until it is dropped.
struct InFlightGuard<'a>(&'a Slot);

impl<'a> InFlightGuard<'a> {
    fn on(slot: &'a Slot) -> Self {
        slot.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The use of a connection by one request.
pub(super) struct Lease<'a> {
    in_flight: InFlightGuard<'a>,
    number: u64,
    connection: Connection,
}

impl Lease<'_> {
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Discards the connection if the outcome of the request shows that it is unusable.
    pub(super) fn end<T>(&self, sent: Result<T, Failure>) -> Result<T, Failure> {
        if sent.as_ref().is_err_and(Failure::breaks_connection) {
            self.in_flight.0.discard(self.number);
        }
        sent
    }
}
