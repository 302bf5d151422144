//! Parameters of the operations that read pages: results and errors.

use std::ops::Range;

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
