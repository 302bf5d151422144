//! `longshore resume`: resumes a paused job, or all that a filter shows.

use clap::Args;
use longshore_producer::BulkAction;

use super::bulk;
use super::selection::JobsArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
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
        let chosen = bulk::one_or_all(BulkAction::Resume, &self.jobs, settings, output).await?;
        let Some(chosen) = chosen else { return Ok(()) };
        let state = chosen.resume().await?;
        job::state(output, chosen.id(), state)
    }
}
