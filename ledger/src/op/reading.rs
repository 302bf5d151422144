//! Parameters and answers of the operations that read lists, pages and maps.

use std::collections::BTreeSet;
use std::ops::Range;

use longshore_protocol::{JobCursor, JobFilter, MAX_CELLS};

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

/// Parameters of [`Ledger::map`](crate::Ledger::map).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapParams {
    /// The indices of subtasks of the job.
    pub indices: Range<u64>,
    /// The number of ranges, [`MAX_CELLS`] at most, none of them empty. See [`Self::within`].
    pub cells: u64,
}

impl MapParams {
    /// A map of `indices` in `cells` ranges.
    pub fn new(indices: Range<u64>, cells: u64) -> Self {
        Self { indices, cells }
    }

    /// The same for a job with this many subtasks: no index is behind the last one, and no range is
    /// empty.
    pub fn within(&self, total: u64) -> Self {
        let end = self.indices.end.min(total);
        let start = self.indices.start.min(end);
        let cells = self.cells.clamp(1, MAX_CELLS).min(end - start);
        Self { indices: start..end, cells }
    }

    /// The indices of a range, counted from 0.
    pub fn cell(&self, cell: u64) -> Range<u64> {
        let edge = |cell: u64| {
            let length = u128::from(self.indices.end - self.indices.start);
            let offset = u128::from(cell) * length / u128::from(self.cells);
            self.indices.start + u64::try_from(offset).unwrap_or(u64::MAX)
        };
        edge(cell)..edge(cell + 1)
    }
}

/// A queue with jobs that have not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenQueue {
    /// The queue's name.
    pub queue: String,
    /// The number of its jobs.
    pub jobs: u64,
    /// The tasks of these jobs.
    pub tasks: BTreeSet<String>,
}

impl OpenQueue {
    /// A queue without jobs.
    pub fn new(queue: String) -> Self {
        Self { queue, jobs: 0, tasks: BTreeSet::new() }
    }
}
