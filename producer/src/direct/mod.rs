//! Reads and changes jobs straight in RabbitMQ and Redis.

mod bulk;
pub(crate) mod dead_letters;
mod follow;
mod hints;
pub(crate) mod job;
pub(crate) mod nodes;
mod queues;
mod results;
mod submit;
pub(crate) mod tokens;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_broker::Broker;
use longshore_ledger::{Ledger, ListParams};
use longshore_protocol::document::JobDocument;
use longshore_protocol::{
    JobCursor, JobFilter, JobId, JobIdPrefix, JobPage, JobSummary, MAX_PAGE, Timestamp,
};

use crate::submission::Submission;
use crate::{ACCEPTED_WITHIN, AllowedRoots, Error, SubmitError};
use hints::{Hints, JobHints};
use job::Job;
use submit::Verdict;

/// Submits jobs to a broker, and finds them in a ledger.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) jobs: Jobs,
    pub(crate) broker: Arc<dyn Broker>,
}

impl Client {
    pub(crate) async fn submit_or_find(
        &self,
        document: &JobDocument,
        within: Duration,
    ) -> Result<(Job, bool), SubmitError> {
        let submission = Submission::new(document)?;
        let job = self.jobs.job(submission.job);
        let mut hints = self.jobs.hints(submission.job);
        let (broker, ledger) = (self.broker.as_ref(), self.jobs.ledger().as_ref());
        // The ledger can't know an id that was just drawn.
        let before = match document.id {
            Some(_) => {
                Some(submit::read_verdict(ledger, &submission).await.map_err(SubmitError::Ledger)?)
            }
            None => None,
        };
        match before {
            Some(Verdict::Accepted) => return Ok((job.accepted(None), false)),
            Some(Verdict::Conflict) => {
                return Err(SubmitError::Conflict { job: submission.job });
            }
            Some(Verdict::Unknown | Verdict::Rejected(_)) | None => {}
        }
        submit::publish(broker, &submission, within).await?;
        submit::await_verdict(broker, ledger, &submission, before.as_ref(), &mut hints, within)
            .await?;
        Ok((job.accepted(Some(hints)), true))
    }

    pub(crate) async fn publish(&self, document: &JobDocument) -> Result<JobId, SubmitError> {
        let submission = Submission::new(document)?;
        submit::publish(self.broker.as_ref(), &submission, ACCEPTED_WITHIN).await?;
        Ok(submission.job)
    }
}

/// The jobs of a ledger. All clones share one subscription to its hints.
#[derive(Clone)]
pub(crate) struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    roots: AllowedRoots,
    /// Subscribed to with the first wait.
    hints: OnceLock<Hints>,
}

impl Jobs {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self::reading(ledger, AllowedRoots::default())
    }

    fn reading(ledger: Arc<dyn Ledger>, roots: AllowedRoots) -> Self {
        Self { inner: Arc::new(Inner { ledger, roots, hints: OnceLock::new() }) }
    }

    pub(crate) fn within(self, roots: AllowedRoots) -> Self {
        Self::reading(Arc::clone(self.ledger()), roots)
    }

    /// Where results are read from.
    fn source(&self) -> (Arc<dyn Ledger>, AllowedRoots) {
        (Arc::clone(&self.inner.ledger), self.inner.roots.clone())
    }

    pub(crate) fn job(&self, id: JobId) -> Job {
        Job::new(self.clone(), id)
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.ledger().now().await?)
    }

    pub(crate) async fn recent(&self, finished: usize) -> Result<Vec<JobSummary>, Error> {
        let ledger = self.ledger();
        let mut ids = ledger.active_jobs().await?;
        for id in ledger.finished_jobs(finished).await? {
            // A job that has just ended may be in both lists.
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        self.summaries(&ids).await
    }

    pub(crate) async fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<JobCursor>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = JobPage { jobs: Vec::new(), next: cursor };
        loop {
            let wanted = limit - page.jobs.len();
            let params =
                ListParams { cursor: page.next, ..ListParams::new(filter.clone(), wanted) };
            let more = self.ledger().list(&params).await?;
            page.jobs.extend(more.jobs);
            page.next = more.next;
            if page.next.is_none() || page.jobs.len() >= limit {
                return Ok(page);
            }
        }
    }

    pub(crate) async fn with_prefix(
        &self,
        prefix: &JobIdPrefix,
        limit: usize,
    ) -> Result<Vec<JobSummary>, Error> {
        let ids = self.ledger().find_ids(prefix, limit).await?;
        self.summaries(&ids).await
    }

    pub(crate) async fn id_lengths(&self, ids: &[JobId]) -> Result<Vec<usize>, Error> {
        Ok(self.ledger().unique_prefixes(ids).await?)
    }

    /// The summaries of those jobs that were not deleted meanwhile.
    async fn summaries(&self, ids: &[JobId]) -> Result<Vec<JobSummary>, Error> {
        let mut summaries = Vec::with_capacity(ids.len());
        for id in ids {
            summaries.extend(self.ledger().job(*id).await?);
        }
        Ok(summaries)
    }

    pub(crate) fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.inner.ledger
    }

    fn hints(&self, job: JobId) -> JobHints {
        self.inner.hints.get_or_init(|| Hints::follow(Arc::clone(self.ledger()))).of(job)
    }
}
