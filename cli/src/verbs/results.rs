//! `longshore results`: prints a job's reduced value, or its results so far, also before its end.

use clap::Args;
use longshore_protocol::document::Results as Keep;

use super::selection::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, results};
use crate::services;
use crate::settings::Settings;

/// Print a job's results: the reduced value as a line of JSON, or without a reduction a line of
/// JSON for each subtask that is done, in index order
///
/// With --json each line is an object: {"index": 0, "result": …}, or {"result": …} for the reduced
/// value.
#[derive(Args)]
pub(crate) struct Results {
    #[command(flatten)]
    job: JobArgument,
    /// Go on until the job has ended; exit code 1 if it fails. An index without a result holds up
    /// those behind it until it has failed or the job has ended
    #[arg(long)]
    follow: bool,
}

impl Results {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings).await?;
        let job = jobs.job(self.job.find(&jobs).await?);
        let summary = job.summary().await?;
        if !summary.state.was_accepted() {
            return Err(results::failed(&summary));
        }
        let document = job.document().await?;
        if document.results == Keep::Discard {
            return Err(Failure::other(format_args!(
                "job {}: its results are discarded",
                job.id()
            )));
        }
        if self.follow {
            return results::follow(output, &job, &document).await;
        }
        if document.reduce.is_some() && !summary.state.is_success() {
            // Fails with the reason and the exit code.
            job.value().await?;
        }
        results::print(output, &job, &document, &summary).await
    }
}
