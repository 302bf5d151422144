//! `huge`: memory, messages and time to the first result of a job of 100,000,000 subtasks.
//!
//! The subtasks are no-ops. It also measures whether a subtask costs more than in a job of
//! 1,000,000.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use longshore_producer::Job;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::{Baseline, BaselineValues};
use crate::host::cores;
use crate::processes::{memory, tree};
use crate::report::{Sample, Unit, sample};
use crate::services::depth;
use crate::testbed::{Testbed, job, succeeded};

const HUGE: u64 = 100_000_000;
const LARGE: u64 = 1_000_000;

/// The number of jobs of [`LARGE`] subtasks whose durations are averaged, because each is short.
const LARGE_JOBS: u32 = 5;

/// The interval of the polls until the first subtask is done.
const FIRST_POLLS: Duration = Duration::from_millis(5);

/// The interval of the polls afterwards.
const POLLS: Duration = Duration::from_millis(250);

const MIB: f64 = 1024.0 * 1024.0;

pub(super) struct Huge;

/// What was observed while a job ran.
#[derive(Default)]
struct Peaks {
    /// When the first subtask was done, in milliseconds after the submission; 0 until then.
    first_ms: f64,
    /// The most memory of Redis, in bytes.
    redis: u64,
    /// The most messages in the work queue.
    waiting: u32,
}

#[async_trait]
impl Scenario for Huge {
    fn baselines(&self) -> &'static [Baseline] {
        &[Baseline::Queue]
    }

    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let (job, _) = testbed.run(&document(testbed.size(LARGE, 10_000))).await?;
        Ok(job.delete().await?)
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        baseline: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let (large, huge) = (testbed.size(LARGE, 10_000), testbed.size(HUGE, 100_000));
        let mut took = Duration::ZERO;
        for _ in 0..LARGE_JOBS {
            let (job, one) = testbed.run(&document(large)).await?;
            job.delete().await?;
            took += one;
        }
        let large_ns = took.as_nanos() as f64 / (large * u64::from(LARGE_JOBS)) as f64;
        let before = testbed.services.redis_memory().await?;
        let begun = Instant::now();
        let job = testbed.client.submit(&document(huge)).await?;
        let (ended, peaks) = tokio::join!(job.wait(), observe(testbed, &job, begun));
        succeeded(&ended?)?;
        let took = begun.elapsed();
        let peaks = peaks?;
        job.delete().await?;
        let huge_ns = took.as_nanos() as f64 / huge as f64;
        let growth = peaks.redis.saturating_sub(before) as f64;
        let scheduler = memory(&tree(testbed.fleet.process("scheduler"))).peak as f64;
        let rate = huge as f64 / took.as_secs_f64();
        Ok(vec![
            sample("subtasks", Unit::PerSecond, rate),
            sample("times the one-queue baseline", Unit::Ratio, rate / baseline.queue),
            sample("growth of Redis", Unit::Bytes, growth).at_most(30e6),
            sample("peak memory of the scheduler", Unit::Bytes, scheduler).at_most(64.0 * MIB),
            sample("deepest work queue", Unit::Count, f64::from(peaks.waiting))
                .at_most(2.0 * cores() as f64),
            sample("first subtask after", Unit::Ms, peaks.first_ms).at_most(1_000.0),
            sample("cost of a subtask, huge to large", Unit::Ratio, huge_ns / large_ns)
                .at_most(1.1),
        ])
    }
}

fn document(subtasks: u64) -> longshore_protocol::JobDocument {
    job("noop", subtasks, &json!({"results": "discard"}))
}

/// Polls the job and the services until the job has ended.
async fn observe(testbed: &Testbed<'_>, job: &Job, begun: Instant) -> Result<Peaks, Error> {
    let queue = format!("{}.work.default", testbed.namespace);
    let mut peaks = Peaks::default();
    loop {
        let summary = job.summary().await?;
        if peaks.first_ms == 0.0 && summary.counts.done > 0 {
            peaks.first_ms = begun.elapsed().as_secs_f64() * 1e3;
        }
        peaks.redis = peaks.redis.max(testbed.services.redis_memory().await?);
        peaks.waiting = peaks.waiting.max(depth(&testbed.services.channel, &queue).await?);
        if summary.state.is_terminal() {
            return Ok(peaks);
        }
        tokio::time::sleep(if peaks.first_ms == 0.0 { FIRST_POLLS } else { POLLS }).await;
    }
}
