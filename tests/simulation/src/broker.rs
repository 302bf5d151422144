//! The broker as one process sees it: connections break, and messages are lost, doubled, delayed.
//!
//! Confirms may be wrong.
//!
//! Only chunk messages are affected. RabbitMQ does not lose a confirmed job document, so this
//! broker doesn't either.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_broker::{
    Broker, Browser, Delivery, Depth, Error, Link, Outgoing, PublishError, Queue, Settle,
    Subscription,
};
use longshore_protocol::ErrorKind;
use tokio::sync::watch;

use crate::process::{Impairment, Process};
use crate::sabotage::Sabotage;

/// The highest prefetch of a worker that does not fetch ahead of its slots.
const FEW: u16 = 16;

/// The connection of one process to the broker.
pub(crate) struct RemoteBroker(Arc<Process>);

impl RemoteBroker {
    pub(crate) fn new(process: &Arc<Process>) -> Arc<Self> {
        Arc::new(Self(process.clone()))
    }

    fn unreachable(&self) -> Error {
        let reason = format!("{} is cut off", self.0.name);
        let kind = ErrorKind::Unreachable;
        Error::Unavailable { kind, address: "the simulation".into(), reason }
    }
}

fn unknown(why: &str) -> Result<(), PublishError> {
    Err(PublishError::Unknown { kind: ErrorKind::Unreachable, reason: why.into() })
}

#[async_trait]
impl Broker for RemoteBroker {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        let process = &self.0;
        let world = &process.world;
        process.running().await;
        tokio::time::sleep(world.rng.millis(0..3)).await;
        if process.has(Impairment::Broker) {
            return unknown("not connected");
        }
        if *queue == Queue::Waiting && world.is_sabotaged(Sabotage::LoseWaiting) {
            return Ok(());
        }
        let disposable = !matches!(queue, Queue::Jobs | Queue::Waiting | Queue::Dead);
        if world.happens("publishes refused", |rates| rates.publish_refused) {
            return unknown("nack");
        }
        if disposable && world.happens("messages lost", |rates| rates.message_lost) {
            return Ok(());
        }
        if disposable && world.happens("messages late", |rates| rates.message_late) {
            let (world, queue) = (world.clone(), queue.clone());
            tokio::spawn(async move {
                tokio::time::sleep(world.rng.millis(10..8_000)).await;
                let _ = world.broker.publish(&queue, message).await;
            });
            return Ok(());
        }
        if world.happens("messages doubled", |rates| rates.message_doubled) {
            let _ = world.broker.publish(queue, message.clone()).await;
        }
        let published = world.broker.publish(queue, message).await;
        world.note(|| format!("{} published to {queue:?}: {published:?}", process.name));
        if world.happens("confirms lost", |rates| rates.confirm_lost) {
            return unknown("no confirm in time");
        }
        published
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        let process = self.0.clone();
        if matches!(queue, Queue::Work(_)) && prefetch > FEW {
            process.world.count("chunks fetched ahead");
        }
        Box::new(RemoteSubscription { process, queue: queue.clone(), prefetch, real: None })
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        self.0.running().await;
        if self.0.has(Impairment::Broker) {
            return Err(self.unreachable());
        }
        self.0.world.broker.depth(queue).await
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error> {
        self.0.running().await;
        if self.0.has(Impairment::Broker) {
            return Err(self.unreachable());
        }
        self.0.world.broker.browse(queue).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        self.0.running().await;
        if self.0.has(Impairment::Broker) {
            return Err(self.unreachable());
        }
        self.0.world.broker.purge(queue).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.0.link()
    }

    /// Does nothing: `publish` returns only after its message was sent.
    async fn close(&self, _grace: Duration) {}
}

/// The deliveries of one queue, over consecutive connections.
struct RemoteSubscription {
    process: Arc<Process>,
    queue: Queue,
    prefetch: u16,
    real: Option<(u64, Box<dyn Subscription>)>,
}

#[async_trait]
impl Subscription for RemoteSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let process = self.process.clone();
        loop {
            process.running().await;
            let now = process.session().await;
            if matches!(self.queue, Queue::Work(_))
                && process.world.is_sabotaged(Sabotage::EndSubscriptions)
                && process.world.rng.chance(5)
            {
                return None;
            }
            if self.real.as_ref().is_none_or(|(session, _)| *session != now) {
                let real = process.world.broker.subscribe(&self.queue, self.prefetch).await;
                self.real = Some((now, real));
            }
            let (session, real) = self.real.as_mut()?;
            let session = *session;
            let delivery = tokio::select! {
                biased;
                () = process.session_over(session) => None,
                delivery = real.next() => Some(delivery?),
            };
            let Some(delivery) = delivery else {
                self.real = None;
                continue;
            };
            let early = self.queue == Queue::Jobs
                && process.world.is_sabotaged(Sabotage::AckDocumentsEarly);
            return Some(deliver(process, session, delivery, early).await);
        }
    }
}

/// Gives a delivery to the process; `early` acknowledges it at once.
async fn deliver(process: Arc<Process>, session: u64, delivery: Delivery, early: bool) -> Delivery {
    // The delivery stays in the buffers of a frozen process until it thaws.
    process.running().await;
    let Delivery { settle, .. } = delivery;
    let id = if early {
        settle.ack().await;
        0
    } else {
        process.keep(session, settle)
    };
    Delivery { settle: Box::new(RemoteSettle { process, id }), ..delivery }
}

/// Settles a delivery, if its connection is still open.
struct RemoteSettle {
    process: Arc<Process>,
    id: u64,
}

#[async_trait]
impl Settle for RemoteSettle {
    async fn ack(self: Box<Self>) {
        self.process.running().await;
        let world = &self.process.world;
        // Rarely, or a worker's prefetch would be used up before the end.
        if world.is_sabotaged(Sabotage::LoseAcks) && world.rng.chance(2) {
            return;
        }
        if let Some(settle) = self.process.take(self.id) {
            settle.ack().await;
        }
    }

    async fn requeue(self: Box<Self>) {
        self.process.running().await;
        if let Some(settle) = self.process.take(self.id) {
            settle.requeue().await;
        }
    }
}
