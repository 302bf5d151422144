//! Measures the least time that a durable subtask can take with RabbitMQ and Redis alone.
//!
//! That is a publish, its confirm, its delivery, one write to Redis, and the acknowledgement.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, QueueDeleteOptions};

use super::queue::{confirming, consume, declare, publish_one};
use crate::Error;
use crate::report::percentile;
use crate::services::{Services, close};

/// The number of first rounds that are not counted.
const WARM_UP: usize = 50;

/// Measures the median and the 99th percentile, in milliseconds, of messages that go one by one
/// through a quorum queue.
pub(super) async fn measure(
    services: &Services,
    namespace: &str,
    time: Duration,
) -> Result<(f64, f64), Error> {
    let name = format!("{namespace}.baseline.latency");
    let key = format!("{namespace}:baseline");
    let (publishing, consuming) = (services.rabbit().await?, services.rabbit().await?);
    let publisher = confirming(publishing.create_channel().await?).await?;
    let channel = consuming.create_channel().await?;
    declare(&channel, &name, "quorum").await?;
    let mut consumer = consume(&channel, &name, 1).await?;
    let mut redis = services.redis().await?;
    let mut write = redis::cmd("HINCRBY");
    write.arg(&key).arg("done").arg(1);
    let (begun, mut took) = (Instant::now(), Vec::new());
    let mut rounds = 0;
    while rounds < 2 * WARM_UP || begun.elapsed() < time {
        let one = Instant::now();
        let (confirmed, delivery) = tokio::join!(publish_one(&publisher, &name), consumer.next());
        confirmed?;
        let Some(delivery) = delivery else {
            return Err(Error::Unexpected("RabbitMQ ended a consumer".into()));
        };
        write.query_async::<u64>(&mut redis).await?;
        delivery?.ack(BasicAckOptions::default()).await?;
        if rounds >= WARM_UP {
            took.push(one.elapsed().as_secs_f64() * 1e3);
        }
        rounds += 1;
    }
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
    close([publishing, consuming]).await;
    Ok((percentile(&mut took, 0.5), percentile(&mut took, 0.99)))
}
