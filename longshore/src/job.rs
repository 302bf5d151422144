//! A job in the public API: its state, its progress, its results and errors, and its controls.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use longshore_protocol::state::JobState;
use longshore_protocol::{ErrorEntry, JobId, JobSummary, Timestamp};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::stream::{self, Progress, Results, SubtaskErrors};

/// A job, by its id. Cheap to clone; dropping it does not affect the job.
#[derive(Clone, Debug)]
pub struct Job {
    inner: longshore_producer::Job,
}

/// The state of a job, and the number of its subtasks in each state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's id.
    pub id: JobId,
    /// The state of the job.
    pub state: JobState,
    /// The task that its subtasks run.
    pub task: String,
    /// The pool of workers that runs them.
    pub queue: String,
    /// The tenant that owns the job.
    pub tenant: String,
    /// What people call the job, if it has a name.
    pub name: Option<String>,
    /// The labels of the job.
    pub labels: BTreeMap<String, String>,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// Subtasks in all: the sum of the seven numbers that follow.
    pub total: u64,
    /// Subtasks that have succeeded.
    pub done: u64,
    /// Subtasks that have failed for good.
    pub failed: u64,
    /// Subtasks that were given up because the job ended before them.
    pub cancelled: u64,
    /// Subtasks in chunks that workers hold.
    pub running: u64,
    /// Subtasks in chunks that no worker has claimed.
    pub queued: u64,
    /// Subtasks that wait for their next attempt.
    pub retrying: u64,
    /// Subtasks that were not handed out yet.
    pub waiting: u64,
    /// Attempts that have ended, whatever their outcome.
    pub attempts: u64,
    /// Why the job failed or was rejected.
    pub error: Option<String>,
    /// When the job was accepted.
    pub submitted_at: SystemTime,
    /// When a worker claimed the first chunk.
    pub started_at: Option<SystemTime>,
    /// When the job ended.
    pub finished_at: Option<SystemTime>,
    /// The estimated time to the end, while the job makes progress.
    pub eta: Option<Duration>,
}

impl JobStatus {
    /// Whether the job has ended.
    pub fn has_ended(&self) -> bool {
        self.state.is_terminal()
    }

    /// Whether the job has ended and every subtask succeeded.
    pub fn has_succeeded(&self) -> bool {
        self.state.is_success()
    }
}

/// The result of one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubtaskResult<T> {
    /// The index of the subtask within the job.
    pub index: u64,
    /// The value that the task returned.
    pub value: T,
}

/// The error of a subtask that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubtaskError {
    /// The index of the subtask within the job.
    pub index: u64,
    /// The error of the last attempt.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The worker of the last attempt.
    pub worker: String,
    /// When the last attempt ended.
    pub at: SystemTime,
}

impl Job {
    pub(crate) fn new(inner: longshore_producer::Job) -> Self {
        Self { inner }
    }

    /// The job's id, which is its idempotency key too.
    pub fn id(&self) -> JobId {
        self.inner.id()
    }

    /// The state of the job now.
    pub async fn status(&self) -> Result<JobStatus, Error> {
        Ok(self.inner.summary().await?.into())
    }

    /// Waits until the job has ended, in whatever state ([`JobStatus::has_succeeded`]). Tolerates a
    /// Redis that is unavailable for up to 30 seconds.
    pub async fn wait(&self) -> Result<JobStatus, Error> {
        Ok(self.inner.wait().boxed().await?.into())
    }

    /// The state of the job now and after each change, until it has ended. The last report is the
    /// end. Reports come at most every 100 ms, and every second if nothing changes.
    pub fn progress(&self) -> Progress {
        Progress::new(&self.inner)
    }

    /// The results in index order, each read as a `T`. A job that has not ended has those of the
    /// subtasks that have succeeded so far. Takes constant memory, whatever the size of the job.
    ///
    /// ```no_run
    /// # async fn example(job: longshore::Job) -> Result<(), longshore::Error> {
    /// let mut results = job.results::<f64>();
    /// while let Some(result) = results.next().await {
    ///     let result = result?;
    ///     println!("{}: {}", result.index, result.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn results<T: DeserializeOwned + 'static>(&self) -> Results<T> {
        Results::new(self.inner.results())
    }

    /// Waits as [`Self::wait`] does and gives [`Self::results`] too, in fewer calls to Redis.
    pub async fn outcome<T: DeserializeOwned + 'static>(
        &self,
    ) -> Result<(JobStatus, Results<T>), Error> {
        let (summary, results) = self.inner.outcome().boxed().await?;
        Ok((summary.into(), Results::new(results)))
    }

    /// The reduced value of a job that has succeeded.
    pub async fn value<T: DeserializeOwned>(&self) -> Result<T, Error> {
        stream::read(&self.inner.value().boxed().await?, || "the reduced value".to_owned())
    }

    /// The errors of the subtasks that failed for good, by index; the newest 10,000 at most.
    pub fn errors(&self) -> SubtaskErrors {
        SubtaskErrors::new(&self.inner)
    }

    /// Why the job makes no progress, in sentences for people; empty if nothing is known to be
    /// wrong.
    pub async fn reasons(&self) -> Result<Vec<String>, Error> {
        let reasons = self.inner.reasons().boxed().await?;
        Ok(reasons.into_iter().map(|reason| reason.text).collect())
    }

    /// Pauses the job: running chunks finish, no new ones start.
    pub async fn pause(&self) -> Result<JobState, Error> {
        Ok(self.inner.pause().await?)
    }

    /// Resumes a paused job.
    pub async fn resume(&self) -> Result<JobState, Error> {
        Ok(self.inner.resume().await?)
    }

    /// Cancels the job; running subtasks are stopped within a second. A job that no scheduler has
    /// accepted yet will be accepted as cancelled.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.inner.cancel().await?;
        Ok(())
    }

    /// Retries all failed subtasks, or only those of `indices`. Each gets a new budget of attempts.
    pub async fn retry(&self, indices: Option<&[u64]>) -> Result<JobState, Error> {
        Ok(self.inner.retry(indices).await?)
    }

    /// Deletes the job, its results and its errors. Only for jobs that have ended.
    pub async fn delete(&self) -> Result<(), Error> {
        Ok(self.inner.delete().await?)
    }
}

impl From<JobSummary> for JobStatus {
    fn from(summary: JobSummary) -> Self {
        let counts = summary.counts;
        Self {
            id: summary.id,
            state: summary.state,
            task: summary.task,
            queue: summary.queue,
            tenant: summary.tenant,
            name: summary.name,
            labels: summary.labels,
            priority: summary.priority,
            total: counts.total,
            done: counts.done,
            failed: counts.failed,
            cancelled: counts.cancelled,
            running: counts.running,
            queued: counts.queued,
            retrying: counts.retrying,
            waiting: counts.waiting,
            attempts: summary.attempts,
            error: summary.error,
            submitted_at: system_time(summary.submitted_at),
            started_at: summary.started_at.map(system_time),
            finished_at: summary.finished_at.map(system_time),
            eta: summary.eta,
        }
    }
}

impl From<ErrorEntry> for SubtaskError {
    fn from(entry: ErrorEntry) -> Self {
        Self {
            index: entry.index,
            error: entry.error,
            attempts: entry.attempts,
            worker: entry.node.to_string(),
            at: system_time(entry.at),
        }
    }
}

pub(crate) fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis())
}
