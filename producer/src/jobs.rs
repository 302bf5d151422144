//! Finds, reads and controls jobs.

use std::sync::Arc;

use longshore_ledger::Ledger;
use longshore_protocol::{
    JobCursor, JobFilter, JobId, JobIdPrefix, JobPage, JobSummary, MAX_PAGE, Timestamp,
};

use crate::{AllowedRoots, Error, Job, Way, direct, either, http};

/// Finds, reads and controls jobs. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Jobs {
    pub(crate) way: Way<direct::Jobs, http::jobs::Jobs>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.way {
            Way::Direct(jobs) => jobs.ledger().describe(),
            Way::Http(jobs) => jobs.server().to_string(),
        };
        f.debug_tuple("Jobs").field(&place).finish()
    }
}

impl Jobs {
    /// The jobs of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { way: Way::Direct(direct::Jobs::new(ledger)) }
    }

    /// The same jobs; results that are not in the ledger are read below these roots only. For
    /// programs that read for others: the ledger names any file as soon as a user may write to it.
    /// A server of the HTTP API has roots of its own, so nothing changes for its jobs.
    #[must_use]
    pub fn within(self, roots: AllowedRoots) -> Self {
        match self.way {
            Way::Direct(jobs) => Self { way: Way::Direct(jobs.within(roots)) },
            Way::Http(_) => self,
        }
    }

    /// A job by its id. Does not check that the job exists.
    pub fn job(&self, id: JobId) -> Job {
        let way = match &self.way {
            Way::Direct(jobs) => Way::Direct(jobs.job(id)),
            Way::Http(jobs) => Way::Http(jobs.job(id)),
        };
        Job { way }
    }

    /// The time of the ledger's clock, by which all that is known of jobs is dated.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        either!(&self.way, jobs => jobs.now().await)
    }

    /// The summaries of the jobs that have not ended, in order of submission, and of up to
    /// `finished` of those that have, newest first.
    pub async fn recent(&self, finished: usize) -> Result<Vec<JobSummary>, Error> {
        either!(&self.way, jobs => jobs.recent(finished).await)
    }

    /// The jobs that the filter shows, newest first, at most `limit` of them (1 to [`MAX_PAGE`]).
    /// The next page begins behind the cursor that came with this one.
    pub async fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<JobCursor>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        either!(&self.way, jobs => jobs.list(filter, cursor, limit.clamp(1, MAX_PAGE)).await)
    }

    /// The jobs that are kept and whose ids begin so, the smallest id first, at most `limit` of
    /// them (1 to [`MAX_PAGE`]).
    pub async fn with_prefix(
        &self,
        prefix: &JobIdPrefix,
        limit: usize,
    ) -> Result<Vec<JobSummary>, Error> {
        either!(&self.way, jobs => jobs.with_prefix(prefix, limit.clamp(1, MAX_PAGE)).await)
    }

    /// For each of these jobs, how many characters of its id tell it from all other jobs that are
    /// kept; [`JobIdPrefix::SHORTEST`] at least.
    pub async fn id_lengths(&self, ids: &[JobId]) -> Result<Vec<usize>, Error> {
        either!(&self.way, jobs => jobs.id_lengths(ids).await)
    }
}
