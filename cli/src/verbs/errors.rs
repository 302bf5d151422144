//! `longshore errors`: prints the errors of failed subtasks by index, as far as they are kept.

use clap::Args;
use futures_util::{TryStreamExt, pin_mut};

use super::selection::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, grouped, job, talk};
use crate::services;
use crate::settings::Settings;

/// Print the errors of a job's failed subtasks in index order; with --json one object per line
#[derive(Args)]
pub(crate) struct Errors {
    #[command(flatten)]
    job: JobArgument,
}

impl Errors {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings).await?;
        let handle = jobs.job(self.job.find(&jobs).await?);
        let summary = handle.summary().await?;
        let total = summary.counts.total;
        let failed = summary.counts.failed + summary.reduce.failed;
        let mut printed = 0;
        let errors = handle.errors();
        pin_mut!(errors);
        while let Some(entry) = errors.try_next().await? {
            job::error(output, &entry, total)?;
            printed += 1;
        }
        output.flush()?;
        if printed < failed {
            let (printed, failed) = (grouped(printed), grouped(failed));
            talk(format_args!("{printed} of {failed} errors are kept: the newest ones"));
        }
        Ok(())
    }
}
