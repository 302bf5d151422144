//! Finds the one job that a person means by the beginning of its id, or by its name.

use std::fmt;

use longshore_protocol::{ErrorKind, JobFilter, JobId, JobIdPrefix, JobSummary};

use crate::{Error, Jobs};

/// How many jobs an error names that lists what was meant.
const CANDIDATES: usize = 5;

/// What names a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKey {
    /// Its id, or the beginning of it.
    Id(JobIdPrefix),
    /// Its name, which other jobs may have too.
    Name(String),
}

impl From<JobId> for JobKey {
    fn from(job: JobId) -> Self {
        Self::Id(job.into())
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(prefix) => write!(f, "with an id that begins with `{prefix}`"),
            Self::Name(name) => write!(f, "with the name `{name}`"),
        }
    }
}

/// Why no job was found, or not one alone.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No job that is kept has such an id or name.
    #[error("there is no job {0}")]
    NotFound(JobKey),
    /// Several jobs have.
    #[error("there {} {key}: {}; {}", more_than_one(*.has_more), listed(.candidates, *.has_more), advice(.key))]
    Ambiguous {
        /// What they have in common.
        key: JobKey,
        /// The first of them; by name the newest first, by id the smallest first.
        candidates: Vec<JobSummary>,
        /// Whether there are more.
        has_more: bool,
    },
    /// The ledger stayed unavailable, or failed.
    #[error(transparent)]
    Jobs(#[from] Error),
}

impl FindError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::BadInput,
            Self::Jobs(error) => error.kind(),
        }
    }
}

fn more_than_one(has_more: bool) -> String {
    if has_more { format!("are more than {CANDIDATES} jobs") } else { "are several jobs".into() }
}

fn listed(candidates: &[JobSummary], has_more: bool) -> String {
    let describe = |job: &JobSummary| match &job.name {
        Some(name) => format!("{} ({}, `{name}`)", job.id, job.state),
        None => format!("{} ({})", job.id, job.state),
    };
    let mut words: Vec<String> = candidates.iter().map(describe).collect();
    words.extend(has_more.then(|| "…".to_owned()));
    words.join(", ")
}

fn advice(key: &JobKey) -> &'static str {
    match key {
        JobKey::Id(_) => "write more of the id",
        JobKey::Name(_) => "write the id of one of them",
    }
}

impl Jobs {
    /// The job that a person means. A whole id is not looked up: whether there is such a job shows
    /// when it is used.
    ///
    /// # Errors
    /// [`FindError::NotFound`] and [`FindError::Ambiguous`] unless exactly one job that is kept has
    /// the name, or an id that begins so.
    pub async fn find(&self, key: &JobKey) -> Result<JobId, FindError> {
        let (candidates, has_more) = match key {
            JobKey::Id(prefix) => match prefix.id() {
                Some(job) => return Ok(job),
                None => first(self.with_prefix(prefix, CANDIDATES + 1).await?),
            },
            JobKey::Name(name) => {
                let filter = JobFilter { name: Some(name.clone()), ..JobFilter::default() };
                first(self.list(&filter, None, CANDIDATES + 1).await?.jobs)
            }
        };
        match candidates.as_slice() {
            [] => Err(FindError::NotFound(key.clone())),
            [job] if !has_more => Ok(job.id),
            _ => Err(FindError::Ambiguous { key: key.clone(), candidates, has_more }),
        }
    }
}

/// The first candidates, and whether there are more.
fn first(mut candidates: Vec<JobSummary>) -> (Vec<JobSummary>, bool) {
    let has_more = candidates.len() > CANDIDATES;
    candidates.truncate(CANDIDATES);
    (candidates, has_more)
}
