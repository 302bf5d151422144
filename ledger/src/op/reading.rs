//! Parameters of the operations that read pages: jobs, results and errors.

use std::ops::Range;

use longshore_protocol::{JobCursor, JobFilter};

/// Parameters of [`Ledger::results`](crate::Ledger::results).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsParams {
    /// The indices whose results are read. An end of `u64::MAX` reads to the end of the job.
    pub indices: Range<u64>,
    /// The number of bytes of result lines after which the page ends.
    pub max_bytes: u64,
}

impl ResultsParams {
    /// A page of the results of `indices`.
    pub fn new(indices: Range<u64>, max_bytes: u64) -> Self {
        Self { indices, max_bytes }
    }
}

/// Parameters of [`Ledger::errors`](crate::Ledger::errors).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorsParams {
    /// The first index whose error may be in the page.
    pub from: u64,
    /// The most errors in the page.
    pub limit: usize,
}

impl ErrorsParams {
    /// A page of `limit` errors from index `from` on.
    pub fn new(from: u64, limit: usize) -> Self {
        Self { from, limit }
    }
}

/// Parameters of [`Ledger::list`](crate::Ledger::list).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListParams {
    /// The jobs to list.
    pub filter: JobFilter,
    /// The job behind which the page begins; `None` for the head of the list.
    pub cursor: Option<JobCursor>,
    /// The most jobs on the page, 1 to [`MAX_PAGE`](longshore_protocol::MAX_PAGE).
    pub limit: usize,
}

impl ListParams {
    /// The first page of `limit` jobs.
    pub fn new(filter: JobFilter, limit: usize) -> Self {
        Self { filter, cursor: None, limit }
    }
}
