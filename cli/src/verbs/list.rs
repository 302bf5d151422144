//! `longshore list`: a page of the jobs that satisfy all conditions, newest first.

use clap::Args;
use longshore_protocol::state::JobState;
use longshore_protocol::{JobCursor, JobFilter, MAX_PAGE};

use crate::document::label;
use crate::failure::Failure;
use crate::output::{Output, job, talk};
use crate::services;
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore list --state failed --task resize
  longshore list --state running,paused --queue gpu
  longshore list --label team=imaging --label run=42 --json

With --json, one object: {\"jobs\": [...], \"next\": CURSOR or null}; the jobs have the fields of
`longshore status JOB --json`. Give CURSOR to --cursor for the next page.";

/// List jobs, the newest first, that satisfy every condition
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// In one of these states: queued, running, reducing, paused, succeeded, failed, cancelled,
    /// rejected
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<JobState>,
    /// That run this task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Whose subtasks go to the workers of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// With this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// With this label; given several times, with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The most jobs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Go on behind the last job of an earlier page
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<JobCursor>,
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
        let filter = JobFilter {
            states: self.states,
            task: self.task,
            queue: self.queue,
            tenant: self.tenant,
            tenants: Vec::new(),
            name: self.name,
            labels: self.labels.into_iter().collect(),
        };
        let jobs = services::jobs(settings)?;
        let page = jobs.list(&filter, self.cursor, self.limit).await?;
        job::page(output, &page)?;
        output.flush()?;
        if let Some(next) = page.next.filter(|_| !output.is_json()) {
            talk(format_args!("more follow: add --cursor {next}"));
        }
        Ok(())
    }
}
