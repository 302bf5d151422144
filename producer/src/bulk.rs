//! Actions on all jobs that a filter shows.

use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::BoxStream;
use longshore_protocol::{BulkAction, BulkOutcome, BulkPlan, JobFilter};

use crate::{Error, Jobs, Way};

/// A filter without conditions, which would take every job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter is empty, so the action would take every job; give one condition at least")]
pub struct EmptyFilter;

impl Jobs {
    /// Carries out an action on each job that the filter shows, the newest first, and gives an
    /// outcome a job, in no particular order. A job whose state does not allow the action is
    /// skipped. Jobs that are submitted meanwhile are not touched. Memory does not grow with the
    /// number of jobs; dropping the stream stops the action.
    ///
    /// The stream ends with an error when the ledger fails. Doing it all again is safe.
    ///
    /// # Errors
    /// [`EmptyFilter`] if the filter has no condition.
    ///
    /// ```no_run
    /// # async fn example(jobs: longshore_producer::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures_util::TryStreamExt;
    /// use longshore_producer::{BulkAction, JobFilter};
    ///
    /// let filter = JobFilter { task: Some("thumbnail".into()), ..JobFilter::default() };
    /// let mut outcomes = jobs.bulk(BulkAction::Pause, &filter)?;
    /// while let Some(outcome) = outcomes.try_next().await? {
    ///     println!("{}: {:?}", outcome.id, outcome.outcome);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn bulk(
        &self,
        action: BulkAction,
        filter: &JobFilter,
    ) -> Result<BoxStream<'static, Result<BulkOutcome, Error>>, EmptyFilter> {
        check(filter)?;
        Ok(match &self.way {
            Way::Direct(jobs) => jobs.bulk(action, filter)?.boxed(),
            Way::Http(jobs) => jobs.bulk(action, filter),
        })
    }

    /// What [`Self::bulk`] would do now: counts the jobs, and gives up to `sample` of those whose
    /// state allows the action; a server gives ten at most.
    ///
    /// # Errors
    /// [`EmptyFilter`] if the filter has no condition.
    pub fn bulk_plan(
        &self,
        action: BulkAction,
        filter: &JobFilter,
        sample: usize,
    ) -> Result<impl Future<Output = Result<BulkPlan, Error>> + Send + use<>, EmptyFilter> {
        check(filter)?;
        Ok(match &self.way {
            Way::Direct(jobs) => jobs.bulk_plan(action, filter, sample)?.left_future(),
            Way::Http(jobs) => {
                jobs.clone().bulk_plan(action, filter.clone(), sample).right_future()
            }
        })
    }
}

fn check(filter: &JobFilter) -> Result<(), EmptyFilter> {
    if filter.is_empty() { Err(EmptyFilter) } else { Ok(()) }
}
