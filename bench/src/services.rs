//! Connections to RabbitMQ and Redis by their own client libraries, and the removal of a namespace.
//!
//! Baselines and queries use these connections.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, cmd};
use tokio::time::timeout;

use crate::Error;
use crate::processes::listener;

/// The longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for the removal of a queue, and the number of attempts.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVAL_ATTEMPTS: u32 = 3;

/// The number of keys removed by one command.
const KEYS_PER_CALL: usize = 1_000;

/// RabbitMQ and Redis, with connections for queries.
pub(crate) struct Services {
    amqp: AMQPUri,
    redis: Client,
    /// The connection for queries; nothing is measured on it.
    pub(crate) queries: MultiplexedConnection,
    /// The channel for queries. It stays open, because lapin reports a broken connection if a
    /// channel closes while another operation runs.
    pub(crate) channel: Channel,
    _rabbit: Connection,
    /// The version of Redis and how it persists its data.
    pub(crate) redis_version: String,
    /// The process id of RabbitMQ, if it runs on this host.
    pub(crate) rabbit_process: Option<u32>,
    /// The process id of Redis, if it runs on this host.
    pub(crate) redis_process: Option<u32>,
}

impl Services {
    pub(crate) async fn connect(amqp_url: &str, redis_url: &str) -> Result<Self, Error> {
        let amqp: AMQPUri =
            amqp_url.parse().map_err(|reason| Error::Unsupported(format!("amqp_url: {reason}")))?;
        let redis = client(redis_url)?;
        let mut queries = connect_redis(&redis).await?;
        let rabbit = connect_rabbit(&amqp).await?;
        let info: String = cmd("INFO").query_async(&mut queries).await?;
        let (_, fsync): (String, String) =
            cmd("CONFIG").arg("GET").arg("appendfsync").query_async(&mut queries).await?;
        let version = info_field(&info, "redis_version").unwrap_or_default();
        let flushed = match info_field(&info, "aof_enabled") {
            Some("1") => format!("append-only file, flushed {fsync}"),
            _ => "no append-only file".to_owned(),
        };
        Ok(Self {
            redis_version: format!("{version}, {flushed}"),
            redis_process: redis_process(&info),
            rabbit_process: local(&amqp.authority.host)
                .then(|| listener(amqp.authority.port))
                .flatten(),
            amqp,
            redis,
            queries,
            channel: rabbit.create_channel().await?,
            _rabbit: rabbit,
        })
    }

    /// Opens another connection to RabbitMQ.
    pub(crate) async fn rabbit(&self) -> Result<Connection, Error> {
        connect_rabbit(&self.amqp).await
    }

    /// Opens another connection to Redis. Its clones share it.
    pub(crate) async fn redis(&self) -> Result<MultiplexedConnection, Error> {
        connect_redis(&self.redis).await
    }

    /// The memory that Redis has allocated, in bytes.
    pub(crate) async fn redis_memory(&self) -> Result<u64, Error> {
        let mut connection = self.queries.clone();
        let info: String = cmd("INFO").arg("memory").query_async(&mut connection).await?;
        let used = info_field(&info, "used_memory").and_then(|bytes| bytes.parse().ok());
        used.ok_or_else(|| Error::Unsupported("INFO of Redis lacks used_memory".into()))
    }

    /// Removes a queue. RabbitMQ may be slow with a queue whose declaring process was just killed.
    /// The removal is then repeated on another connection, because a channel performs its
    /// operations one after the other.
    async fn remove(&self, queue: &str) -> Result<(), Error> {
        let mut other: Option<(Connection, Channel)> = None;
        for _ in 0..REMOVAL_ATTEMPTS {
            let channel = other.as_ref().map_or(&self.channel, |(_, channel)| channel);
            let removal = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
            if let Ok(removed) = timeout(REMOVAL_TIMEOUT, removal).await {
                removed?;
                return Ok(());
            }
            let connection = self.rabbit().await?;
            let channel = connection.create_channel().await?;
            other = Some((connection, channel));
        }
        let seconds = u64::from(REMOVAL_ATTEMPTS) * REMOVAL_TIMEOUT.as_secs();
        Err(Error::TimedOut { what: "the removal of a queue", seconds })
    }

    /// Removes everything of a namespace from RabbitMQ and Redis.
    pub(crate) async fn clean(&self, namespace: &str) -> Result<(), Error> {
        for queue in ["jobs", "waiting", "dead", "journal", "work.default"] {
            self.remove(&format!("{namespace}.{queue}")).await?;
        }
        let options = ExchangeDeleteOptions::default();
        self.channel.exchange_delete(namespace.into(), options).await?;
        let mut connection = self.queries.clone();
        let mut cursor: u64 = 0;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*"));
            scan.arg("COUNT").arg(KEYS_PER_CALL);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                cmd("UNLINK").arg(keys).query_async::<u64>(&mut connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// Closes connections. Errors are ignored, because the measurement is complete.
pub(crate) async fn close(connections: [Connection; 2]) {
    for connection in connections {
        let _ = connection.close(200, "OK".into()).await;
    }
}

/// The number of messages that wait in a queue.
pub(crate) async fn depth(channel: &Channel, queue: &str) -> Result<u32, Error> {
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(queue.into(), look, FieldTable::default()).await?;
    Ok(queue.message_count())
}

fn client(url: &str) -> Result<Client, Error> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    if scheme.contains('+') {
        return Err(Error::Unsupported(format!(
            "redis_url: `{scheme}` is not one server; the benchmark measures a single Redis, \
             redis://, rediss:// or unix://"
        )));
    }
    let info = url.into_connection_info()?;
    // As in the ledger: Nagle's algorithm would delay small requests.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(Client::open(info.set_tcp_settings(tcp))?)
}

async fn connect_redis(client: &Client) -> Result<MultiplexedConnection, Error> {
    let times = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
    Ok(client.get_multiplexed_async_connection_with_config(&times).await?)
}

async fn connect_rabbit(amqp: &AMQPUri) -> Result<Connection, Error> {
    if amqp.scheme == AMQPScheme::AMQPS {
        return Err(Error::Unsupported(
            "amqp_url: `amqps` is encrypted; the benchmark measures RabbitMQ without TLS, amqp://"
                .to_owned(),
        ));
    }
    let named = ConnectionProperties::default().with_connection_name("longshore bench".into());
    let connecting = Box::pin(Connection::connect_uri(amqp.clone(), named));
    match tokio::time::timeout(ANSWER_TIMEOUT, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::TimedOut {
            what: "a connection to RabbitMQ",
            seconds: ANSWER_TIMEOUT.as_secs(),
        }),
    }
}

fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim_end()))
}

/// The process id that Redis reports, if the process of that id on this host is a Redis.
fn redis_process(info: &str) -> Option<u32> {
    let pid = info_field(info, "process_id")?.parse().ok()?;
    let name = crate::host::read(&format!("/proc/{pid}/comm"));
    ["redis", "valkey"].iter().any(|known| name.starts_with(known)).then_some(pid)
}

fn local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "::1", "[::1]"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_read_by_their_whole_name() {
        let info = "used_memory_rss:9\r\nused_memory:7\r\n";
        assert_eq!(info_field(info, "used_memory"), Some("7"));
        assert_eq!(info_field(info, "memory"), None);
    }

    #[test]
    fn a_url_of_several_redis_servers_is_refused() {
        let error = client("redis+cluster://a:1,b:2").expect_err("refused").to_string();
        assert!(error.starts_with("redis_url: `redis+cluster` is not one server"), "{error}");
    }
}
