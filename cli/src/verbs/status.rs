//! `longshore status`: how jobs stand.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures_util::{TryStreamExt, pin_mut};
use longshore_producer::{Job, Jobs};
use longshore_protocol::JobId;

use super::job_id;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::bar::{Bar, Bars};
use crate::output::{Output, is_watched, job};
use crate::services;
use crate::settings::Settings;

/// The time between two looks at all jobs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Show how one job stands, or list the jobs that have not ended and those that ended last
#[derive(Args)]
pub(crate) struct Status {
    /// The job's id
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: Option<JobId>,
    /// Go on showing it until the job ends, or without a job until Ctrl-C: a bar for each on a terminal, else a line
    /// for each change of the job
    #[arg(long)]
    watch: bool,
    /// How many of the jobs that have ended to list
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "job")]
    finished: usize,
}

impl Status {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let jobs = services::jobs(settings)?;
        match (self.job, self.watch) {
            (Some(id), false) => {
                let handle = jobs.job(id);
                let summary = handle.summary().await;
                let summary = summary.map_err(Failure::unless_on_its_way)?;
                let recoveries = handle.recoveries().await?;
                job::summary(output, &summary, &recoveries, &handle.reasons().await?)
            }
            (None, false) => job::list(output, &jobs.list(self.finished).await?),
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
        Some(summary) => job::summary(output, &summary, &handle.recoveries().await?, &[]),
        None => Ok(()),
    }
}

async fn watch_all(jobs: &Jobs) -> Result<(), Failure> {
    let bars = Bars::new();
    let mut shown: BTreeMap<JobId, Bar> = BTreeMap::new();
    loop {
        let active = jobs.list(0).await?;
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
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
