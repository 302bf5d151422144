//! `longshore retry`: retries failed subtasks, all or by index, also of a job that has ended.

use clap::Args;
use longshore_producer::BulkAction;

use super::bulk;
use super::selection::{Chosen, JobsArgument};
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore retry 0197c7a0-8e7e
  longshore retry 0197c7a0-8e7e --index 7 8
  longshore retry --state failed --task resize --yes";

/// Retry the failed subtasks of a job, or of all jobs that a filter shows, with all their attempts
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Retry {
    #[command(flatten)]
    jobs: JobsArgument,
    /// Retry only these subtasks of the job, which must have failed [default: all failed subtasks]
    #[arg(short, long, value_name = "INDEX", num_args = 1..)]
    index: Vec<u64>,
}

impl Retry {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let action = BulkAction::Retry;
        let chosen = self.jobs.chosen(action)?;
        let jobs = services::jobs(settings).await?;
        let indices = (!self.index.is_empty()).then_some(self.index.as_slice());
        let key = match chosen {
            Chosen::One(key) => key,
            Chosen::Filter { .. } if indices.is_some() => {
                return Err(Failure::usage("--index is for one job; leave out the filter"));
            }
            Chosen::Filter { filter, is_dry } => {
                return bulk::perform(action, filter, is_dry, &jobs, output).await;
            }
        };
        let id = jobs.find(&key).await?;
        let state = jobs.job(id).retry(indices).await?;
        job::state(output, id, state)
    }
}
