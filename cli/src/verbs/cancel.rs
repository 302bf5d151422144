//! `longshore cancel`: cancels a job, also one that no scheduler has admitted yet.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Cancel a job; running subtasks are stopped within a second. A job that is not admitted yet is
/// admitted as cancelled, if it arrives within 24 hours
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
