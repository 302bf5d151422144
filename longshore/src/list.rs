//! Lists of jobs: the filter that selects them, and their pages.

use std::fmt;
use std::str::FromStr;

use longshore_protocol as protocol;
use longshore_protocol::ErrorKind;
use longshore_protocol::state::JobState;

use crate::{Error, JobStatus};

/// Which jobs a list shows: those that satisfy every condition. Without conditions, all jobs.
///
/// ```
/// use longshore::{JobFilter, JobState};
///
/// let filter = JobFilter::new()
///     .state(JobState::Failed)
///     .state(JobState::Cancelled)
///     .task("thumbnail")
///     .label("team", "imaging");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub(crate) inner: protocol::JobFilter,
}

/// Where the next page of a list begins. It stays valid whatever is submitted, deleted or expires
/// between two pages. As text it can be given to another process, and to `longshore list --cursor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobCursor {
    pub(crate) inner: protocol::JobCursor,
}

/// A page of a list of jobs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobStatus>,
    /// Where the next page begins; `None` at the end of the list.
    pub next: Option<JobCursor>,
}

impl JobFilter {
    /// Shows all jobs, until conditions are added.
    pub fn new() -> Self {
        Self::default()
    }

    /// The job is in this state. Called several times: in one of these states.
    #[must_use]
    pub fn state(mut self, state: JobState) -> Self {
        self.inner.states.push(state);
        self
    }

    /// The job runs this task.
    #[must_use]
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.inner.task = Some(task.into());
        self
    }

    /// The job's subtasks go to the workers of this queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.inner.queue = Some(queue.into());
        self
    }

    /// This tenant owns the job.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.inner.tenant = Some(tenant.into());
        self
    }

    /// The job has this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.inner.name = Some(name.into());
        self
    }

    /// The job has this label. Called several times: all of these labels.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.inner.labels.insert(name.into(), value.into());
        self
    }
}

impl fmt::Display for JobCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl FromStr for JobCursor {
    type Err = Error;

    /// Reads the text of a cursor.
    ///
    /// # Errors
    /// [`ErrorKind::BadInput`] for any other text.
    fn from_str(text: &str) -> Result<Self, Error> {
        let inner = text.parse().map_err(|error| Error::new(ErrorKind::BadInput, error))?;
        Ok(Self { inner })
    }
}

impl From<protocol::JobPage> for JobPage {
    fn from(page: protocol::JobPage) -> Self {
        let next = page.next.map(|inner| JobCursor { inner });
        Self { jobs: page.jobs.into_iter().map(JobStatus::from).collect(), next }
    }
}
