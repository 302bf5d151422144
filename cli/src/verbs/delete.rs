//! `longshore delete`: deletes an ended job or many; `--force` cancels the job first.

use clap::Args;
use longshore_producer::{BulkAction, ErrorKind};

use super::bulk;
use super::selection::{Chosen, JobsArgument};
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore delete 0197c7a0-8e7e
  longshore delete --state succeeded --older-than 12h --dry-run
  longshore delete --state succeeded --older-than 12h --yes";

/// Delete an ended job, or all that a filter shows, with results and errors
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    #[command(flatten)]
    jobs: JobsArgument,
    /// Cancel the job first if it has not ended; for one job
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let action = BulkAction::Delete;
        let chosen = self.jobs.chosen(action)?;
        let jobs = services::jobs(settings).await?;
        let key = match chosen {
            Chosen::One(key) => key,
            Chosen::Filter { .. } if self.force => {
                return Err(Failure::usage(
                    "--force is for one job; cancel those that the filter shows, then delete them",
                ));
            }
            Chosen::Filter { filter, is_dry } => {
                return bulk::perform(action, filter, is_dry, &jobs, output).await;
            }
        };
        let id = jobs.find(&key).await?;
        let handle = jobs.job(id);
        if self.force {
            match handle.cancel().await {
                // Refused: the job has ended already.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::IllegalState => {}
                Err(error) => return Err(error.into()),
            }
        }
        handle.delete().await?;
        job::deleted(output, id)
    }
}
