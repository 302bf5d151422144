//! `longshore cancel`: ends a job for good.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// End a job; what runs is stopped within a second. One that is not admitted yet is admitted as cancelled, if it comes
/// within 24 hours
#[derive(Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    job: JobArgument,
}

impl Cancel {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let id = self.job.job;
        let cancelled = services::jobs(settings)?.job(id).cancel().await?;
        job::cancelled(output, id, cancelled)
    }
}
