//! Parameters and limits of the operations on API tokens and the audit trail.

use longshore_protocol::ActionCursor;

/// The most API tokens that are kept. Every process that serves the API reads all of them.
pub const MAX_API_TOKENS: usize = 1_000;

/// The number of entries of the audit trail that are kept, the newest ones.
pub const MAX_ACTIONS: usize = 10_000;

/// Parameters of [`Ledger::actions`](crate::Ledger::actions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionsParams {
    /// The entry behind which the page begins; `None` for the newest one.
    pub cursor: Option<ActionCursor>,
    /// The most entries in the page.
    pub limit: usize,
}

impl ActionsParams {
    /// The newest `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { cursor: None, limit }
    }
}
