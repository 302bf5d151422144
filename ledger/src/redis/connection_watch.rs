//! Tells which workers and schedulers have lost all their connections, by `CLIENT LIST`.
//!
//! When a process dies, the system closes its connections, and Redis knows it within milliseconds.
//! Each worker's heartbeat loop, and each scheduler, follows the hints on one connection (`events`)
//! and sends its heartbeats on another one (`connections`). It reads Redis's names of both,
//! `ID@ADDRESS`, and registers them with each heartbeat. So a scheduler learns of a death with one
//! `CLIENT LIST ID …`, long before missing heartbeats show it. A single lost connection is no
//! death: only a process all of whose connections are gone is reported.
//!
//! A missing connection proves a death only if it existed while our own connection did: if we saw
//! it, or if the heartbeat that registered it came after we had connected. It also does if it led
//! to the very server process that we ask, which has a name of its own since it started (its
//! `run_id`, where the user may read it): then it need not have existed with ours, so a scheduler
//! that starts after all others died knows at once which did. Whatever ends all connections (a
//! restart, a fail-over, a network outage) ends ours too, and with it all that is known: from then
//! on only connections count that existed together with the new one, since others may be about to
//! be replaced. A connection that broke and was replaced is recognised by reading once more what
//! its process registered last.
//!
//! Deliberately absent: missing heartbeats, and any decision (the scheduler's engine). Where this
//! user may not list connections, the answer is an error, and missing heartbeats have to do.

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use longshore_protocol::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::RedisLedger;
use super::reply::optional_word;
use super::transport::Failure;
use crate::{ConnectionWatch, Error, Process, ProcessConnections};

const OPERATION: &str = "connection_watch";

/// The most connections in one command: Redis is busy for about a millisecond with a thousand.
const A_CALL: usize = 1_000;

pub(super) struct RedisConnectionWatch {
    ledger: RedisLedger,
    connection: Option<MultiplexedConnection>,
    /// The `run_id` of the server at its other end, if this user may read it.
    run: Option<String>,
    /// Whether an earlier connection of ours broke.
    has_lost_one: bool,
    /// When our connection was opened, by the ledger's clock.
    connected_at: Timestamp,
    /// The registered connections that have existed at some time since.
    seen: BTreeSet<(Process, String)>,
}

impl RedisLedger {
    pub(super) fn watch_connections(&self) -> RedisConnectionWatch {
        let (ledger, connected_at) = (self.clone(), Timestamp::default());
        let (connection, run, seen) = (None, None, BTreeSet::new());
        RedisConnectionWatch { ledger, connection, run, has_lost_one: false, connected_at, seen }
    }
}

#[async_trait]
impl ConnectionWatch for RedisConnectionWatch {
    async fn disconnected(
        &mut self,
        registered: &[ProcessConnections],
    ) -> Result<Vec<Process>, Error> {
        let known = |it: &ProcessConnections| Some((it.process.clone(), it.connections.clone()?));
        let wanted: BTreeSet<(Process, String)> = registered.iter().filter_map(known).collect();
        let present = match self.present(&wanted).await {
            Ok(present) => present,
            Err(failure) => {
                self.has_lost_one |= self.connection.take().is_some();
                self.seen.clear();
                return Err(self.ledger.error(OPERATION, &failure));
            }
        };
        self.seen.retain(|it| wanted.contains(it));
        let since = registered.iter().filter(|it| it.beat_at > self.connected_at);
        self.seen.extend(since.filter_map(known));
        let (there, missing): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(_, all)| names(all).any(|it| present.contains(it)));
        self.seen.extend(there);
        let mut disconnected = Vec::new();
        for lost in missing {
            let led_here = !self.has_lost_one && self.run.as_deref() == Some(parts(&lost.1).1);
            if (led_here || self.seen.contains(&lost)) && self.is_current(&lost).await? {
                disconnected.push(lost.0);
            }
        }
        Ok(disconnected)
    }
}

impl RedisConnectionWatch {
    /// The registered connections that exist now.
    async fn present(
        &mut self,
        wanted: &BTreeSet<(Process, String)>,
    ) -> Result<HashSet<String>, Failure> {
        // Connects also without connections to look for: the next process is then known from its
        // first heartbeat on.
        let mut connection = self.connection().await?;
        let mut present = HashSet::new();
        let all = wanted.iter().flat_map(|(_, all)| names(all));
        let ids = all.map(|name| name.split_once('@').map_or("", |(id, _)| id));
        for some in ids.collect::<Vec<_>>().chunks(A_CALL) {
            let mut list = cmd("CLIENT");
            list.arg("LIST").arg("ID").arg(some);
            let asked = list.query_async::<String>(&mut connection);
            present.extend(self.ledger.transport().in_time(asked).await?.lines().filter_map(name));
        }
        Ok(present)
    }

    async fn connection(&mut self) -> Result<MultiplexedConnection, Failure> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let transport = self.ledger.transport();
        let mut connection = transport.connect_to_registry().await?;
        let time = cmd("TIME");
        let told = transport.in_time(time.query_async::<(u64, u64)>(&mut connection));
        let (seconds, micros) = told.await?;
        self.run = transport.run_id(&mut connection).await;
        let told = self.ledger.ledger_clock().agreed(seconds * 1_000 + micros / 1_000);
        self.connected_at = Timestamp::from_millis(told);
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Whether these are still the connections that the process registered last.
    async fn is_current(&self, (process, connections): &(Process, String)) -> Result<bool, Error> {
        let keys = self.ledger.keys();
        let key = match process {
            Process::Worker(node) => keys.node(node),
            Process::Scheduler(scheduler) => keys.scheduler(scheduler),
        };
        let mut registered = cmd("HGET");
        registered.arg(key).arg("connections");
        let answer = self.ledger.send(OPERATION, &registered).await?;
        Ok(optional_word(OPERATION, answer)?.as_deref() == Some(parts(connections).0))
    }
}

/// The registered connections in one string: their names, separated by commas, and after a space
/// the `run_id` of the server to which they lead, if it is known.
pub(super) fn join(connections: &str, run: &str) -> String {
    format!("{connections} {run}").trim_end().to_owned()
}

/// The names of registered connections, and the `run_id` of their server, empty if it is not known.
pub(super) fn parts(registered: &str) -> (&str, &str) {
    registered.split_once(' ').unwrap_or((registered, ""))
}

/// The names of registered connections, one by one.
fn names(registered: &str) -> impl Iterator<Item = &str> {
    parts(registered).0.split(',')
}

/// The name of a connection, from its line of `CLIENT LIST` or `CLIENT INFO`: `ID@ADDRESS`. The
/// address tells it from a connection to which another server has given the same id.
pub(super) fn name(line: &str) -> Option<String> {
    let field = |name: &str| {
        let fields = line.split_ascii_whitespace();
        fields.filter_map(|field| field.split_once('=')).find(|(key, _)| *key == name)
    };
    let ((_, id), (_, address)) = (field("id")?, field("addr")?);
    Some(format!("{id}@{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_connection_is_its_id_and_address() {
        let line = "id=57 addr=10.0.0.7:51234 laddr=10.0.0.1:6379 fd=8 name= age=0 idle=0 flags=N";
        assert_eq!(name(line).as_deref(), Some("57@10.0.0.7:51234"));
        assert_eq!(name("txt:id=5"), None);
    }

    #[test]
    fn registered_connections_are_split_as_they_were_joined() {
        let two = "57@10.0.0.7:51234,61@10.0.0.7:51240";
        for (connections, run) in [(two, "9f3c"), ("57@/run/redis:0", "")] {
            assert_eq!(parts(&join(connections, run)), (connections, run));
        }
        assert_eq!(names(&join(two, "9f3c")).collect::<Vec<_>>().join(","), two);
    }
}
