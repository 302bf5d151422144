//! `longshore run`: runs one job in this process, without services, and prints its results.

use std::time::Duration;

use clap::Args;
use longshore_producer::{Client, JobDocument, SubmitError};

use super::submit::watch;
use crate::document::{JobArguments, tell_left_out};
use crate::embedded::{self, Embedded};
use crate::environment::environment;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::{Output, results};
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};

/// The longest wait of an interrupted run for the cancellation.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// Run a job in this process on all cores, without services
///
/// Prints the reduced value as one line of JSON, or without a reduction one line of JSON for each
/// subtask that is done, in index order. With --json each line is an object: {"result": …}, or
/// {"index": 0, "result": …}. Progress is shown on a terminal. Ctrl-C cancels the job.
///
/// Example: longshore run --task wordcount --lines 'texts/*.txt' --reduce merge_counts
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    job: JobArguments,
    #[command(flatten)]
    worker: WorkerFlags,
}

impl Run {
    pub(crate) async fn perform(self, flags: &Flags, output: &mut Output) -> Result<(), Failure> {
        let settings = Settings::load(flags, &self.worker, &FleetFlags::default(), &environment())?;
        let (source, document) = (self.job.source(), self.job.document()?);
        // The only worker takes the job's queue, whatever its name. It needs no grace at the end.
        let worker =
            embedded::worker(&settings, vec![document.queue.clone()], Duration::ZERO, false)?;
        embedded::check_tasks(&document, &worker.tasks(), &worker.disabled())?;
        let mut interrupts = Interrupts::follow()?;
        let mut fleet = Embedded::start(worker, &settings);
        let client = fleet.client().clone();
        let outcome = tokio::select! {
            outcome = run(&client, &document, &source, output) => outcome,
            failure = fleet.broken() => Err(failure),
            () = interrupts.next() => {
                cancel_all(&client).await;
                Err(Failure::Interrupted)
            }
        };
        fleet.stop(Duration::ZERO).await;
        outcome
    }
}

async fn run(
    client: &Client,
    document: &JobDocument,
    source: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let job = client.submit(document).await.map_err(|error| match error {
        // The id was just generated and means nothing to the user.
        SubmitError::Rejected { error, .. } => Failure::usage(format!("{source}: {error}")),
        error => error.into(),
    })?;
    tell_left_out(&job, document, "").await;
    let summary = watch(&job).await?;
    results::outcome(output, &job, document, &summary).await
}

/// Cancels all jobs. Errors don't matter, because the process is about to end.
async fn cancel_all(client: &Client) {
    let cancel = async {
        for job in client.jobs().recent(0).await.unwrap_or_default() {
            let _ = client.job(job.id).cancel().await;
        }
    };
    let _ = tokio::time::timeout(CANCEL_WITHIN, cancel).await;
}
