//! One job, as a client sees it: waits for its end, reads what is known of it, and controls it.

use std::ops::Range;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use longshore_ledger::Cancelled;
use longshore_protocol::document::JobDocument;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobDetails;
use longshore_protocol::{Audit, ErrorEntry, JobId, JobMap, JobSummary, Reason, Recovery};
use serde_json::value::RawValue;

use crate::{Error, Way, direct, either, http};

/// Results of subtasks, each with its index.
type Results = BoxStream<'static, Result<(u64, Box<RawValue>), Error>>;

/// A job, by its id. Cheap to clone; dropping it does not affect the job.
#[derive(Clone)]
pub struct Job {
    pub(crate) way: Way<direct::job::Job, http::job::Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Job {
    /// The job's id, which is its idempotency key too.
    pub fn id(&self) -> JobId {
        either!(&self.way, job => job.id())
    }

    /// The job's state and counts now.
    pub async fn summary(&self) -> Result<JobSummary, Error> {
        either!(&self.way, job => job.summary().await)
    }

    /// The job, its recoveries, and why it waits: [`Self::summary`], [`Self::recoveries`] and
    /// [`Self::reasons`] in one call.
    pub async fn details(&self) -> Result<JobDetails, Error> {
        either!(&self.way, job => job.details().await)
    }

    /// Waits until the job has ended, in whatever state. Tolerates a ledger or a server that is
    /// unavailable for up to 30 s, and a ledger that has lost the job (which schedulers restore)
    /// for up to a minute, if the job was there before. A deleted job is `NotFound` at once.
    pub async fn wait(&self) -> Result<JobSummary, Error> {
        either!(&self.way, job => job.wait().await)
    }

    /// Waits as [`Self::wait`] does, and gives [`Self::results`] too. The first page of the results
    /// may be read together with the job's end, which saves a round trip.
    pub async fn outcome(&self) -> Result<(JobSummary, Results), Error> {
        match &self.way {
            Way::Direct(job) => {
                let (summary, results) = job.outcome().await?;
                Ok((summary, results.boxed()))
            }
            Way::Http(job) => Ok((job.wait().await?, job.results_in(0..u64::MAX))),
        }
    }

    /// The job's state and counts, now and with each change until it has ended; the last report is
    /// the end. Reports come at most every 100 ms, and every second if nothing changes.
    pub fn progress(&self) -> BoxStream<'static, Result<JobSummary, Error>> {
        either!(&self.way, job => job.progress().boxed())
    }

    /// The results, in index order, each with its index. A job that has not ended has those of the
    /// subtasks that succeeded so far. Failed and cancelled subtasks have no result, and neither
    /// has a job that discards results. Takes constant memory, whatever the size of the job.
    ///
    /// # Errors
    /// [`Error::ResultsLost`] if the job had ended when the ledger lost its data.
    pub fn results(&self) -> Results {
        match &self.way {
            Way::Direct(job) => job.results().boxed(),
            Way::Http(job) => job.results_in(0..u64::MAX),
        }
    }

    /// [`Self::results`] of these indices alone.
    pub fn results_in(&self, indices: Range<u64>) -> Results {
        either!(&self.way, job => job.results_in(indices).boxed())
    }

    /// The results of these indices until the job has ended. An index without a result holds up
    /// those behind it until it has failed for good or the job has ended.
    pub fn follow_results(&self, indices: Range<u64>) -> Results {
        either!(&self.way, job => job.follow_results(indices))
    }

    /// The reduced value of a job that has succeeded.
    pub async fn value(&self) -> Result<Box<RawValue>, Error> {
        either!(&self.way, job => job.value().await)
    }

    /// The job's document as it was admitted, every default written out.
    pub async fn document(&self) -> Result<JobDocument, Error> {
        either!(&self.way, job => job.document().await)
    }

    /// The errors of the subtasks that failed for good, by index; the newest 10,000 at most.
    pub fn errors(&self) -> BoxStream<'static, Result<ErrorEntry, Error>> {
        either!(&self.way, job => job.errors().boxed())
    }

    /// What was recovered each time that the job lost a node, newest first; 100 at most.
    pub async fn recoveries(&self) -> Result<Vec<Recovery>, Error> {
        either!(&self.way, job => job.recoveries().await)
    }

    /// Why the job does not progress, or not with all of its subtasks: what workers report, what
    /// the list of workers tells if nothing runs, and what the scheduler that feeds the job
    /// published. At most one reason of each kind.
    pub async fn reasons(&self) -> Result<Vec<Reason>, Error> {
        either!(&self.way, job => job.reasons().await)
    }

    /// The states of the job's subtasks for `cells` equal ranges of these indices, 1 to
    /// [`MAX_CELLS`](longshore_protocol::MAX_CELLS). Costs the same for any part of a job of any
    /// size, nearly.
    ///
    /// # Errors
    /// [`Error::MapLost`] if the job had ended when the ledger lost its data.
    pub async fn map(&self, indices: Range<u64>, cells: u64) -> Result<JobMap, Error> {
        either!(&self.way, job => job.map(indices, cells).await)
    }

    /// The job's counts, recounted from the ledger's raw data.
    pub async fn audit(&self) -> Result<Audit, Error> {
        either!(&self.way, job => job.audit().await)
    }

    /// Pauses the job: running chunks finish, no new ones start.
    pub async fn pause(&self) -> Result<JobState, Error> {
        either!(&self.way, job => job.pause().await)
    }

    /// Resumes a paused job.
    pub async fn resume(&self) -> Result<JobState, Error> {
        either!(&self.way, job => job.resume().await)
    }

    /// Cancels the job; running subtasks are stopped within a second. A job that no scheduler has
    /// admitted yet is admitted as `cancelled`, and nothing of it runs: the ledger remembers the
    /// cancel for 24 hours, and applies it to the next document with this id.
    pub async fn cancel(&self) -> Result<Cancelled, Error> {
        either!(&self.way, job => job.cancel().await)
    }

    /// Retries failed subtasks: all of them, or only `indices`. Each gets a new budget of attempts.
    pub async fn retry(&self, indices: Option<&[u64]>) -> Result<JobState, Error> {
        either!(&self.way, job => job.retry(indices).await)
    }

    /// Deletes the job, its results and its errors. Only for jobs that have ended.
    pub async fn delete(&self) -> Result<(), Error> {
        either!(&self.way, job => job.delete().await)
    }
}
