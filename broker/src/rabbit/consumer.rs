//! The task behind one subscription: declares its queue, consumes, and begins again after any end.
//!
//! What it fetched and the subscriber did not take is requeued when the subscription is dropped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{Delivery, Queue, Subscription};

use super::delivery_tracker::DeliveryTracker;
use super::failure::{Failure, NOT_FOUND};
use super::link::Follower;
use super::retry::ConsumeRetry;
use super::session::Session;
use super::topology::Topology;

/// Most deliveries between the consumer and `next()`, whatever the prefetch. The rest of the
/// prefetch waits in lapin.
const MOST_BUFFERED: u16 = 256;

/// A consumer, ready to start.
pub(crate) struct Consumer {
    pub(crate) queue: Queue,
    pub(crate) prefetch: u16,
    pub(crate) link: Follower,
    pub(crate) topology: Topology,
    /// The time-out of a call.
    pub(crate) call: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) in_flight: TaskTracker,
}

/// A delivery and the session that brought it.
type Fetched = (Arc<Session>, Delivery);

/// The subscriber's end of a consumer.
pub(crate) struct RabbitSubscription {
    fetched: mpsc::Receiver<Fetched>,
    closing: CancellationToken,
}

/// Why consuming ended.
enum End {
    /// The subscription was dropped, or the broker is being closed.
    Stopped,
    /// Consuming has to begin again.
    Failed(Failure),
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let (session, delivery) = self.fetched.recv().await?;
            if self.closing.is_cancelled() {
                return None;
            }
            // RabbitMQ has requeued what a broken connection delivered, and delivers it again.
            if !session.is_over() {
                return Some(delivery);
            }
        }
    }
}

impl Consumer {
    pub(crate) fn start(self) -> RabbitSubscription {
        let buffered = usize::from(self.prefetch.clamp(1, MOST_BUFFERED));
        let (sender, fetched) = mpsc::channel(buffered);
        let closing = self.closing.clone();
        let in_flight = self.in_flight.clone();
        in_flight.spawn(self.run(sender));
        RabbitSubscription { fetched, closing }
    }

    async fn run(self, subscriber: mpsc::Sender<Fetched>) {
        let (link, closing) = (self.link.clone(), self.closing.clone());
        let mut retry = ConsumeRetry::new(self.queue.clone(), link, closing);
        while let Some(session) = retry.next_session(subscriber.closed()).await {
            match self.consume(&session, &subscriber, &mut retry).await {
                End::Stopped => return,
                End::Failed(failure) => retry.failed(&session, &failure),
            }
        }
    }

    /// Consumes until the stream of deliveries ends.
    async fn consume(
        &self,
        session: &Arc<Session>,
        subscriber: &mpsc::Sender<Fetched>,
        retry: &mut ConsumeRetry,
    ) -> End {
        let (tracker, mut deliveries) = match self.subscribe(session).await {
            Ok(subscribed) => subscribed,
            Err(failure) => return End::Failed(failure),
        };
        retry.succeeded();
        loop {
            let delivery = tokio::select! {
                delivery = deliveries.next() => delivery,
                failure = session.ended() => return End::Failed(failure),
                () = self.closing.cancelled() => break,
                () = subscriber.closed() => break,
            };
            let delivery = match delivery {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return End::Failed(error.into()),
                None => return End::Failed(cancelled()),
            };
            let fetched = (session.clone(), unpack(delivery, &tracker));
            // An error means that the subscription was dropped; the delivery is then with the
            // tracker.
            if subscriber.send(fetched).await.is_err() {
                break;
            }
        }
        self.cancel(&tracker, deliveries).await;
        End::Stopped
    }

    async fn subscribe(
        &self,
        session: &Arc<Session>,
    ) -> Result<(Arc<DeliveryTracker>, lapin::Consumer), Failure> {
        self.topology.declare(session, &self.queue).await?;
        let channel = session.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions { global: false });
        session.within("setting the prefetch", qos).await?;
        let in_flight = self.in_flight.clone();
        let tracker = DeliveryTracker::new(session.clone(), channel, self.call, in_flight);
        let consume = tracker.channel().basic_consume(
            self.topology.name(&self.queue).into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let deliveries = session.within("consuming", consume).await?;
        Ok((tracker, deliveries))
    }

    /// Ends the consumer and requeues what was not handed out.
    async fn cancel(&self, tracker: &Arc<DeliveryTracker>, mut deliveries: lapin::Consumer) {
        let session = tracker.session();
        let options = BasicCancelOptions::default();
        let cancel = tracker.channel().basic_cancel(deliveries.tag(), options);
        if let Err(failure) = session.within("cancelling a consumer", cancel).await {
            // The channel or the connection is gone, and RabbitMQ has requeued everything.
            debug!(%failure, queue = ?self.queue, "the consumer could not be cancelled");
            return;
        }
        tracker.requeue_dropped().await;
        while let Ok(Some(Ok(delivery))) = timeout(self.call, deliveries.next()).await {
            tracker.requeue(delivery.acker).await;
        }
    }
}

/// RabbitMQ ended the consumer, because its queue was deleted or moved; the connection goes on.
pub(crate) fn cancelled() -> Failure {
    Failure::Refused { code: NOT_FOUND, text: "RabbitMQ ended the consumer".into() }
}

fn unpack(delivery: lapin::message::Delivery, tracker: &Arc<DeliveryTracker>) -> Delivery {
    let headers = delivery.properties.headers().as_ref().map(text_headers).unwrap_or_default();
    Delivery {
        body: Bytes::from(delivery.data),
        redelivered: delivery.redelivered,
        message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
        headers,
        settle: tracker.track(delivery.delivery_tag, delivery.acker),
    }
}

pub(crate) fn text_headers(table: &FieldTable) -> Vec<(String, String)> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    table.into_iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}
