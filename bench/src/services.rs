//! RabbitMQ and Redis as their own clients see them: for yardsticks, for looking, and for cleaning up.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, cmd};
use tokio::time::timeout;

use crate::Error;
use crate::processes::listener;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long the removal of a queue may take, and how often it is tried.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
const REMOVALS: u32 = 3;

/// Keys removed in one command.
const KEYS_A_CALL: usize = 1_000;

/// Where both are, with connections for questions.
pub(crate) struct Services {
    amqp: AMQPUri,
    redis: Client,
    /// For questions; nothing is measured on it.
    pub(crate) questions: MultiplexedConnection,
    /// Open as long as this is: lapin takes a channel that closes beside another step for a broken connection.
    pub(crate) channel: Channel,
    _rabbit: Connection,
    /// What Redis is, and how safe it keeps what it is told.
    pub(crate) redis_version: String,
    /// The processes that they are, if they run here.
    pub(crate) rabbit_process: Option<u32>,
    pub(crate) redis_process: Option<u32>,
}

impl Services {
    pub(crate) async fn connect(amqp_url: &str, redis_url: &str) -> Result<Self, Error> {
        let amqp: AMQPUri =
            amqp_url.parse().map_err(|reason| Error::Unsupported(format!("amqp_url: {reason}")))?;
        let redis = client(redis_url)?;
        let mut questions = answering(&redis).await?;
        let rabbit = connect(&amqp).await?;
        let info: String = cmd("INFO").query_async(&mut questions).await?;
        let (_, fsync): (String, String) =
            cmd("CONFIG").arg("GET").arg("appendfsync").query_async(&mut questions).await?;
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
            questions,
            channel: rabbit.create_channel().await?,
            _rabbit: rabbit,
        })
    }

    /// One more connection to RabbitMQ.
    pub(crate) async fn rabbit(&self) -> Result<Connection, Error> {
        connect(&self.amqp).await
    }

    /// One more connection to Redis. Clones of it share it.
    pub(crate) async fn redis(&self) -> Result<MultiplexedConnection, Error> {
        answering(&self.redis).await
    }

    /// Bytes that Redis has given to data and to itself.
    pub(crate) async fn redis_memory(&self) -> Result<u64, Error> {
        let mut connection = self.questions.clone();
        let info: String = cmd("INFO").arg("memory").query_async(&mut connection).await?;
        let used = info_field(&info, "used_memory").and_then(|bytes| bytes.parse().ok());
        used.ok_or_else(|| Error::Unsupported("Redis does not tell its used_memory".into()))
    }

    /// Removes a queue. RabbitMQ may take its time over one that somebody was just making when he was killed; then it is asked
    /// again, elsewhere, since a channel takes one step after the other.
    async fn remove(&self, queue: &str) -> Result<(), Error> {
        let mut elsewhere: Option<(Connection, Channel)> = None;
        for _ in 0..REMOVALS {
            let channel = elsewhere.as_ref().map_or(&self.channel, |(_, channel)| channel);
            let removal = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
            if let Ok(removed) = timeout(REMOVED_WITHIN, removal).await {
                removed?;
                return Ok(());
            }
            let connection = self.rabbit().await?;
            let channel = connection.create_channel().await?;
            elsewhere = Some((connection, channel));
        }
        let seconds = u64::from(REMOVALS) * REMOVED_WITHIN.as_secs();
        Err(Error::TimedOut { what: "the removal of a queue", seconds })
    }

    /// Removes everything of a namespace, on both sides.
    pub(crate) async fn clean(&self, namespace: &str) -> Result<(), Error> {
        for queue in ["jobs", "waiting", "dead", "journal", "work.default"] {
            self.remove(&format!("{namespace}.{queue}")).await?;
        }
        let options = ExchangeDeleteOptions::default();
        self.channel.exchange_delete(namespace.into(), options).await?;
        let mut connection = self.questions.clone();
        let mut cursor: u64 = 0;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*"));
            scan.arg("COUNT").arg(KEYS_A_CALL);
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

/// Says good-bye. What was measured is known by now, so one that goes wrong does not matter.
pub(crate) async fn close(connections: [Connection; 2]) {
    for connection in connections {
        let _ = connection.close(200, "OK".into()).await;
    }
}

/// How many messages wait in a queue.
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
    // As the ledger does it: Nagle's algorithm would wait for more to send.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(Client::open(info.set_tcp_settings(tcp))?)
}

async fn answering(client: &Client) -> Result<MultiplexedConnection, Error> {
    let times = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_WITHIN));
    Ok(client.get_multiplexed_async_connection_with_config(&times).await?)
}

async fn connect(amqp: &AMQPUri) -> Result<Connection, Error> {
    let named = ConnectionProperties::default().with_connection_name("longshore bench".into());
    let connecting = Box::pin(Connection::connect_uri(amqp.clone(), named));
    match tokio::time::timeout(ANSWER_WITHIN, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::TimedOut {
            what: "a connection to RabbitMQ",
            seconds: ANSWER_WITHIN.as_secs(),
        }),
    }
}

fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim_end()))
}

/// Redis tells its number; whether it is a number of this machine, the name of the process tells.
fn redis_process(info: &str) -> Option<u32> {
    let pid = info_field(info, "process_id")?.parse().ok()?;
    let name = crate::machine::read(&format!("/proc/{pid}/comm"));
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
    fn several_servers_are_refused_in_words() {
        let error = client("redis+cluster://a:1,b:2").expect_err("it is refused").to_string();
        assert!(error.starts_with("redis_url: `redis+cluster` is not one server"), "{error}");
    }
}
