//! `longshore list`: a page of the jobs that satisfy all conditions, newest first.

use clap::Args;
use longshore_protocol::{JobCursor, MAX_PAGE};

use super::selection::FilterArguments;
use crate::failure::Failure;
use crate::output::{Output, jobs, talk};
use crate::services;
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore list --state failed --task resize
  longshore list --state running,paused --queue gpu
  longshore list --label team=imaging --label run=42 --json
  longshore list --state succeeded --older-than 12h --wide

With --json, one object: {\"jobs\": [...], \"next\": CURSOR or null}; the jobs have the fields of
`longshore status JOB --json`. Give CURSOR to --cursor for the next page.";

/// List jobs, the newest first, that satisfy every condition
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    filter: FilterArguments,
    /// The most jobs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Go on behind the last job of an earlier page
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<JobCursor>,
    /// List whole ids, and more columns
    #[arg(long)]
    wide: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| format!("use a whole number from 1 to {MAX_PAGE}"))
}

impl List {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings).await?;
        let filter = self.filter.filter(jobs.now().await?);
        let page = jobs.list(&filter, self.cursor, self.limit).await?;
        jobs::page(output, &jobs, &page, self.wide).await?;
        output.flush()?;
        if let Some(next) = page.next.filter(|_| !output.is_json()) {
            talk(format_args!("more follow: add --cursor {next}"));
        }
        Ok(())
    }
}
