//! `cpu` and `sleep`: subtasks of a known duration, and their share of the ideal throughput.

use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::JobDocument;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::fleet::Layout;
use crate::host::cores;
use crate::processes::Meter;
use crate::report::{Sample, Unit, sample};
use crate::spin;
use crate::testbed::{Testbed, job};

pub(super) struct Busy {
    task: &'static str,
    /// The duration of a subtask.
    each: Duration,
    /// The slots of the worker; `None` is one slot per core.
    slots: Option<u32>,
    /// The ideal duration of a run in seconds, times the scale.
    seconds: f64,
    /// The least share of the ideal throughput.
    target: f64,
}

impl Busy {
    pub(super) fn cpu() -> Self {
        let each = Duration::from_millis(10);
        Self { task: spin::TASK, each, slots: None, seconds: 10.0, target: 0.97 }
    }

    pub(super) fn sleep() -> Self {
        let each = Duration::from_millis(100);
        Self { task: "sleep", each, slots: Some(1_000), seconds: 10.0, target: 0.95 }
    }

    fn slots(&self) -> u64 {
        self.slots.map_or(cores() as u64, u64::from)
    }

    fn document(&self, rounds: f64) -> (JobDocument, u64) {
        let subtasks = (rounds * self.slots() as f64).ceil() as u64;
        let ms = self.each.as_millis() as u64;
        let extra = json!({"params": {"ms": ms}, "results": "discard"});
        (job(self.task, subtasks, &extra), subtasks)
    }
}

#[async_trait]
impl Scenario for Busy {
    fn layout(&self) -> Layout {
        Layout { workers: vec![self.slots], ..Layout::usual() }
    }

    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let (job, _) = testbed.run(&self.document(5.0).0).await?;
        Ok(job.delete().await?)
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let rounds = testbed.time(self.seconds).as_secs_f64() / self.each.as_secs_f64();
        let (document, subtasks) = self.document(rounds.max(5.0));
        let meter = Meter::start(testbed.measured_processes());
        let (job, took) = testbed.run(&document).await?;
        let usage = meter.read();
        job.delete().await?;
        let worked = self.each.as_secs_f64() * subtasks as f64;
        let share = worked / (took.as_secs_f64() * self.slots() as f64);
        let mut samples =
            vec![sample("share of the ideal", Unit::Share, share).at_least(self.target)];
        if self.slots.is_none() {
            let left = cores() as f64 - usage.others;
            let of_ours = worked / (took.as_secs_f64() * left);
            samples.push(sample("share of the cores that others left", Unit::Share, of_ours));
        }
        samples.push(sample("subtasks of the job", Unit::Count, subtasks as f64));
        Ok(samples)
    }
}
