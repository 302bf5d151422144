//! The JSON of a failure, which the command line prints on standard error with `--json`.
//!
//! The names are those of problem details for HTTP (RFC 9457), with `kind`, `job`, `node` and
//! `errors` as further members. Deliberately absent: the members that HTTP alone needs (`type`,
//! `status`, `instance`), and which error is a problem of which kind, which the crates of the
//! errors know.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Invalid, JobId, NodeId};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The kind of failure, by which programs decide.
    pub kind: ErrorKind,
    /// The kind in words: the same for all problems of a kind.
    pub title: String,
    /// What happened, for people; its text may change.
    pub detail: String,
    /// The job that the problem is about; absent if it is about none, or about several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The worker that the problem is about; absent if it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The mistakes in the input; absent if the places are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Invalid>,
}

impl Problem {
    /// A problem of this kind, which is about no job and no worker.
    pub fn new(kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            detail: detail.to_string(),
            job: None,
            node: None,
            errors: Vec::new(),
        }
    }

    /// The same problem, about a job if there is one.
    #[must_use]
    pub fn about_job(self, job: Option<JobId>) -> Self {
        Self { job, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.detail.fmt(f)
    }
}

impl From<&Invalid> for Problem {
    fn from(invalid: &Invalid) -> Self {
        Self { errors: vec![invalid.clone()], ..Self::new(ErrorKind::BadInput, invalid) }
    }
}
