//! What is said of jobs beside their books, and how long the ledger keeps it.

use std::time::Duration;

/// How long it is kept why a job can't be judged. Whoever judges it says so again much more often.
pub const POSTPONED_FOR: Duration = Duration::from_secs(300);

/// How long it is kept why a worker can't go on. The worker says so again much more often.
pub const STALL_KEPT: Duration = Duration::from_secs(30);

/// How long the cancel of a job that the ledger does not know is remembered: longer than a document
/// waits for a scheduler, as a rule.
pub const CANCEL_KEPT: Duration = Duration::from_hours(24);

/// What a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The job has ended as `cancelled`, now or before.
    Ended,
    /// The ledger does not know the job, and will end it when it is admitted.
    BeforeAdmission,
}
