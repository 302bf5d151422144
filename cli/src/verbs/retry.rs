//! `longshore retry`: retries failed subtasks, all or by index, also of a job that has ended.

use clap::Args;

use super::JobArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

/// Retry the failed subtasks of a job with all their attempts
#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    job: JobArgument,
    /// Retry only these subtasks, which must have failed [default: all failed subtasks]
    #[arg(short, long, value_name = "INDEX", num_args = 1..)]
    index: Vec<u64>,
}

impl Retry {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let id = self.job.job;
        let indices = (!self.index.is_empty()).then_some(self.index.as_slice());
        let state = services::jobs(settings)?.job(id).retry(indices).await?;
        job::state(output, id, state)
    }
}
