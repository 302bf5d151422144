//! What can go wrong between an application and its job.

use std::time::Duration;

use longshore_ledger::ControlError;
use longshore_protocol::state::JobState;
use longshore_protocol::{Invalid, JobId, Timestamp};

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// RabbitMQ can't be used.
    #[error(transparent)]
    Broker(#[from] longshore_broker::Error),
    /// Redis can't be used.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
}

/// Why a job was not accepted, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The document is not one that a scheduler would accept.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A glob of the document can't be made absolute.
    #[error(transparent)]
    Storage(#[from] longshore_storage::Error),
    /// The scheduler refused the job; the ledger shows it as `rejected`.
    #[error("job {job} was rejected: {error}")]
    Rejected {
        /// Its id.
        job: JobId,
        /// What the scheduler said.
        error: String,
    },
    /// Another job has this id.
    #[error("job {job} exists already, with other content; choose another id or leave it out")]
    Conflict {
        /// The id.
        job: JobId,
    },
    /// The message could not be brought to the broker in time. It may still have arrived; to submit the same
    /// document with the same id again is safe.
    #[error("job {job} may not have been published, the outcome is unknown: {reason}")]
    NotPublished {
        /// Its id.
        job: JobId,
        /// What the broker said last.
        reason: String,
    },
    /// The broker has the message, but the ledger does not show the job. It is not lost: it is accepted once what
    /// is missing is there.
    #[error("job {job} was published but not accepted within {}s: {missing}", .waited.as_secs())]
    NotAccepted {
        /// Its id.
        job: JobId,
        /// How long we waited.
        waited: Duration,
        /// What seems to be missing.
        missing: String,
    },
    /// The ledger failed before the job was published.
    #[error(transparent)]
    Ledger(longshore_ledger::Error),
    /// The broker has the message, and the ledger failed, and went on failing: the job may have been accepted. To submit
    /// the same document with the same id again is safe.
    #[error("job {job} was published, but whether it was accepted is unknown: {error}")]
    Unknown {
        /// Its id.
        job: JobId,
        /// What the ledger said last.
        error: longshore_ledger::Error,
    },
}

/// Why a job could not be read or controlled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such job, or it was kept no longer.
    #[error("no such job: {0}")]
    NotFound(JobId),
    /// The document is published, but what its globs name can't be reached, so that nobody knows yet
    /// whether it can be accepted.
    #[error("job {job} is not accepted yet: {reason}; it is tried again every few seconds")]
    Postponed {
        /// The job.
        job: JobId,
        /// What can't be reached.
        reason: String,
    },
    /// Somebody cancelled the job before it was admitted. If its document is on its way, it is admitted
    /// as cancelled, and nothing of it runs.
    #[error(
        "job {job} is not known, and was cancelled: a document with this id that comes within 24 hours of that is admitted \
         as cancelled, and nothing of it runs"
    )]
    Cancelled {
        /// The job.
        job: JobId,
        /// When, by the ledger's clock.
        at: Timestamp,
    },
    /// The job's state does not allow it, or the indices are wrong.
    #[error("job {job}: {reason}")]
    Refused {
        /// The job.
        job: JobId,
        /// Why.
        reason: ControlError,
    },
    /// The ledger failed, and went on failing.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
    /// Results that were written to files or objects can't be read back.
    #[error(transparent)]
    Storage(#[from] longshore_storage::Error),
    /// What the ledger holds is not what a job looks like: another program wrote to it, or versions differ.
    #[error("job {job}: {detail}")]
    Corrupt {
        /// The job.
        job: JobId,
        /// What is wrong.
        detail: String,
    },
    /// The results of a job that had ended are gone: the ledger was lost, and the journal, from which the job was put back,
    /// knows how it ended and no more.
    #[error(
        "job {0}: its results were lost with the ledger; how it ended is known from the journal alone; submit it again under \
         a new id to have them"
    )]
    ResultsLost(JobId),
    /// There is no reduced value.
    #[error("job {job} has no value: {reason}")]
    NoValue {
        /// The job.
        job: JobId,
        /// Why.
        reason: NoValue,
    },
}

/// Why a job has no reduced value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// Its document asks for none.
    #[error("its document has no reduce")]
    NotReduced,
    /// It is not (yet) succeeded.
    #[error("it is {0}")]
    Unfinished(JobState),
    /// Its document asks for results to be thrown away.
    #[error("its results are discarded")]
    Discarded,
}

impl Error {
    pub(crate) fn from_control(job: JobId, error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::NotFound(job),
            ControlError::Ledger(error) => Self::Ledger(error),
            reason => Self::Refused { job, reason },
        }
    }
}
