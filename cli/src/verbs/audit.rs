//! `longshore audit`: recounts a job's counts from the raw keys; exit code 1 if they differ.

use clap::Args;

use super::selection::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Recount a job's counts from the raw keys; exit code 1 if they don't balance
#[derive(Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    job: JobArgument,
}

impl Audit {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings).await?;
        let audit = jobs.job(self.job.find(&jobs).await?).audit().await?;
        job::audit(output, &audit)?;
        if audit.is_clean() {
            return Ok(());
        }
        output.flush()?;
        Err(Failure::unwell(format_args!("the counts of job {} are not in order", audit.job)))
    }
}
