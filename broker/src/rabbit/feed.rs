//! The feed of one subscription: declares, consumes, and begins again when the stream ends, whatever the reason.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{Delivery, Queue, Subscription};

use super::attempts::Attempts;
use super::failure::Failure;
use super::link::Follower;
use super::session::Session;
use super::topology::Topology;
use super::tray::Tray;

/// Deliveries between the feed and `next()`, whatever the prefetch. The rest of the prefetch waits in lapin.
const MOST_BUFFERED: u16 = 256;

/// What a feed needs.
pub(crate) struct Feed {
    pub(crate) queue: Queue,
    pub(crate) prefetch: u16,
    pub(crate) link: Follower,
    pub(crate) topology: Topology,
    pub(crate) call: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) underway: TaskTracker,
}

/// A delivery and the session that brought it.
type Fetched = (Arc<Session>, Delivery);

/// The subscriber's end of a feed.
pub(crate) struct FeedSubscription {
    fetched: mpsc::Receiver<Fetched>,
    closing: CancellationToken,
}

/// Why a feed stopped to consume.
enum End {
    /// Nobody wants more.
    Unwanted,
    /// It has to begin again.
    Failed(Failure),
}

#[async_trait]
impl Subscription for FeedSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let (session, delivery) = self.fetched.recv().await?;
            if self.closing.is_cancelled() {
                return None;
            }
            // What a broken connection brought has been put back and comes again.
            if !session.is_over() {
                return Some(delivery);
            }
        }
    }
}

impl Feed {
    pub(crate) fn start(self) -> FeedSubscription {
        let buffered = usize::from(self.prefetch.clamp(1, MOST_BUFFERED));
        let (sender, fetched) = mpsc::channel(buffered);
        let closing = self.closing.clone();
        let underway = self.underway.clone();
        underway.spawn(self.run(sender));
        FeedSubscription { fetched, closing }
    }

    async fn run(self, subscriber: mpsc::Sender<Fetched>) {
        let (link, closing) = (self.link.clone(), self.closing.clone());
        let mut attempts = Attempts::new(self.queue.clone(), link, closing);
        while let Some(session) = attempts.next(subscriber.closed()).await {
            match self.consume(&session, &subscriber, &mut attempts).await {
                End::Unwanted => return,
                End::Failed(failure) => attempts.failed(&session, &failure),
            }
        }
    }

    /// Consumes until the stream ends.
    async fn consume(
        &self,
        session: &Arc<Session>,
        subscriber: &mpsc::Sender<Fetched>,
        attempts: &mut Attempts,
    ) -> End {
        let (tray, mut consumer) = match self.subscribe(session).await {
            Ok(subscribed) => subscribed,
            Err(failure) => return End::Failed(failure),
        };
        attempts.flows();
        loop {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                reason = session.ended() => return End::Failed(Failure::Broken(reason)),
                () = self.closing.cancelled() => break,
                () = subscriber.closed() => break,
            };
            let delivery = match delivery {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return End::Failed(error.into()),
                None => return End::Failed(cancelled()),
            };
            let fetched = (session.clone(), unpack(delivery, &tray));
            // Refused only when the subscription was dropped; then the delivery has gone back to the tray.
            if subscriber.send(fetched).await.is_err() {
                break;
            }
        }
        self.cancel(&tray, consumer).await;
        End::Unwanted
    }

    async fn subscribe(&self, session: &Arc<Session>) -> Result<(Arc<Tray>, Consumer), Failure> {
        self.topology.declare(session, &self.queue).await?;
        let channel = session.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions { global: false });
        session.within("setting the prefetch", qos).await?;
        let tray = Tray::new(session.clone(), channel, self.call, self.underway.clone());
        let consume = tray.channel().basic_consume(
            self.topology.name(&self.queue).into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = session.within("consuming", consume).await?;
        Ok((tray, consumer))
    }

    /// Ends the consumer and puts back what nobody was given.
    async fn cancel(&self, tray: &Arc<Tray>, mut consumer: Consumer) {
        let session = tray.session();
        let cancel = tray.channel().basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if let Err(failure) = session.within("cancelling a consumer", cancel).await {
            // The channel or the connection is gone, and RabbitMQ has put everything back.
            debug!(%failure, queue = ?self.queue, "could not cancel the consumer");
            return;
        }
        tray.put_back().await;
        while let Ok(Some(Ok(delivery))) = timeout(self.call, consumer.next()).await {
            tray.requeue(delivery.acker).await;
        }
    }
}

/// RabbitMQ ended the consumer, because its queue was deleted or moved; the connection goes on.
pub(crate) fn cancelled() -> Failure {
    Failure::Refused { code: super::failure::NOT_FOUND, text: "RabbitMQ ended the consumer".into() }
}

fn unpack(delivery: lapin::message::Delivery, tray: &Arc<Tray>) -> Delivery {
    let headers = delivery.properties.headers().as_ref().map(text_headers).unwrap_or_default();
    Delivery {
        body: Bytes::from(delivery.data),
        redelivered: delivery.redelivered,
        message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
        headers,
        settle: tray.hold(delivery.delivery_tag, delivery.acker),
    }
}

fn text_headers(table: &FieldTable) -> Vec<(String, String)> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    table.into_iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}
