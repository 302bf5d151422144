//! `longshore status`: shows one job with the reasons why it waits, or lists jobs; can follow both.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures_util::{TryStreamExt, pin_mut};
use longshore_producer::{Job, Jobs};
use longshore_protocol::wire::JobDetails;
use longshore_protocol::{JobId, JobIdPrefix};

use super::selection::{job_id, key};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::bar::{Bar, Bars};
use crate::output::{Output, is_watched, job, jobs};
use crate::services;
use crate::settings::Settings;

/// The interval of the reads of all jobs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Show the state of a job, or list the active jobs and those that ended last
#[derive(Args)]
pub(crate) struct Status {
    /// The job's id, or its first characters, at least 8
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: Option<JobIdPrefix>,
    /// The job with this name, if exactly one has it
    #[arg(long, value_name = "NAME", conflicts_with = "job")]
    name: Option<String>,
    /// Follow the job until it ends, or all jobs until Ctrl-C: with bars on a terminal, otherwise
    /// with a line for each change of the job
    #[arg(long)]
    watch: bool,
    /// The number of ended jobs to list
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with_all = ["job", "name"])]
    finished: usize,
    /// List whole ids, and more columns
    #[arg(long, conflicts_with_all = ["job", "name"])]
    wide: bool,
}

impl Status {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings).await?;
        let job = match key(self.job.as_ref(), self.name.as_ref()) {
            Some(key) => Some(jobs.find(&key).await?),
            None => None,
        };
        match (job, self.watch) {
            (Some(id), false) => {
                let details = jobs.job(id).details().await.map_err(Failure::or_not_admitted)?;
                job::details(output, &details)
            }
            (None, false) => {
                let recent = jobs.recent(self.finished).await?;
                jobs::list(output, &jobs, &recent, self.wide).await
            }
            (Some(id), true) => {
                let mut interrupts = Interrupts::follow()?;
                let job = jobs.job(id);
                tokio::select! {
                    watched = watch_one(&job, output) => watched,
                    () = interrupts.next() => Ok(()),
                }
            }
            (None, true) if is_watched() => {
                let mut interrupts = Interrupts::follow()?;
                tokio::select! {
                    watched = watch_all(&jobs) => watched,
                    () = interrupts.next() => Ok(()),
                }
            }
            (None, true) => Err(Failure::usage(
                "--watch without a job needs a terminal on standard error; name a job",
            )),
        }
    }
}

async fn watch_one(handle: &Job, output: &mut Output) -> Result<(), Failure> {
    let bar = Bar::new();
    let progress = handle.progress();
    pin_mut!(progress);
    let mut last = None;
    while let Some(summary) = progress.try_next().await? {
        bar.report(&summary);
        if !bar.is_drawn() {
            job::line(output, &summary, "")?;
            output.flush()?;
        }
        last = Some(summary);
    }
    bar.clear();
    match last.filter(|_| bar.is_drawn()) {
        Some(job) => {
            let recovered = handle.recoveries().await?;
            job::details(output, &JobDetails { job, recovered, reasons: Vec::new() })
        }
        None => Ok(()),
    }
}

async fn watch_all(jobs: &Jobs) -> Result<(), Failure> {
    let bars = Bars::new();
    let mut shown: BTreeMap<JobId, Bar> = BTreeMap::new();
    loop {
        let active = jobs.recent(0).await?;
        shown.retain(|id, bar| {
            let is_active = active.iter().any(|job| job.id == *id && !job.state.is_terminal());
            if !is_active {
                bar.clear();
            }
            is_active
        });
        for job in active.iter().filter(|job| !job.state.is_terminal()) {
            shown.entry(job.id).or_insert_with(|| bars.add(job)).report(job);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
