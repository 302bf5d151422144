//! How long the ledger keeps records beside a job: postponements, stalls and early cancels.

use std::time::Duration;

/// How long the reason is kept why a job can't be validated. A scheduler repeats the reason much
/// more often.
pub const POSTPONED_FOR: Duration = Duration::from_secs(300);

/// How long a worker's report is kept that it can't go on. The worker repeats it much more often.
pub const STALL_KEPT: Duration = Duration::from_secs(30);

/// How long the cancel of a job that the ledger does not know is remembered: longer than a document
/// waits for a scheduler, as a rule.
pub const CANCEL_KEPT: Duration = Duration::from_hours(24);

/// Answer to [`Ledger::cancel`](crate::Ledger::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The job has ended as `cancelled`, now or before.
    Ended,
    /// The ledger does not know the job, and will end it when it is admitted.
    BeforeAdmission,
}
