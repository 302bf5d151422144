//! Parameters of the operations on what blocks jobs.

use longshore_protocol::{Blocked, BlockedScope};

/// Parameters of [`Ledger::report_blocked`](crate::Ledger::report_blocked).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportBlockedParams {
    /// The queue.
    pub queue: String,
    /// What blocks each of these scopes now; `None` for one that is not blocked any more.
    pub changes: Vec<(BlockedScope, Option<Blocked>)>,
    /// Whether all earlier reports about the queue are dropped: the first report of a scheduler
    /// that took the queue over.
    pub replaces: bool,
}

impl ReportBlockedParams {
    /// A report of changes only.
    pub fn new(
        queue: impl Into<String>,
        changes: impl Into<Vec<(BlockedScope, Option<Blocked>)>>,
    ) -> Self {
        Self { queue: queue.into(), changes: changes.into(), replaces: false }
    }
}

/// Parameters of [`Ledger::blocked`](crate::Ledger::blocked).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedParams {
    /// The queue.
    pub queue: String,
    /// The scopes to read, one at least.
    pub scopes: Vec<BlockedScope>,
}

impl BlockedParams {
    /// The report of these scopes of a queue.
    pub fn new(queue: impl Into<String>, scopes: impl Into<Vec<BlockedScope>>) -> Self {
        Self { queue: queue.into(), scopes: scopes.into() }
    }
}
