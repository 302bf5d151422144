//! Following the hints on the channel `<namespace>:events`, on a connection of its own that is
//! supervised as a unit: on any error it is torn down and made again with a growing pause, and the
//! follower is told that there was a gap.
//!
//! ```text
//! connect ──> subscribe ──> messages, a ping every few seconds ──┐
//!    ^                                                           │ error, end, silence
//!    └──────────── pause (grows to 5 s) <── Event::Gap ──────────┘
//! ```

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::RedisLedger;
use crate::{Error, Event, Events};

/// How long a quiet connection goes unquestioned: a server that vanished without a word is noticed
/// this late.
const PING_EVERY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

struct Subscription {
    sink: PubSubSink,
    stream: PubSubStream,
}

struct RedisEvents {
    ledger: RedisLedger,
    subscription: Option<Subscription>,
    pause: Duration,
    turn: usize,
}

impl RedisLedger {
    pub(super) async fn follow_events(&self) -> Result<Box<dyn Events>, Error> {
        let mut events =
            RedisEvents { ledger: self.clone(), subscription: None, pause: FIRST_PAUSE, turn: 0 };
        events.connect().await?;
        Ok(Box::new(events))
    }
}

impl RedisEvents {
    /// In a cluster each try goes to the next node; any of them hears every hint.
    async fn connect(&mut self) -> Result<(), Error> {
        let channel = self.ledger.keys().events();
        let connected = self.ledger.transport().subscribe(&channel, self.turn).await;
        self.turn = self.turn.wrapping_add(1);
        let (sink, stream) =
            connected.map_err(|failure| self.ledger.error("events", &failure))?.split();
        self.subscription = Some(Subscription { sink, stream });
        self.pause = FIRST_PAUSE;
        Ok(())
    }

    /// Connects, however often it takes.
    async fn reconnect(&mut self) {
        while let Err(error) = self.connect().await {
            warn!(%error, "no hints until Redis can be reached again");
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Subscription {
    /// The next message; `None` when the connection is of no use any more.
    async fn next(&mut self, patience: Duration) -> Option<Msg> {
        loop {
            match timeout(PING_EVERY, self.stream.next()).await {
                Ok(message) => return message,
                Err(_) => {
                    let answer = timeout(patience, self.sink.ping::<redis::Value>()).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        return None;
                    }
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
            let Some(subscription) = &mut self.subscription else {
                self.reconnect().await;
                return Event::Gap;
            };
            let Some(message) = subscription.next(patience).await else {
                self.subscription = None;
                continue;
            };
            match serde_json::from_slice(message.get_payload_bytes()) {
                Ok(event) => return event,
                // Another version may know hints that we don't.
                Err(error) => debug!(%error, "a hint that can't be read"),
            }
        }
    }
}
