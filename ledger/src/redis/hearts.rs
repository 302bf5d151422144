//! Whose connection is gone.
//!
//! A process that dies lets go of its connections at once, and Redis knows it within milliseconds.
//! Each worker's heart, and each scheduler, follows the hints on a connection of its own (`events`),
//! and beats on another one (`lanes`). It asks Redis how these are called there, and registers both
//! answers, `ID@ADDRESS`, with each beat. So a scheduler learns of a death with one
//! `CLIENT LIST ID …`, long before the silence of the beats says so. One connection that is cut is
//! no death: only a process all of whose connections are gone is dead.
//!
//! A missing connection proves a death only if it was there while ours was, the one connection on which we ask: if we saw it, or
//! if the beat that registered it came after we had connected. Or if it led to the very server that we ask, which runs under a
//! name of its own since it started (its `run_id`, where the user may ask for it): then it need not have been there with ours, and
//! who comes first after everybody died knows at once who did. Whatever ends all connections (a restart, a fail-over, an outage
//! of the network) ends ours too, and with it all that is known: from then on only hearts count that were there with the new
//! one, since others may be about to be replaced. A heart that broke and was replaced is told apart by asking once more
//! what its process registered last.
//!
//! Deliberately absent: silence, and any decision (the scheduler's engine). Where this user may not ask, the answer is an error, and
//! silence has to do.

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use longshore_protocol::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::RedisLedger;
use super::reply::optional_word;
use super::transport::Failure;
use crate::{ConnectionWatch, Error, Heart, Process};

const OPERATION: &str = "hearts";

/// Connections asked for in one command: Redis is busy for about a millisecond with a thousand.
const A_CALL: usize = 1_000;

pub(super) struct RedisHearts {
    ledger: RedisLedger,
    connection: Option<MultiplexedConnection>,
    /// What the server at its other end calls itself, if it says.
    run: Option<String>,
    /// There was a connection before this one, which broke.
    lost_one: bool,
    /// When it was made, by the ledger's clock.
    connected_at: Timestamp,
    /// Hearts that were there at some time since.
    seen: BTreeSet<(Process, String)>,
}

impl RedisLedger {
    pub(super) fn watch_hearts(&self) -> RedisHearts {
        let (ledger, connected_at) = (self.clone(), Timestamp::default());
        let (connection, run, seen) = (None, None, BTreeSet::new());
        RedisHearts { ledger, connection, run, lost_one: false, connected_at, seen }
    }
}

#[async_trait]
impl ConnectionWatch for RedisHearts {
    async fn severed(&mut self, registered: &[Heart]) -> Result<Vec<Process>, Error> {
        let known = |heart: &Heart| Some((heart.of.clone(), heart.connection.clone()?));
        let hearts: BTreeSet<(Process, String)> = registered.iter().filter_map(known).collect();
        let present = match self.present(&hearts).await {
            Ok(present) => present,
            Err(failure) => {
                self.lost_one |= self.connection.take().is_some();
                self.seen.clear();
                return Err(self.ledger.error(OPERATION, &failure));
            }
        };
        self.seen.retain(|heart| hearts.contains(heart));
        let since = registered.iter().filter(|heart| heart.beat_at > self.connected_at);
        self.seen.extend(since.filter_map(known));
        let (there, missing): (Vec<_>, Vec<_>) =
            hearts.into_iter().partition(|(_, heart)| names(heart).any(|it| present.contains(it)));
        self.seen.extend(there);
        let mut severed = Vec::new();
        for heart in missing {
            let led_here = !self.lost_one && self.run.as_deref() == Some(parts(&heart.1).1);
            if (led_here || self.seen.contains(&heart)) && self.is_current(&heart).await? {
                severed.push(heart.0);
            }
        }
        Ok(severed)
    }
}

impl RedisHearts {
    /// Which of these connections are there.
    async fn present(
        &mut self,
        hearts: &BTreeSet<(Process, String)>,
    ) -> Result<HashSet<String>, Failure> {
        // Also with nobody to ask for: whoever comes next is known from the first beat on.
        let mut connection = self.connection().await?;
        let mut present = HashSet::new();
        let all = hearts.iter().flat_map(|(_, heart)| names(heart));
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
        let mut connection = transport.connect_to_hearts().await?;
        let time = cmd("TIME");
        let told = transport.in_time(time.query_async::<(u64, u64)>(&mut connection));
        let (seconds, micros) = told.await?;
        self.run = transport.run_id(&mut connection).await;
        let told = self.ledger.ledger_clock().agreed(seconds * 1_000 + micros / 1_000);
        self.connected_at = Timestamp::from_millis(told);
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Whether the process still says that this is its heart.
    async fn is_current(&self, (of, heart): &(Process, String)) -> Result<bool, Error> {
        let keys = self.ledger.keys();
        let key = match of {
            Process::Worker(node) => keys.node(node),
            Process::Scheduler(scheduler) => keys.scheduler(scheduler),
        };
        let mut registered = cmd("HGET");
        registered.arg(key).arg("heart");
        let answer = self.ledger.send(OPERATION, &registered).await?;
        Ok(optional_word(OPERATION, answer)?.as_deref() == Some(parts(heart).0))
    }
}

/// What a heart is called among us: its connections, with commas between them, and after a space
/// the server to which they lead, if that says its name.
pub(super) fn join(connections: &str, run: &str) -> String {
    format!("{connections} {run}").trim_end().to_owned()
}

/// The connections of a heart and its server, which is empty where it is not known.
pub(super) fn parts(heart: &str) -> (&str, &str) {
    heart.split_once(' ').unwrap_or((heart, ""))
}

/// The connections of a heart, one by one.
fn names(heart: &str) -> impl Iterator<Item = &str> {
    parts(heart).0.split(',')
}

/// What a connection is called, from its line of `CLIENT LIST` or `CLIENT INFO`: `ID@ADDRESS`. The address tells a
/// server from another that has given the same number to somebody else.
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
    fn a_connection_is_called_by_its_number_and_address() {
        let line = "id=57 addr=10.0.0.7:51234 laddr=10.0.0.1:6379 fd=8 name= age=0 idle=0 flags=N";
        assert_eq!(name(line).as_deref(), Some("57@10.0.0.7:51234"));
        assert_eq!(name("txt:id=5"), None);
    }

    #[test]
    fn a_heart_comes_apart_as_it_was_joined() {
        let two = "57@10.0.0.7:51234,61@10.0.0.7:51240";
        for (connections, run) in [(two, "9f3c"), ("57@/run/redis:0", "")] {
            assert_eq!(parts(&join(connections, run)), (connections, run));
        }
        assert_eq!(names(&join(two, "9f3c")).collect::<Vec<_>>().join(","), two);
    }
}
