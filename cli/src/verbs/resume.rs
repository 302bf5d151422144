//! `longshore resume`: resumes a paused job in the state in which it was paused.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Resume a paused job
#[derive(Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    job: JobArgument,
}

impl Resume {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let id = self.job.job;
        let state = services::jobs(settings)?.job(id).resume().await?;
        job::state(output, id, state)
    }
}
