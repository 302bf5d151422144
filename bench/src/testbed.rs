//! What a scenario runs on: a started fleet, its client, and jobs calibrated to a duration.

use std::time::{Duration, Instant};

use longshore_producer::{Client, Job, JobDocument, Settings};
use longshore_protocol::JobSummary;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Layout};
use crate::processes::MeasuredProcesses;
use crate::services::Services;
use crate::{Config, Error};

/// The subtasks of the first calibration job, times the scale; also the fewest subtasks of a run.
const FIRST_CALIBRATION: u64 = 2_000;

/// The shortest duration of a job from which the rate can be computed.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// The most subtasks of a calibration job.
const LARGEST_CALIBRATION: u64 = 50_000_000;

/// The longest wait for the client to close its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A fleet in a namespace of its own, and a client for it.
pub(crate) struct Testbed<'a> {
    pub(crate) config: &'a Config,
    pub(crate) services: &'a Services,
    pub(crate) namespace: String,
    pub(crate) fleet: Fleet,
    pub(crate) client: Client,
}

impl<'a> Testbed<'a> {
    /// Starts the fleet and connects the client.
    pub(crate) async fn prepare(
        config: &'a Config,
        services: &'a Services,
        namespace: &str,
        layout: &Layout,
    ) -> Result<Self, Error> {
        let mut fleet = Fleet::new(config, namespace)?;
        fleet.start(layout, services).await?;
        let settings = Settings {
            amqp_url: config.amqp_url.clone(),
            redis_url: config.redis_url.clone(),
            namespace: namespace.to_owned(),
            ..Settings::default()
        };
        let client = Client::connect(&settings).await?;
        Ok(Self { config, services, namespace: namespace.to_owned(), fleet, client })
    }

    /// Disconnects the client and stops the fleet.
    pub(crate) async fn stop(&mut self) {
        self.client.close(CLOSE_TIMEOUT).await;
        self.fleet.stop().await;
    }

    /// The processes of this host whose processor time is measured.
    pub(crate) fn measured_processes(&self) -> MeasuredProcesses {
        let services =
            [("rabbitmq", self.services.rabbit_process), ("redis", self.services.redis_process)];
        let services = services.into_iter().filter_map(|(role, pid)| Some((role, pid?)));
        services.chain(self.fleet.processes()).chain([("client", std::process::id())]).collect()
    }

    /// A duration in seconds, times the scale.
    pub(crate) fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.config.scale)
    }

    /// A number times the scale, at least `least`.
    pub(crate) fn size(&self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.config.scale) as u64).max(least)
    }

    /// Submits a job and waits for its success; returns how long that took.
    pub(crate) async fn run(&self, document: &JobDocument) -> Result<(Job, Duration), Error> {
        let begun = Instant::now();
        let job = self.client.submit(document).await?;
        succeeded(&job.wait().await?)?;
        Ok((job, begun.elapsed()))
    }

    /// Finds how many subtasks a job needs to last for about `seconds` times the scale, by jobs of
    /// growing size. That warms up the fleet, too.
    pub(crate) async fn calibrate(
        &self,
        seconds: f64,
        document: impl Fn(u64) -> JobDocument,
    ) -> Result<u64, Error> {
        let enough = LONG_ENOUGH.min(self.time(seconds));
        let first = self.size(FIRST_CALIBRATION, 50);
        let mut size = first;
        loop {
            let (job, took) = self.run(&document(size)).await?;
            job.delete().await?;
            let wanted = size as f64 * self.time(seconds).as_secs_f64() / took.as_secs_f64();
            if took >= enough || size >= LARGEST_CALIBRATION {
                return Ok(round(wanted).max(first));
            }
            size = round(wanted.min(size as f64 * 8.0)).clamp(size + 1, LARGEST_CALIBRATION);
        }
    }
}

/// Rounds to two significant digits, which are easier to read.
fn round(value: f64) -> u64 {
    let digits = 10f64.powf((value.max(1.0).log10().floor() - 1.0).max(0.0));
    ((value / digits).round() * digits) as u64
}

/// A job over a range; `extra` holds further fields of the document. Redis removes the job an hour
/// after its end, should the benchmark not do so.
pub(crate) fn job(task: &str, subtasks: u64, extra: &Value) -> JobDocument {
    let mut document = json!({
        "task": task,
        "split": {"by": "range", "start": 0, "end": subtasks},
        "keep_for": "1h",
    });
    let fields = document.as_object_mut().expect("made as an object");
    fields.extend(extra.as_object().cloned().unwrap_or_default());
    JobDocument::parse(document.to_string().as_bytes()).expect("a document of our own is good")
}

/// Fails unless the job succeeded, because figures of a failed job mean nothing.
pub(crate) fn succeeded(summary: &JobSummary) -> Result<(), Error> {
    if summary.state.is_success() && summary.counts.done == summary.counts.total {
        return Ok(());
    }
    let error = summary.error.as_deref().unwrap_or("without an error");
    Err(Error::Unexpected(format!("job {} ended as {}: {error}", summary.id, summary.state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_two_digits() {
        assert_eq!([7.4, 99.6, 123.0, 4_567.0].map(round), [7, 100, 120, 4_600]);
    }

    #[test]
    fn a_job_takes_further_fields() {
        let document = job("noop", 5, &json!({"chunk": 1, "results": "discard"}));
        let text = document.to_json();
        assert!(text.contains("\"chunk\":1") && text.contains("discard"), "{text}");
    }
}
