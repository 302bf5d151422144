//! `longshore cancel`: ends a job for good.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// End a job; what runs is stopped within a second
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
        let cancelled = services::jobs(settings)?.job(id).cancel().await;
        let state = cancelled.map_err(|error| {
            let later =
                "; nothing is cancelled: if it is admitted later it runs, so cancel it then";
            Failure::unless_on_its_way(error, later)
        })?;
        job::state(output, id, state.as_str())
    }
}
