//! Measures the throughput of one RabbitMQ queue in messages per second.
//!
//! The messages are persistent, have 120 bytes, are published with confirms and consumed at the
//! same time, and are acknowledged one by one.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use tokio::sync::oneshot;

use crate::Error;
use crate::services::{Services, close};

/// The body of a message, as long as a chunk message.
pub(super) const MESSAGE: [u8; 120] = [b'x'; 120];

/// The number of publishes that wait for their confirm.
const IN_FLIGHT: usize = 1_000;

/// The number of deliveries that wait for their acknowledgement.
const PREFETCH: u16 = 1_000;

const PERSISTENT: u8 = 2;

/// Measures messages per second, from the first publish to the last acknowledgement.
pub(super) async fn through(
    services: &Services,
    namespace: &str,
    kind: &str,
    time: Duration,
) -> Result<f64, Error> {
    let name = format!("{namespace}.baseline.{kind}");
    let (publishing, consuming) = (services.rabbit().await?, services.rabbit().await?);
    let publisher = confirming(publishing.create_channel().await?).await?;
    let channel = consuming.create_channel().await?;
    declare(&channel, &name, kind).await?;
    let consumer = consume(&channel, &name, PREFETCH).await?;
    let (sender, published) = oneshot::channel();
    let begun = Instant::now();
    let acknowledging = tokio::spawn(acknowledge(consumer, published));
    let sent = publish(&publisher, &name, time).await;
    // After a failed publish this tells the consumer to expect no messages.
    let _ = sender.send(sent.as_ref().copied().unwrap_or_default());
    let acknowledged = acknowledging.await.map_err(std::io::Error::other)?;
    let seconds = begun.elapsed().as_secs_f64();
    let count = sent?;
    // The consumer is kept: dropping it would cancel it while its queue is deleted.
    let _consumer = acknowledged?;
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
    close([publishing, consuming]).await;
    Ok(count as f64 / seconds)
}

pub(super) async fn declare(channel: &Channel, name: &str, kind: &str) -> Result<(), Error> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    channel.queue_declare(name.into(), durable, arguments).await?;
    Ok(())
}

pub(super) async fn consume(
    channel: &Channel,
    name: &str,
    prefetch: u16,
) -> Result<Consumer, Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let (tag, options) = ("".into(), BasicConsumeOptions::default());
    Ok(channel.basic_consume(name.into(), tag, options, FieldTable::default()).await?)
}

pub(super) async fn confirming(channel: Channel) -> Result<Channel, Error> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes one message and waits for its confirm.
pub(super) async fn publish_one(channel: &Channel, name: &str) -> Result<(), Error> {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel.basic_publish("".into(), name.into(), options, &MESSAGE, properties);
    match confirm.await?.await? {
        Confirmation::Ack(None) => Ok(()),
        _ => Err(Error::Unexpected("RabbitMQ did not confirm a message of a baseline".into())),
    }
}

/// Publishes for `time`, waits until everything is confirmed, and returns the number of messages.
async fn publish(channel: &Channel, name: &str, time: Duration) -> Result<u64, Error> {
    let begun = Instant::now();
    let (mut count, mut flights) = (0, FuturesUnordered::new());
    while begun.elapsed() < time {
        while flights.len() < IN_FLIGHT {
            flights.push(publish_one(channel, name));
            count += 1;
        }
        if let Some(confirmed) = flights.next().await {
            confirmed?;
        }
    }
    while let Some(confirmed) = flights.next().await {
        confirmed?;
    }
    Ok(count)
}

/// Acknowledges deliveries one by one until their number is what `published` finally tells; returns
/// the consumer.
async fn acknowledge(
    mut consumer: Consumer,
    mut published: oneshot::Receiver<u64>,
) -> Result<Consumer, Error> {
    let (mut seen, mut all) = (0, None);
    while all.is_none_or(|all| seen < all) {
        tokio::select! {
            biased;
            told = &mut published, if all.is_none() => all = Some(told.unwrap_or_default()),
            delivery = consumer.next() => {
                let Some(delivery) = delivery else {
                    return Err(Error::Unexpected("RabbitMQ ended a consumer".into()));
                };
                delivery?.ack(BasicAckOptions::default()).await?;
                seen += 1;
            }
        }
    }
    Ok(consumer)
}
