//! Parameters and answers of the operations that restore a ledger from the journal.

use longshore_protocol::{JournalEnding, JournalPosition, Timestamp};

use crate::Error;
use crate::op::Admission;

/// Parameters of [`Ledger::restore`](crate::Ledger::restore).
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreParams {
    /// The job as it was admitted.
    pub admission: Admission,
    /// Its state when the ledger lost it.
    pub prior: PriorState,
}

impl RestoreParams {
    /// Restores the job of `admission` to the state `prior`.
    pub fn new(admission: Admission, prior: PriorState) -> Self {
        Self { admission, prior }
    }
}

/// The state of a job when the ledger lost it, as far as the journal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorState {
    /// The job had not ended. All of its subtasks run again.
    Open {
        /// When the job was submitted.
        submitted_at: Timestamp,
        /// Whether the job was paused.
        paused: bool,
    },
    /// The job had ended.
    Ended(JournalEnding),
}

impl PriorState {
    /// Checks that the counts of an ended job add up to the totals of the admission. Every
    /// implementation calls this first.
    pub fn check(&self, admission: &Admission) -> Result<(), Error> {
        let Self::Ended(ending) = self else { return Ok(()) };
        let totals = ending.counts().map(|counts| counts.total);
        let nodes = admission.indices().saturating_sub(admission.total);
        if totals == [admission.total, nodes] && ending.state.is_terminal() {
            return Ok(());
        }
        let detail = format!("{} and {} have ended of {}", totals[0], totals[1], admission.total);
        Err(Error::Misuse { operation: "restore", detail })
    }
}

/// Answer to [`Ledger::restore`](crate::Ledger::restore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The job was restored.
    Restored,
    /// The ledger knows this job.
    Known,
    /// The time for which the job was to be kept is over.
    Expired,
}

/// Parameters of [`Ledger::advance_journal`](crate::Ledger::advance_journal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvanceJournalParams {
    /// The place that the caller believes to be stored; `None` if it believes that none is.
    pub from: Option<JournalPosition>,
    /// The place to store.
    pub to: JournalPosition,
}

impl AdvanceJournalParams {
    /// Moves the place from `from` to `to`.
    pub fn new(from: Option<JournalPosition>, to: JournalPosition) -> Self {
        Self { from, to }
    }
}
