//! `results`: results streamed to `longshore results JOB`, whose memory must not grow with the job.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::processes::memory;
use crate::report::{Sample, Unit, sample};
use crate::testbed::{Testbed, job};

/// The number of results, times the scale.
const MANY: u64 = 1_000_000;

/// The number of results of the job that is compared with, times the scale.
const FEW: u64 = 100_000;

/// The interval of the reads of the client's memory. The kernel keeps the peak, so only a peak
/// after the last read is missed.
const POLL: Duration = Duration::from_millis(2);

pub(super) struct Results;

#[async_trait]
impl Scenario for Results {
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        stream(testbed, testbed.size(FEW, 1_000)).await.map(drop)
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let (few, many) = (testbed.size(FEW, 1_000), testbed.size(MANY, 10_000));
        let (_, peak_few) = stream(testbed, few).await?;
        let (took, peak) = stream(testbed, many).await?;
        let growth = peak as f64 / peak_few as f64;
        Ok(vec![
            sample("results", Unit::PerSecond, many as f64 / took.as_secs_f64()),
            sample("peak memory of the client", Unit::Bytes, peak as f64),
            sample("peak memory, to a tenth of the results", Unit::Ratio, growth).at_most(1.2),
        ])
    }
}

/// Runs a job, then a client that prints its results; returns the duration and the peak memory of
/// the client in bytes.
async fn stream(testbed: &Testbed<'_>, subtasks: u64) -> Result<(Duration, u64), Error> {
    let (job, _) = testbed.run(&job("noop", subtasks, &json!({}))).await?;
    let id = job.id().to_string();
    let role = "client";
    let failed = |reason: String| Error::Process { role, reason };
    let begun = Instant::now();
    let mut client = testbed.fleet.command(&["results", &id]);
    let mut client = client.spawn().map_err(|error| failed(error.to_string()))?;
    let pid = client.id().unwrap_or_default();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = client.try_wait()? {
            break status;
        }
        peak = peak.max(memory(&[pid]).peak);
        tokio::time::sleep(POLL).await;
    };
    let took = begun.elapsed();
    job.delete().await?;
    if status.success() { Ok((took, peak)) } else { Err(failed(status.to_string())) }
}
