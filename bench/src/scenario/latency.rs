//! `latency`: the time from submission to result of jobs of one no-op subtask, one after another.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::{TryStreamExt, pin_mut};
use longshore_producer::Client;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::{Baseline, BaselineValues};
use crate::report::{Sample, Unit, percentile, sample};
use crate::testbed::{Testbed, job, succeeded};

/// The number of jobs of a run, times the scale.
const JOBS: u64 = 500;

/// The number of first jobs that are not counted.
pub(super) const WARM_UP: u64 = 20;

pub(super) struct Latency;

#[async_trait]
impl Scenario for Latency {
    fn baselines(&self) -> &'static [Baseline] {
        &[Baseline::Latency]
    }

    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        for _ in 0..WARM_UP {
            run_job(&testbed.client).await?;
        }
        Ok(())
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        baseline: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let mut took = Vec::new();
        for _ in 0..testbed.size(JOBS, 10) {
            took.push(run_job(&testbed.client).await?);
        }
        let (p50, p99) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
        Ok(vec![
            sample("p50", Unit::Ms, p50),
            sample("p99", Unit::Ms, p99),
            sample("p50, times the baseline", Unit::Ratio, p50 / baseline.latency_p50_ms)
                .at_most(2.2),
            sample("p99, times the baseline", Unit::Ratio, p99 / baseline.latency_p99_ms)
                .at_most(4.0),
        ])
    }
}

/// Runs one job straight on the services; returns its duration in milliseconds.
pub(super) async fn run_job(client: &Client) -> Result<f64, Error> {
    let document = job("noop", 1, &json!({}));
    let begun = Instant::now();
    let job = client.submit(&document).await?;
    let (summary, results) = job.outcome().await?;
    succeeded(&summary)?;
    pin_mut!(results);
    if results.try_next().await?.is_none() {
        return Err(Error::Unexpected(format!("job {} has no result", job.id())));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
