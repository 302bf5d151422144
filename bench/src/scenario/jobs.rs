//! `jobs`: the time that 10,000 jobs of one no-op subtask take, all submitted at once.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::report::{Sample, Unit, sample};
use crate::testbed::{Testbed, job};

/// The number of jobs, times the scale.
const JOBS: u64 = 10_000;

/// The number of submissions in flight.
const IN_FLIGHT: usize = 200;

/// The interval of the polls for the end.
const POLL: Duration = Duration::from_millis(10);

pub(super) struct Jobs;

#[async_trait]
impl Scenario for Jobs {
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let count = testbed.size(JOBS / 20, 10);
        run_jobs(testbed, count).await.map(drop)
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let count = testbed.size(JOBS, 50);
        let before = testbed.services.redis_memory().await?;
        let begun = Instant::now();
        let published = run_jobs(testbed, count).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let growth = testbed.services.redis_memory().await?.saturating_sub(before);
        Ok(vec![
            sample("jobs", Unit::PerSecond, count as f64 / seconds),
            sample("jobs published", Unit::PerSecond, count as f64 / published.as_secs_f64()),
            sample("Redis, an ended job", Unit::Bytes, growth as f64 / count as f64),
            sample("jobs of the run", Unit::Count, count as f64),
        ])
    }
}

/// Publishes `count` jobs and waits for their end; returns how long the publishing took.
async fn run_jobs(testbed: &Testbed<'_>, count: u64) -> Result<Duration, Error> {
    let document = job("noop", 1, &json!({}));
    let ended_before = count_ended(testbed).await?;
    let begun = Instant::now();
    let publishing = stream::iter(0..count).map(|_| testbed.client.publish(&document));
    publishing.buffer_unordered(IN_FLIGHT).try_for_each(async |_| Ok(())).await?;
    let published = begun.elapsed();
    while count_ended(testbed).await? < ended_before + count {
        tokio::time::sleep(POLL).await;
    }
    Ok(published)
}

/// The number of jobs that have ended.
async fn count_ended(testbed: &Testbed<'_>) -> Result<u64, Error> {
    let mut redis = testbed.services.queries.clone();
    let list = format!("{}:jobs:finished", testbed.namespace);
    Ok(redis::cmd("ZCARD").arg(list).query_async(&mut redis).await?)
}
