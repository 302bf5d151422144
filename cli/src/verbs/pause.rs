//! `longshore pause`: pauses a job, or all that a filter shows: running subtasks finish.

use clap::Args;
use longshore_producer::BulkAction;

use super::bulk;
use super::selection::JobsArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore pause 0197c7a0-8e7e
  longshore pause --name nightly
  longshore pause --task resize --label team=imaging --dry-run
  longshore pause --queue gpu --yes";

/// Pause a job, or all that a filter shows: running subtasks finish, no new ones start
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pause {
    #[command(flatten)]
    jobs: JobsArgument,
}

impl Pause {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let chosen = bulk::one_or_all(BulkAction::Pause, &self.jobs, settings, output).await?;
        let Some(chosen) = chosen else { return Ok(()) };
        let state = chosen.pause().await?;
        job::state(output, chosen.id(), state)
    }
}
