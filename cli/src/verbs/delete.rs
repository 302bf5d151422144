//! `longshore delete`: deletes an ended job; with `--force` first cancels one that has not ended.

use clap::Args;
use longshore_producer::Error;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Delete an ended job with its results and errors
#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    job: JobArgument,
    /// Cancel the job first if it has not ended
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let id = self.job.job;
        let handle = services::jobs(settings)?.job(id);
        if self.force {
            match handle.cancel().await {
                // Refused: the job has ended already.
                Ok(_) | Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        handle.delete().await?;
        job::deleted(output, id)
    }
}
