//! Arguments and answers of the operations that bring back what a ledger has lost.

use longshore_protocol::{Ending, Timestamp};

use crate::Error;
use crate::op::Admission;

/// How a job stood when the ledger lost it, as far as the journal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorState {
    /// It had not ended. What of it was done is done again.
    Open {
        /// When it was submitted.
        submitted_at: Timestamp,
        /// Whether somebody had paused it.
        paused: bool,
    },
    /// It had ended.
    Ended(Ending),
}

impl PriorState {
    /// Whether the numbers of an ended job add up to what the admission says. Every implementation asks this first.
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

/// Whether a job was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It was.
    Restored,
    /// The ledger knows this job.
    Known,
    /// It was to be kept for a time that is over.
    Expired,
}
