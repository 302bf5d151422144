//! Jobs of one no-op, one after another: from the submission to the result in hand.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::{TryStreamExt, pin_mut};
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::ground::{Ground, job, succeeded};
use crate::report::{Sample, Unit, percentile, sample};
use crate::yardstick::{Marks, Yardstick};

/// Jobs of a run, times the scale.
const JOBS: u64 = 500;

/// Jobs that are not counted.
const WARM_UP: u64 = 20;

pub(super) struct Latency;

#[async_trait]
impl Scenario for Latency {
    fn yardsticks(&self) -> &'static [Yardstick] {
        &[Yardstick::Floor]
    }

    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        for _ in 0..WARM_UP {
            one(ground).await?;
        }
        Ok(())
    }

    async fn run(&mut self, ground: &mut Ground<'_>, marks: Marks) -> Result<Vec<Sample>, Error> {
        let mut took = Vec::new();
        for _ in 0..ground.size(JOBS, 10) {
            took.push(one(ground).await?);
        }
        let (p50, p99) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
        Ok(vec![
            sample("p50", Unit::Ms, p50),
            sample("p99", Unit::Ms, p99),
            sample("p50, times the floor", Unit::Ratio, p50 / marks.floor_p50_ms).at_most(2.0),
            sample("p99, times the floor", Unit::Ratio, p99 / marks.floor_p99_ms).at_most(4.0),
        ])
    }
}

/// Milliseconds of one job.
async fn one(ground: &Ground<'_>) -> Result<f64, Error> {
    let document = job("noop", 1, &json!({}));
    let begun = Instant::now();
    let job = ground.client.submit(&document).await?;
    let (summary, results) = job.outcome().await?;
    succeeded(&summary)?;
    pin_mut!(results);
    if results.try_next().await?.is_none() {
        return Err(Error::Unexpected(format!("job {} has no result", job.id())));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
