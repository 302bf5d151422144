//! 10,000 jobs of one no-op at once.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::ground::{Ground, job};
use crate::report::{Sample, Unit, sample};
use crate::yardstick::Marks;

/// Jobs, times the scale.
const JOBS: u64 = 10_000;

/// Submissions in flight.
const IN_FLIGHT: usize = 200;

/// How closely the end is watched.
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Jobs;

#[async_trait]
impl Scenario for Jobs {
    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        let count = ground.size(JOBS / 20, 10);
        all(ground, count).await.map(drop)
    }

    async fn run(&mut self, ground: &mut Ground<'_>, _: Marks) -> Result<Vec<Sample>, Error> {
        let count = ground.size(JOBS, 50);
        let before = ground.services.redis_memory().await?;
        let begun = Instant::now();
        let published = all(ground, count).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let growth = ground.services.redis_memory().await?.saturating_sub(before);
        Ok(vec![
            sample("jobs", Unit::PerSecond, count as f64 / seconds),
            sample("jobs published", Unit::PerSecond, count as f64 / published.as_secs_f64()),
            sample("Redis, an ended job", Unit::Bytes, growth as f64 / count as f64),
            sample("jobs of the run", Unit::Count, count as f64),
        ])
    }
}

/// Publishes all, and waits until so many more have ended; gives the time that publishing took.
async fn all(ground: &Ground<'_>, count: u64) -> Result<Duration, Error> {
    let document = job("noop", 1, &json!({}));
    let ended_before = ended(ground).await?;
    let begun = Instant::now();
    let publishing = stream::iter(0..count).map(|_| ground.client.publish(&document));
    publishing.buffer_unordered(IN_FLIGHT).try_for_each(async |_| Ok(())).await?;
    let published = begun.elapsed();
    while ended(ground).await? < ended_before + count {
        tokio::time::sleep(LOOK).await;
    }
    Ok(published)
}

async fn ended(ground: &Ground<'_>) -> Result<u64, Error> {
    let mut redis = ground.services.questions.clone();
    let list = format!("{}:jobs:finished", ground.namespace);
    Ok(redis::cmd("ZCARD").arg(list).query_async(&mut redis).await?)
}
