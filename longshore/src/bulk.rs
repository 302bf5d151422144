//! Actions on many jobs: what became of each job, and what would become of them.

use longshore_protocol as protocol;
use longshore_protocol::{BulkResult, JobId};

use crate::JobStatus;
pub use crate::stream::BulkOutcomes;

/// What became of one job of a bulk action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkOutcome {
    /// The job's id.
    pub id: JobId,
    /// Whether the action was carried out.
    pub result: BulkResult,
    /// Why the action was not carried out.
    pub reason: Option<String>,
}

/// What a bulk action would do now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BulkPlan {
    /// The number of jobs that the filter shows.
    pub matched: u64,
    /// The number of those whose state allows the action.
    pub allowed: u64,
    /// The newest of these, ten at most.
    pub first: Vec<JobStatus>,
}

impl From<protocol::BulkOutcome> for BulkOutcome {
    fn from(outcome: protocol::BulkOutcome) -> Self {
        let protocol::BulkOutcome { id, outcome: result, reason, .. } = outcome;
        Self { id, result, reason }
    }
}

impl From<protocol::BulkPlan> for BulkPlan {
    fn from(plan: protocol::BulkPlan) -> Self {
        let protocol::BulkPlan { matched, allowed, first, .. } = plan;
        Self { matched, allowed, first: first.into_iter().map(JobStatus::from).collect() }
    }
}
