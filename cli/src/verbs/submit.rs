//! `longshore submit`: submits a job to the fleet; with `--wait` follows it and prints its results.

use std::time::Duration;

use clap::Args;
use futures_util::{TryStreamExt, pin_mut};
use longshore_producer::Job;
use longshore_protocol::JobSummary;

use crate::document::{JobArguments, tell_left_out};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::bar::Bar;
use crate::output::{Output, job, results, talk};
use crate::services::{self, CLOSE_WITHIN};
use crate::settings::{Settings, parse_duration};

/// The interval of the checks why a job does not start.
const EXPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Submit a job to the fleet and print its id when a scheduler has accepted it
///
/// Example: longshore submit --task thumbnail --files '/data/photos/*.jpg' --wait
#[derive(Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    job: JobArguments,
    /// Wait for the end of the job and print its results; exit code 1 if the job fails
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// Don't wait for a scheduler: return when RabbitMQ has the job
    #[arg(long)]
    detach: bool,
    /// The longest wait for a scheduler to accept the job
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    within: Duration,
}

impl Submit {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let document = self.job.document()?;
        let client = services::client(settings).await?;
        let outcome = async {
            if self.detach {
                return job::id(output, client.publish(&document).await?);
            }
            let job = client.submit_within(&document, self.within).await?;
            tell_left_out(&job, &document, "").await;
            if !self.wait {
                for text in needed_actions(&job).await.unwrap_or_default() {
                    talk(format_args!("the job waits: {text}"));
                }
                return job::id(output, job.id());
            }
            let mut interrupts = Interrupts::follow()?;
            let summary = tokio::select! {
                summary = watch(&job) => summary?,
                () = interrupts.next() => {
                    talk(format_args!("the job goes on; `longshore status {}` shows it", job.id()));
                    return Err(Failure::Interrupted);
                }
            };
            results::outcome(output, &job, &document, &summary).await
        };
        let outcome = outcome.await;
        client.close(CLOSE_WITHIN).await;
        outcome
    }
}

/// Waits for the job's end, with a bar on a terminal. Reports if no worker can run the job.
pub(crate) async fn watch(job: &Job) -> Result<JobSummary, Failure> {
    let bar = Bar::new();
    tokio::select! {
        summary = follow(job, &bar) => summary,
        () = explain(job, &bar) => unreachable!("it never ends"),
    }
}

/// Why the job waits for a person to act.
async fn needed_actions(job: &Job) -> Result<Vec<String>, longshore_producer::Error> {
    let reasons = job.reasons().await?;
    let reasons = reasons.into_iter().filter(|reason| reason.code.needs_action());
    Ok(reasons.map(|reason| reason.text).collect())
}

/// Reports why the job waits for a person to act, each time that the reasons change. Never ends.
async fn explain(job: &Job, bar: &Bar) {
    let mut told = Vec::new();
    loop {
        tokio::time::sleep(EXPLAIN_EVERY).await;
        // The task that waits for the end reports a ledger that does not answer.
        let Ok(reasons) = needed_actions(job).await else { continue };
        if reasons != told {
            for text in &reasons {
                bar.talk(format_args!("the job waits: {text}"));
            }
            if reasons.is_empty() {
                bar.talk("the job goes on");
            }
            told = reasons;
        }
    }
}

async fn follow(job: &Job, bar: &Bar) -> Result<JobSummary, Failure> {
    if !bar.is_drawn() {
        return Ok(job.wait().await?);
    }
    let progress = job.progress();
    pin_mut!(progress);
    let mut last = None;
    while let Some(summary) = progress.try_next().await? {
        bar.report(&summary);
        last = Some(summary);
    }
    bar.clear();
    last.ok_or_else(|| Failure::no_such_job(job.id()))
}
