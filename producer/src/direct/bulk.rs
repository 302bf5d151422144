//! Actions on all jobs that a filter shows, page by page, several jobs at a time.
//!
//! Each job is changed by its own operation of the ledger, which decides by the job's state then. A
//! bulk action that was interrupted can be repeated: it finds what is left.

use futures_util::stream::{Stream, StreamExt, TryStreamExt, iter, try_unfold};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{Gone, StateAfter};
use longshore_protocol::{
    BulkAction, BulkOutcome, BulkPlan, JobCursor, JobFilter, JobSummary, MAX_PAGE,
};

use super::Jobs;
use super::job::Job;
use crate::{Cancelled, EmptyFilter, Error};

/// How many jobs are changed at a time.
const CONCURRENCY: usize = 16;

/// How many jobs one page has.
const PAGE: usize = 200;

const _: () = assert!(PAGE <= MAX_PAGE);

impl Jobs {
    pub(crate) fn bulk(
        &self,
        action: BulkAction,
        filter: &JobFilter,
    ) -> Result<impl Stream<Item = Result<BulkOutcome, Error>> + Send + use<>, EmptyFilter> {
        let jobs = self.clone();
        let act = move |job: JobSummary| {
            let job = jobs.job(job.id);
            async move { act(action, &job).await }
        };
        Ok(self.matching(filter)?.map_ok(act).try_buffer_unordered(CONCURRENCY))
    }

    pub(crate) fn bulk_plan(
        &self,
        action: BulkAction,
        filter: &JobFilter,
        sample: usize,
    ) -> Result<impl Future<Output = Result<BulkPlan, Error>> + Send + use<>, EmptyFilter> {
        let matching = self.matching(filter)?;
        let plan = BulkPlan { action, matched: 0, allowed: 0, first: Vec::new() };
        Ok(matching.try_fold(plan, move |mut plan, job| async move {
            plan.matched += 1;
            if action.is_allowed_in(job.state) {
                plan.allowed += 1;
                if plan.first.len() < sample {
                    plan.first.push(job);
                }
            }
            Ok(plan)
        }))
    }

    /// All jobs that the filter shows, page by page.
    fn matching(
        &self,
        filter: &JobFilter,
    ) -> Result<impl Stream<Item = Result<JobSummary, Error>> + Send + use<>, EmptyFilter> {
        if filter.is_empty() {
            return Err(EmptyFilter);
        }
        let begin = (self.clone(), filter.clone(), Place::Begin);
        let pages = try_unfold(begin, |(jobs, filter, place)| async move {
            let cursor = match place {
                Place::Begin => None,
                Place::Behind(cursor) => Some(cursor),
                Place::End => return Ok::<_, Error>(None),
            };
            let page = jobs.list(&filter, cursor, PAGE).await?;
            let place = page.next.map_or(Place::End, Place::Behind);
            Ok(Some((iter(page.jobs).map(Ok), (jobs, filter, place))))
        });
        Ok(pages.try_flatten())
    }
}

/// Where the next page begins.
enum Place {
    Begin,
    Behind(JobCursor),
    End,
}

/// Carries out an action on one job. Only failures of the ledger are errors: they concern all jobs.
async fn act(action: BulkAction, job: &Job) -> Result<BulkOutcome, Error> {
    let changed = match action {
        BulkAction::Pause => job.pause().await.map(StateAfter::State),
        BulkAction::Resume => job.resume().await.map(StateAfter::State),
        BulkAction::Retry => job.retry(None).await.map(StateAfter::State),
        BulkAction::Delete => job.delete().await.map(|()| StateAfter::Gone(Gone::Deleted)),
        BulkAction::Cancel => match job.cancel().await {
            Ok(Cancelled::Ended) => Ok(StateAfter::State(JobState::Cancelled)),
            // The job was there when it was listed.
            Ok(Cancelled::BeforeAdmission) => Err(Error::NotFound(job.id())),
            Err(error) => Err(error),
        },
    };
    match changed {
        Ok(state) => Ok(BulkOutcome::done(job.id(), state)),
        Err(Error::Refused { reason, .. }) => Ok(BulkOutcome::skipped(job.id(), reason)),
        Err(Error::NotFound(_)) => Ok(BulkOutcome::skipped(job.id(), "the job is gone")),
        Err(error @ Error::Ledger(_)) => Err(error),
        Err(error) => Ok(BulkOutcome::failed(job.id(), error)),
    }
}
