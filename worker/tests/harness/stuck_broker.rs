//! A broker whose acknowledgements never end, like on a connection that RabbitMQ blocks.

#![expect(unreachable_pub, reason = "one test file uses it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_broker::{
    Broker, Browser, Delivery, Depth, Error, Link, Outgoing, PublishError, Queue, Settle,
    Subscription,
};
use tokio::sync::watch;

pub struct StuckBroker(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for StuckBroker {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        self.0.publish(queue, message).await
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        Box::new(StuckSubscription(self.0.subscribe(queue, prefetch).await))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        self.0.depth(queue).await
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error> {
        self.0.browse(queue).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        self.0.purge(queue).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.0.link()
    }

    async fn close(&self, grace: Duration) {
        self.0.close(grace).await;
    }
}

struct StuckSubscription(Box<dyn Subscription>);

#[async_trait]
impl Subscription for StuckSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.0.next().await?;
        Some(Delivery { settle: Box::new(StuckSettle), ..delivery })
    }
}

struct StuckSettle;

#[async_trait]
impl Settle for StuckSettle {
    async fn ack(self: Box<Self>) {
        std::future::pending::<()>().await;
    }

    async fn requeue(self: Box<Self>) {}
}
