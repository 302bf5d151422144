//! Verbs on all jobs that a filter shows.

use futures_util::{TryStreamExt, pin_mut};
use longshore_producer::{BulkAction, Job, Jobs};

use super::selection::{Chosen, FilterArguments, JobsArgument};
use crate::failure::Failure;
use crate::output::bar::Counter;
use crate::output::{Output, bulk};
use crate::services;
use crate::settings::Settings;

/// How many jobs a dry run shows.
const SAMPLE: usize = 10;

/// The one job that was named, for the caller to act on; `None` if a filter was given: then the
/// action has been carried out on all jobs that it shows.
pub(crate) async fn one_or_all(
    action: BulkAction,
    argument: &JobsArgument,
    settings: &Settings,
    output: &mut Output,
) -> Result<Option<Job>, Failure> {
    let chosen = argument.chosen(action)?;
    let jobs = services::jobs(settings).await?;
    match chosen {
        Chosen::One(key) => Ok(Some(jobs.job(jobs.find(&key).await?))),
        Chosen::Filter { filter, is_dry } => {
            perform(action, filter, is_dry, &jobs, output).await?;
            Ok(None)
        }
    }
}

/// Carries out an action on all jobs that the filter shows; with `is_dry`, tells what it would do.
pub(crate) async fn perform(
    action: BulkAction,
    filter: &FilterArguments,
    is_dry: bool,
    jobs: &Jobs,
    output: &mut Output,
) -> Result<(), Failure> {
    let now = jobs.now().await?;
    let filter = filter.filter(now);
    if is_dry {
        let plan = jobs.bulk_plan(action, &filter, SAMPLE).map_err(Failure::usage)?.await?;
        return bulk::plan(output, &plan, jobs).await;
    }
    let outcomes = jobs.bulk(action, &filter).map_err(Failure::usage)?;
    pin_mut!(outcomes);
    let (counter, mut tally) = (Counter::new("jobs"), bulk::Tally::new(action));
    loop {
        match outcomes.try_next().await {
            Ok(Some(outcome)) => {
                counter.add();
                tally.print(output, &outcome)?;
            }
            Ok(None) => break,
            Err(error) => {
                counter.clear();
                output.flush()?;
                tally.report();
                return Err(error.into());
            }
        }
    }
    counter.clear();
    output.flush()?;
    tally.report();
    tally.verdict()
}
