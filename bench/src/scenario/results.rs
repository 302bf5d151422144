//! Results streamed to a client: `longshore results JOB`, whose memory must not follow the size of the job.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::ground::{Ground, job};
use crate::processes::memory;
use crate::report::{Sample, Unit, sample};
use crate::yardstick::Marks;

/// Results, times the scale; and those of the job that it is compared with.
const MANY: u64 = 1_000_000;
const FEW: u64 = 100_000;

/// How closely the client's memory is watched. The kernel keeps the peak, so all but the last look's time is covered.
const LOOK: Duration = Duration::from_millis(2);

pub(super) struct Results;

#[async_trait]
impl Scenario for Results {
    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        stream(ground, ground.size(FEW, 1_000)).await.map(drop)
    }

    async fn run(&mut self, ground: &mut Ground<'_>, _: Marks) -> Result<Vec<Sample>, Error> {
        let (few, many) = (ground.size(FEW, 1_000), ground.size(MANY, 10_000));
        let (_, peak_few) = stream(ground, few).await?;
        let (took, peak) = stream(ground, many).await?;
        let growth = peak as f64 / peak_few as f64;
        Ok(vec![
            sample("results", Unit::PerSecond, many as f64 / took.as_secs_f64()),
            sample("peak memory of the client", Unit::Bytes, peak as f64),
            sample("peak memory, to a tenth of the results", Unit::Ratio, growth).at_most(1.2),
        ])
    }
}

/// Runs a job, then a client that prints its results; gives the time and the peak memory of the client.
async fn stream(ground: &Ground<'_>, subtasks: u64) -> Result<(Duration, u64), Error> {
    let (job, _) = ground.run(&job("noop", subtasks, &json!({}))).await?;
    let id = job.id().to_string();
    let role = "client";
    let failed = |reason: String| Error::Process { role, reason };
    let begun = Instant::now();
    let mut client = ground.fleet.command(&["results", &id]);
    let mut client = client.spawn().map_err(|error| failed(error.to_string()))?;
    let pid = client.id().unwrap_or_default();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = client.try_wait()? {
            break status;
        }
        peak = peak.max(memory(&[pid]).peak);
        tokio::time::sleep(LOOK).await;
    };
    let took = begun.elapsed();
    job.delete().await?;
    if status.success() { Ok((took, peak)) } else { Err(failed(status.to_string())) }
}
