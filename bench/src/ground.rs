//! What a scenario stands on: the services, a fleet, a client, and jobs to give them.

use std::time::{Duration, Instant};

use longshore_producer::{Client, Job, JobDocument, Settings};
use longshore_protocol::JobSummary;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Layout};
use crate::processes::Watched;
use crate::services::Services;
use crate::{Config, Error};

/// The first job that tells how fast jobs of its kind go, times the scale; the smallest that is worth a run.
const FIRST_LOOK: u64 = 2_000;

/// A look shorter than this tells little.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// No job needs more subtasks to tell how fast it goes.
const LARGEST_LOOK: u64 = 50_000_000;

/// How long the client may take to close its connection.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) services: &'a Services,
    pub(crate) namespace: String,
    pub(crate) fleet: Fleet,
    pub(crate) client: Client,
}

impl<'a> Ground<'a> {
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
        };
        let client = Client::connect(&settings).await?;
        Ok(Self { config, services, namespace: namespace.to_owned(), fleet, client })
    }

    /// Lets go of the servers, and asks the fleet to.
    pub(crate) async fn leave(&mut self) {
        self.client.broker().close(LEAVE_WITHIN).await;
        self.fleet.stop().await;
    }

    /// Whose time is measured, as far as they run on this machine.
    pub(crate) fn watched(&self) -> Watched {
        let services =
            [("rabbitmq", self.services.rabbit_process), ("redis", self.services.redis_process)];
        let services = services.into_iter().filter_map(|(role, pid)| Some((role, pid?)));
        services.chain(self.fleet.processes()).chain([("client", std::process::id())]).collect()
    }

    /// A duration times the scale.
    pub(crate) fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.config.scale)
    }

    /// A number times the scale, at least `least`.
    pub(crate) fn size(&self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.config.scale) as u64).max(least)
    }

    /// Submits the job and waits for its success; says what that took.
    pub(crate) async fn run(&self, document: &JobDocument) -> Result<(Job, Duration), Error> {
        let begun = Instant::now();
        let job = self.client.submit(document).await?;
        succeeded(&job.wait().await?)?;
        Ok((job, begun.elapsed()))
    }

    /// How many subtasks a job needs to last for about `seconds` of the scale, by larger and larger jobs. It warms the fleet
    /// up as well.
    pub(crate) async fn calibrate(
        &self,
        seconds: f64,
        document: impl Fn(u64) -> JobDocument,
    ) -> Result<u64, Error> {
        let enough = LONG_ENOUGH.min(self.time(seconds));
        let first = self.size(FIRST_LOOK, 50);
        let mut size = first;
        loop {
            let (job, took) = self.run(&document(size)).await?;
            job.delete().await?;
            let wanted = size as f64 * self.time(seconds).as_secs_f64() / took.as_secs_f64();
            if took >= enough || size >= LARGEST_LOOK {
                return Ok(round(wanted).max(first));
            }
            size = round(wanted.min(size as f64 * 8.0)).clamp(size + 1, LARGEST_LOOK);
        }
    }
}

/// Two digits are enough, and read better.
fn round(value: f64) -> u64 {
    let digits = 10f64.powf((value.max(1.0).log10().floor() - 1.0).max(0.0));
    ((value / digits).round() * digits) as u64
}

/// A job over a range: `extra` holds further fields of the document. An hour after its end Redis forgets it in any case.
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

/// What is measured of a job that did not succeed means nothing.
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
