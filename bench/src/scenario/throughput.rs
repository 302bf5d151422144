//! `throughput-keep`, `throughput-discard` and `single`: no-op subtasks at full speed.
//!
//! They run in chunks of automatic size with results kept or discarded, or with one message for
//! each.

use async_trait::async_trait;
use longshore_protocol::JobDocument;
use serde_json::{Value, json};

use super::Scenario;
use crate::Error;
use crate::baseline::{Baseline, BaselineValues};
use crate::host::cores;
use crate::report::{Sample, Unit, sample};
use crate::testbed::{Testbed, job};

/// The intended duration of a job in seconds, times the scale.
const SECONDS: f64 = 4.0;

pub(super) struct Throughput {
    /// Further fields of the job document.
    extra: Value,
    /// Makes samples of subtasks per second, their ratio to the queue baseline, and their rate per
    /// core.
    judge: fn(f64, f64, f64) -> Vec<Sample>,
    /// The subtasks of a job, found by the warm-up.
    subtasks: u64,
}

impl Throughput {
    pub(super) fn keep() -> Self {
        Self::new(json!({"results": "keep"}), |rate, of_queue, _| {
            vec![rate_of(rate), times_the_queue(of_queue).at_least(20.0)]
        })
    }

    pub(super) fn discard() -> Self {
        Self::new(json!({"results": "discard"}), |rate, of_queue, a_core| {
            let a_core = sample("subtasks a core", Unit::PerSecond, a_core).at_least(250_000.0);
            vec![rate_of(rate), a_core, times_the_queue(of_queue)]
        })
    }

    pub(super) fn single() -> Self {
        Self::new(json!({"results": "keep", "chunk": 1}), |rate, of_queue, _| {
            vec![rate_of(rate), times_the_queue(of_queue).at_least(0.7)]
        })
    }

    fn new(extra: Value, judge: fn(f64, f64, f64) -> Vec<Sample>) -> Self {
        Self { extra, judge, subtasks: 0 }
    }

    fn document(&self, subtasks: u64) -> JobDocument {
        job("noop", subtasks, &self.extra)
    }
}

fn rate_of(rate: f64) -> Sample {
    sample("subtasks", Unit::PerSecond, rate)
}

fn times_the_queue(ratio: f64) -> Sample {
    sample("times the one-queue baseline", Unit::Ratio, ratio)
}

#[async_trait]
impl Scenario for Throughput {
    fn baselines(&self) -> &'static [Baseline] {
        &[Baseline::Queue, Baseline::Function]
    }

    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        self.subtasks = testbed.calibrate(SECONDS, |subtasks| self.document(subtasks)).await?;
        Ok(())
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        baseline: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let (job, took) = testbed.run(&self.document(self.subtasks)).await?;
        job.delete().await?;
        let rate = self.subtasks as f64 / took.as_secs_f64();
        let mut samples = (self.judge)(rate, rate / baseline.queue, rate / cores() as f64);
        samples.push(sample("subtasks of the job", Unit::Count, self.subtasks as f64));
        Ok(samples)
    }
}
