//! `longshore cancel`: cancels a job, also one that no scheduler has admitted yet, or many jobs.

use clap::Args;
use longshore_producer::BulkAction;

use super::bulk;
use super::selection::JobsArgument;
use crate::failure::Failure;
use crate::output::{Output, job};
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore cancel 0197c7a0-8e7e
  longshore cancel --tenant lab --state queued,running --dry-run
  longshore cancel --label run=42 --yes";

/// Cancel a job, or all that a filter shows; running subtasks are stopped within a second. A job
/// that is not admitted yet is admitted as cancelled, if it arrives within 24 hours
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cancel {
    #[command(flatten)]
    jobs: JobsArgument,
}

impl Cancel {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let chosen = bulk::one_or_all(BulkAction::Cancel, &self.jobs, settings, output).await?;
        let Some(chosen) = chosen else { return Ok(()) };
        let cancelled = chosen.cancel().await?;
        job::cancelled(output, chosen.id(), cancelled)
    }
}
