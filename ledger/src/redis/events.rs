//! Subscribes to the hints of a topic on a connection of its own, and reports gaps after an outage.
//!
//! After any error the connection is closed and opened again with a growing pause.
//!
//! ```text
//! connect ──> subscribe ──> messages, a ping every few seconds ──┐
//!    ^                                                           │ error, end, silence
//!    └──────────── pause (grows to 5 s) <── Event::Gap ──────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Backoff, Hint, JobId};
use redis::aio::ConnectionLike;
use redis::{PushInfo, PushKind, Value};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::RedisLedger;
use super::connection_watch;
use super::reading::{MOST_INDEX, results_page};
use super::reply::{Reply, corrupt};
use super::summary::Fields;
use super::transport::Followed;
use crate::{Ended, Error, Event, Events, Topic};

/// A connection without messages is pinged after this time, so that a server that vanished without
/// notice is detected.
const PING_EVERY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

struct RedisEvents {
    ledger: RedisLedger,
    topic: Topic,
    followed: Option<Followed>,
    backoff: Backoff,
}

impl RedisLedger {
    pub(super) async fn follow_events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        let backoff = Backoff::doubling(FIRST_PAUSE, LONGEST_PAUSE);
        let mut events = RedisEvents { ledger: self.clone(), topic, followed: None, backoff };
        events.connect().await?;
        Ok(Box::new(events))
    }
}

impl RedisEvents {
    async fn connect(&mut self) -> Result<(), Error> {
        let channel = self.ledger.keys().events_for(self.topic);
        let followed = self.ledger.transport().follow(&channel).await;
        let followed = followed.map_err(|failure| self.ledger.error("events", &failure))?;
        let connection = followed.line.as_deref().and_then(connection_watch::name);
        let run = followed.run.as_deref().unwrap_or_default();
        *self.ledger.own_connections() =
            connection.map(|connection| connection_watch::join(&connection, run));
        followed.round_trips.iter().for_each(|took| self.ledger.round_trips().note(*took));
        self.followed = Some(followed);
        self.backoff.reset();
        Ok(())
    }

    /// Connects, with retries. Logs one line when hints stop, and one when they resume.
    async fn reconnect(&mut self) {
        let mut is_told = false;
        while let Err(error) = self.connect().await {
            if is_told {
                debug!(%error, "hints still unavailable");
            } else {
                warn!(%error, "hints unavailable until Redis can be reached");
                is_told = true;
            }
            sleep(self.backoff.next_pause()).await;
        }
        if is_told {
            info!("hints available again");
        }
    }

    fn disconnect(&mut self) {
        self.followed = None;
        *self.ledger.own_connections() = None;
    }
}

impl Drop for RedisEvents {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// A message of a channel.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Message {
    /// A job ended: the fields of its hash and, if they are few, its results as the function
    /// `results` answers.
    Ended { job: JobId, fields: Vec<Text>, results: Option<Vec<Text>> },
    #[serde(untagged)]
    Hint(Hint),
}

/// A value that Redis would answer as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Words(String),
    Number(u64),
}

impl Text {
    fn into_value(self) -> Value {
        Value::BulkString(match self {
            Self::Words(text) => text.into_bytes(),
            Self::Number(number) => number.to_string().into_bytes(),
        })
    }
}

pub(super) fn read(message: &[u8]) -> Result<Event, Error> {
    const OPERATION: &str = "events";
    let message = serde_json::from_slice(message);
    Ok(match message.map_err(|e| corrupt(OPERATION, e.to_string()))? {
        Message::Hint(hint) => Event::Hint(hint),
        Message::Ended { job, fields, results } => {
            let reply = |items: Vec<Text>| {
                let items = items.into_iter().map(Text::into_value).collect();
                Reply::list(OPERATION, Value::Array(items))
            };
            let summary = Fields::new(OPERATION, reply(fields)?.fields()?).summary(job, "")?;
            let mut results = results.map(|page| results_page(reply(page)?)).transpose()?;
            if let Some(page) = results.as_mut().filter(|page| page.next == MOST_INDEX) {
                page.next = u64::MAX;
            }
            Event::Ended(Arc::new(Ended { summary, results }))
        }
    })
}

/// The payload of the next message; `None` if the connection is broken.
async fn next_message(followed: &mut Followed, patience: Duration) -> Option<Vec<u8>> {
    loop {
        match timeout(PING_EVERY, followed.pushes.recv()).await {
            Ok(Some(PushInfo { kind: PushKind::Message, data })) => {
                match data.into_iter().next_back() {
                    Some(Value::BulkString(payload)) => return Some(payload),
                    _ => debug!("hint is not text"),
                }
            }
            Ok(Some(PushInfo { kind: PushKind::Disconnection, .. }) | None) => return None,
            Ok(Some(_)) => {}
            Err(_) => {
                let ping = redis::cmd("PING");
                let answer = timeout(patience, followed.connection.req_packed_command(&ping)).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return None;
                }
            }
        }
    }
}

#[async_trait]
impl Events for RedisEvents {
    async fn next(&mut self) -> Event {
        let patience = self.ledger.inner.config.response_timeout;
        loop {
            let Some(followed) = &mut self.followed else {
                self.reconnect().await;
                return Event::Gap;
            };
            if followed.lost.swap(false, Ordering::Relaxed) {
                return Event::Gap;
            }
            let Some(message) = next_message(followed, patience).await else {
                self.disconnect();
                continue;
            };
            match read(&message) {
                Ok(event) => return event,
                // Another version may send hints that this one does not know.
                Err(error) => debug!(%error, "unknown hint"),
            }
        }
    }
}
