//! Arguments that choose one job by id, prefix or name, or all jobs that a filter shows.

use std::time::Duration;

use clap::Args;
use longshore_producer::{BulkAction, JobKey, Jobs};
use longshore_protocol::state::JobState;
use longshore_protocol::{InvalidIdPrefix, JobFilter, JobId, JobIdPrefix, Timestamp};

use crate::document::label;
use crate::failure::Failure;
use crate::settings::parse_duration;

/// One job.
#[derive(Args)]
pub(crate) struct JobArgument {
    /// The job's id, or its first characters, at least 8
    #[arg(value_name = "JOB", value_parser = job_id, required_unless_present = "name")]
    job: Option<JobIdPrefix>,
    /// The job with this name, if exactly one has it
    #[arg(long, value_name = "NAME", conflicts_with = "job")]
    name: Option<String>,
}

impl JobArgument {
    /// The id of the job that is meant.
    pub(crate) async fn find(&self, jobs: &Jobs) -> Result<JobId, Failure> {
        let key = key(self.job.as_ref(), self.name.as_ref());
        let key = key.ok_or_else(|| Failure::usage("name a JOB"))?;
        Ok(jobs.find(&key).await?)
    }
}

/// What names a job, if anything does.
pub(crate) fn key(job: Option<&JobIdPrefix>, name: Option<&String>) -> Option<JobKey> {
    let id = job.cloned().map(JobKey::Id);
    id.or_else(|| name.cloned().map(JobKey::Name))
}

/// Parses the beginning of a job's id for clap.
pub(crate) fn job_id(text: &str) -> Result<JobIdPrefix, InvalidIdPrefix> {
    text.parse()
}

/// The conditions of a filter; a job has to satisfy all that are given.
#[derive(Args, Default)]
#[command(next_help_heading = "Jobs that satisfy every condition")]
pub(crate) struct FilterArguments {
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
    /// Submitted longer ago than this, as in 90m or 2days
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
}

impl FilterArguments {
    /// The filter, at this time of the ledger's clock.
    pub(crate) fn filter(&self, now: Timestamp) -> JobFilter {
        let before = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(age))
        };
        let aged =
            JobFilter { submitted_before: self.older_than.map(before), ..JobFilter::default() };
        JobFilter {
            states: self.states.clone(),
            task: self.task.clone(),
            queue: self.queue.clone(),
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            labels: self.labels.iter().cloned().collect(),
            ..aged
        }
    }

    /// Whether there is a condition other than the name.
    fn has_more_than_a_name(&self) -> bool {
        let without = JobFilter { name: None, ..self.filter(Timestamp::default()) };
        !without.is_empty()
    }
}

/// One job, or all that a filter shows.
#[derive(Args)]
pub(crate) struct JobsArgument {
    /// The job's id, or its first characters, at least 8
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: Option<JobIdPrefix>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Print how many jobs a filter shows, and the first of them; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Confirm that all jobs are meant that the filter shows
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// What a [`JobsArgument`] chooses.
pub(crate) enum Chosen<'a> {
    /// One job.
    One(JobKey),
    /// All jobs that a filter shows; with `is_dry`, only to see which.
    Filter { filter: &'a FilterArguments, is_dry: bool },
}

impl JobsArgument {
    /// What is chosen. A name alone is one job, unless `--yes` or `--dry-run` makes it a filter.
    pub(crate) fn chosen(&self, action: BulkAction) -> Result<Chosen<'_>, Failure> {
        let Self { job, filter, dry_run, yes } = self;
        let is_filtered = filter.has_more_than_a_name();
        if job.is_some() && (is_filtered || filter.name.is_some()) {
            return Err(Failure::usage("JOB and a filter exclude each other; give one of them"));
        }
        if *dry_run && job.is_some() {
            return Err(Failure::usage(
                "--dry-run is for a filter; leave it out, or leave out JOB",
            ));
        }
        let chosen = key(job.as_ref(), filter.name.as_ref());
        match chosen {
            Some(key @ JobKey::Id(_)) => return Ok(Chosen::One(key)),
            Some(key) if !is_filtered && !yes && !dry_run => return Ok(Chosen::One(key)),
            None if !is_filtered => {
                return Err(Failure::usage(format_args!(
                    "nothing says which jobs to {action}; give a JOB, or --state, --task, --queue, \
                     --tenant, --label, --name or --older-than"
                )));
            }
            _ => {}
        }
        if !yes && !dry_run {
            return Err(Failure::usage(format_args!(
                "this would {action} every job that the filter shows; add --dry-run to see how \
                 many, or --yes to do it"
            )));
        }
        Ok(Chosen::Filter { filter, is_dry: *dry_run })
    }
}
