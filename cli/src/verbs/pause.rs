//! `longshore pause`: pauses a job: running subtasks finish, no new ones start.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Pause a job: running subtasks finish, no new ones start
#[derive(Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    job: JobArgument,
}

impl Pause {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let id = self.job.job;
        let state = services::jobs(settings)?.job(id).pause().await?;
        job::state(output, id, state)
    }
}
