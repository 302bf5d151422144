//! `longshore resume`: resumes a paused job, or all that a filter shows.

use clap::Args;
use longshore_producer::BulkAction;

use super::bulk;
use super::selection::{Chosen, JobsArgument};
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::services;
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore resume 0197c7a0-8e7e
  longshore resume --state paused --queue gpu --yes";

/// Resume a paused job, or all that a filter shows
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Resume {
    #[command(flatten)]
    jobs: JobsArgument,
}

impl Resume {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let action = BulkAction::Resume;
        let chosen = self.jobs.chosen(action)?;
        let jobs = services::jobs(settings)?;
        let key = match chosen {
            Chosen::One(key) => key,
            Chosen::Filter { filter, is_dry } => {
                return bulk::perform(action, filter, is_dry, &jobs, output).await;
            }
        };
        let id = jobs.find(&key).await?;
        let state = jobs.job(id).resume().await?;
        job::state(output, id, state)
    }
}
