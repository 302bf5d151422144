//! The errors of the client library, and the kind of failure of each.

use std::time::Duration;

use longshore_ledger::ControlError;
use longshore_protocol::state::JobState;
use longshore_protocol::{ErrorKind, Invalid, JobId, NodeId, Problem, Timestamp};

use crate::ServerError;

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// RabbitMQ can't be used.
    #[error(transparent)]
    Broker(#[from] longshore_broker::Error),
    /// Redis can't be used.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
    /// The settings of a server can't be used.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why a job was not accepted, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No scheduler would accept the document.
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
        /// The scheduler's reason.
        error: String,
    },
    /// Another job has this id.
    #[error("job {job} exists already, with other content; choose another id or leave it out")]
    Conflict {
        /// The id.
        job: JobId,
    },
    /// The broker did not confirm the message in time. It may still have arrived; to submit the
    /// same document with the same id again is safe.
    #[error("job {job} may not have been published, the outcome is unknown: {reason}")]
    NotPublished {
        /// Its id.
        job: JobId,
        /// The kind of the broker's last failure.
        kind: ErrorKind,
        /// The broker's last failure.
        reason: String,
    },
    /// The broker has the message, but the ledger does not show the job. The job is not lost: it is
    /// accepted once the cause is gone.
    #[error("job {job} was published but not accepted within {}s: {missing}", .waited.as_secs())]
    NotAccepted {
        /// Its id.
        job: JobId,
        /// How long the client waited.
        waited: Duration,
        /// What keeps the job from being accepted, as far as the client can tell.
        missing: String,
    },
    /// The ledger failed before the job was published.
    #[error(transparent)]
    Ledger(longshore_ledger::Error),
    /// The broker has the message, but the ledger stayed unavailable: the job may have been
    /// accepted. To submit the same document with the same id again is safe.
    #[error("job {job} was published, but whether it was accepted is unknown: {error}")]
    Unknown {
        /// Its id.
        job: JobId,
        /// The ledger's last failure.
        error: longshore_ledger::Error,
    },
    /// The server can't be used, or refused the document.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why a job or a worker could not be read or controlled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such job, or the job has expired.
    #[error("no such job: {0}")]
    NotFound(JobId),
    /// No such worker, or the worker has left.
    #[error("no such node: {0}")]
    NodeNotFound(NodeId),
    /// The document is published, but files or objects of its globs can't be reached, so that no
    /// scheduler can validate it yet.
    #[error("job {job} is not accepted yet: {reason}; it is tried again every few seconds")]
    Postponed {
        /// The job.
        job: JobId,
        /// The files or objects that can't be reached.
        reason: String,
    },
    /// The job was cancelled before it was admitted. If its document arrives, it is admitted as
    /// cancelled, and nothing of it runs.
    #[error(
        "job {job} is not known, and was cancelled: a document with this id that comes within 24 \
         hours of that is admitted \
         as cancelled, and nothing of it runs"
    )]
    Cancelled {
        /// The job.
        job: JobId,
        /// The time of the cancel, by the ledger's clock.
        at: Timestamp,
    },
    /// The job's state does not allow it, or the indices are wrong.
    #[error("job {job}: {reason}")]
    Refused {
        /// The job.
        job: JobId,
        /// The rule that forbids it.
        reason: ControlError,
    },
    /// The ledger stayed unavailable, or failed.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
    /// The server can't be used, or refused.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Results that were written to files or objects can't be read back.
    #[error(transparent)]
    Storage(#[from] longshore_storage::Error),
    /// The ledger's data can't be read: another program wrote it, or versions differ.
    #[error("job {job}: {detail}")]
    Corrupt {
        /// The job.
        job: JobId,
        /// What is wrong.
        detail: String,
    },
    /// The results of a job that had ended are gone: the ledger lost its data, and the journal,
    /// from which the job was restored, records only the end.
    #[error(
        "job {0}: its results were lost with the ledger; how it ended is known from the journal \
         alone; submit it again under \
         a new id to have them"
    )]
    ResultsLost(JobId),
    /// Which subtask of a job is in which state is not known any more, for the same reason.
    #[error(
        "job {0}: which of its subtasks succeeded was lost with the ledger; how it ended is known \
         from the journal alone"
    )]
    MapLost(JobId),
    /// The job has no reduced value.
    #[error("job {job} has no value: {reason}")]
    NoValue {
        /// The job.
        job: JobId,
        /// The reason.
        reason: NoValue,
    },
}

/// Why a job has no reduced value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// The document has no reduce.
    #[error("its document has no reduce")]
    NotReduced,
    /// The job has not succeeded, or not yet.
    #[error("it is {0}")]
    Unfinished(JobState),
    /// The document discards results.
    #[error("its results are discarded")]
    Discarded,
}

impl ConnectError {
    /// The kind of failure, for programs. A connection that was refused or timed out may work later
    /// ([`ErrorKind::is_transient`]); a login that was refused won't.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) => error.kind(),
            Self::Ledger(error) => error.kind(),
            Self::Server(error) => error.kind(),
        }
    }
}

impl SubmitError {
    /// The job that the error is about; `None` if it has no id yet.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Rejected { job, .. }
            | Self::Conflict { job }
            | Self::NotPublished { job, .. }
            | Self::NotAccepted { job, .. }
            | Self::Unknown { job, .. } => Some(*job),
            Self::Server(error) => error.problem().job,
            Self::Invalid(_) | Self::Storage(_) | Self::Ledger(_) => None,
        }
    }

    /// The kind of failure, for programs: [`ErrorKind::BadInput`] of a document that no scheduler
    /// accepts, [`ErrorKind::Conflict`] where another job has the id, [`ErrorKind::NotYet`] of a
    /// job that is published and may still be accepted; otherwise the kind of what failed below.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::Rejected { .. } => ErrorKind::BadInput,
            Self::Storage(error) => storage(error),
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::NotPublished { kind, .. } => *kind,
            Self::NotAccepted { .. } => ErrorKind::NotYet,
            Self::Ledger(error) | Self::Unknown { error, .. } => error.kind(),
            Self::Server(error) => error.kind(),
        }
    }
}

/// The kind of a failure to read files or objects.
fn storage(error: &longshore_storage::Error) -> ErrorKind {
    if error.is_users_fault() { ErrorKind::BadInput } else { ErrorKind::Unreachable }
}

impl Error {
    /// The kind of failure, for programs.
    ///
    /// ```
    /// # fn look_again(error: &longshore_producer::Error) -> bool {
    /// use longshore_producer::ErrorKind;
    ///
    /// match error.kind() {
    ///     ErrorKind::NotFound | ErrorKind::Lost => false,
    ///     kind => kind.is_transient(),
    /// }
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NodeNotFound(_) => ErrorKind::NotFound,
            Self::Postponed { .. } => ErrorKind::NotYet,
            Self::Cancelled { .. } => ErrorKind::IllegalState,
            Self::Refused { reason, .. } => reason.kind(),
            Self::Ledger(error) => error.kind(),
            Self::Server(error) => error.kind(),
            Self::Storage(error) => storage(error),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::ResultsLost(_) | Self::MapLost(_) => ErrorKind::Lost,
            Self::NoValue { reason: NoValue::Unfinished(state), .. } if !state.is_terminal() => {
                ErrorKind::NotYet
            }
            Self::NoValue { .. } => ErrorKind::IllegalState,
        }
    }

    /// The job that the error is about, if it is about one.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::NotFound(job)
            | Self::ResultsLost(job)
            | Self::MapLost(job)
            | Self::Postponed { job, .. }
            | Self::Cancelled { job, .. }
            | Self::Refused { job, .. }
            | Self::Corrupt { job, .. }
            | Self::NoValue { job, .. } => Some(*job),
            Self::Server(error) => error.problem().job,
            Self::NodeNotFound(_) | Self::Ledger(_) | Self::Storage(_) => None,
        }
    }

    pub(crate) fn from_control(job: JobId, error: ControlError) -> Self {
        match error {
            ControlError::NotFound => Self::NotFound(job),
            ControlError::Ledger(error) => Self::Ledger(error),
            reason => Self::Refused { job, reason },
        }
    }
}

impl From<&ConnectError> for Problem {
    fn from(error: &ConnectError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<&SubmitError> for Problem {
    fn from(error: &SubmitError) -> Self {
        let problem = match error {
            SubmitError::Invalid(invalid) => Self::from(invalid),
            SubmitError::Server(error) => return error.problem().clone(),
            error => Self::new(error.kind(), error),
        };
        problem.about_job(error.job())
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let node = match error {
            Error::NodeNotFound(node) => Some(node.clone()),
            Error::Server(error) => return error.problem().clone(),
            _ => None,
        };
        Self { node, ..Self::new(error.kind(), error).about_job(error.job()) }
    }
}
