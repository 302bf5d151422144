//! Why a command ends without success, and the exit code of each cause.

use std::fmt;
use std::path::Path;

use longshore_producer as producer;
use longshore_protocol::{Invalid, JobId};

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The job ended, but did not succeed; its errors were printed.
    #[error("{0}")]
    JobFailed(String),
    /// Bad flags, settings or input.
    #[error("{0}")]
    Usage(String),
    /// A service can't be reached or refuses the login.
    #[error("{0}")]
    Unreachable(String),
    /// No such job or node.
    #[error("{0}")]
    NotFound(String),
    /// A check found a problem, which was printed.
    #[error("{0}")]
    Unwell(String),
    /// The reader of the output has gone.
    #[error("the output was closed")]
    Closed,
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted,
    /// A supervised worker ended with this code; the worker itself has logged why.
    #[error("the worker ended with code {0}")]
    WorkerExited(u8),
    /// Another failure.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// 0 is success, 1 a job that failed (or an unexpected error), 2 bad usage or input, 3 a
    /// service that can't be reached, 4 not found.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::JobFailed(_) | Self::Unwell(_) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotFound(_) => 4,
            // As in shells: 128 plus the number of the signal.
            Self::Interrupted => 130,
            Self::WorkerExited(code) => *code,
        }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::Usage(text.to_string())
    }

    pub(crate) fn other(text: impl fmt::Display) -> Self {
        Self::Other(text.to_string())
    }

    pub(crate) fn no_such_job(job: JobId) -> Self {
        Self::NotFound(format!("no such job: {job}"))
    }

    /// Standard output is closed, and there is something to print.
    pub(crate) fn no_output() -> Self {
        Self::Other("standard output is closed".into())
    }

    /// Converts an error of a verb for which a job that is not admitted yet matters. The ledger
    /// does not know such a job; its document is in RabbitMQ only.
    pub(crate) fn or_not_admitted(error: producer::Error) -> Self {
        match error {
            producer::Error::NotFound(job) => Self::NotFound(format!(
                "job {job} is unknown: not admitted yet, kept no longer, or never published"
            )),
            other => other.into(),
        }
    }

    /// A document that is not valid, with its source.
    pub(crate) fn invalid(source: &str, error: &Invalid) -> Self {
        Self::Usage(format!("{source}: {error}"))
    }

    /// A file that can't be read.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        Self::Usage(match error.kind() {
            std::io::ErrorKind::NotFound => format!("{path}: no such file"),
            std::io::ErrorKind::PermissionDenied => format!("{path}: permission denied"),
            std::io::ErrorKind::IsADirectory => format!("{path}: is a directory"),
            std::io::ErrorKind::InvalidData => format!("{path}: is not UTF-8 text"),
            _ => format!("{path}: {error}"),
        })
    }
}

impl From<longshore_ledger::Error> for Failure {
    fn from(error: longshore_ledger::Error) -> Self {
        use longshore_ledger::Error as E;
        match error {
            E::BadUrl(_) => Self::Usage(error.to_string()),
            E::Unavailable { .. } => Self::Unreachable(error.to_string()),
            E::Corrupt { .. } | E::Misuse { .. } => Self::Other(error.to_string()),
        }
    }
}

impl From<longshore_broker::Error> for Failure {
    fn from(error: longshore_broker::Error) -> Self {
        use longshore_broker::Error as E;
        match error {
            E::BadUrl(_) | E::BadNamespace(_) => Self::Usage(error.to_string()),
            E::Unavailable { .. } => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<longshore_storage::Error> for Failure {
    fn from(error: longshore_storage::Error) -> Self {
        if error.is_users_fault() {
            Self::Usage(error.to_string())
        } else {
            Self::Unreachable(error.to_string())
        }
    }
}

impl From<producer::ConnectError> for Failure {
    fn from(error: producer::ConnectError) -> Self {
        match error {
            producer::ConnectError::Broker(error) => error.into(),
            producer::ConnectError::Ledger(error) => error.into(),
        }
    }
}

#[cfg(feature = "bench")]
impl From<longshore_bench::Error> for Failure {
    fn from(error: longshore_bench::Error) -> Self {
        use longshore_bench::Error as E;
        match error {
            E::Connect(error) => error.into(),
            E::Submit(error) => error.into(),
            E::Job(error) => error.into(),
            E::Ledger(error) => error.into(),
            E::Unsupported(_) => Self::Usage(error.to_string()),
            E::Rabbit(_) | E::Redis(_) => Self::Unreachable(error.to_string()),
            E::Interrupted => Self::Interrupted,
            E::Process { .. } | E::System(_) | E::Unexpected(_) | E::TimedOut { .. } => {
                Self::Other(error.to_string())
            }
        }
    }
}

impl From<producer::SubmitError> for Failure {
    fn from(error: producer::SubmitError) -> Self {
        use producer::SubmitError as E;
        match error {
            E::Invalid(_) | E::Rejected { .. } | E::Conflict { .. } => {
                Self::Usage(error.to_string())
            }
            E::Storage(error) => error.into(),
            E::Ledger(error) => error.into(),
            E::NotAccepted { job, .. } => Self::Unreachable(format!(
                "{error}; RabbitMQ keeps the job until then, and `longshore status {job}` shows it"
            )),
            E::NotPublished { job, .. } | E::Unknown { job, .. } => {
                Self::Unreachable(format!("{error}; submit again with `--id {job}`, which is safe"))
            }
        }
    }
}

impl From<producer::Error> for Failure {
    fn from(error: producer::Error) -> Self {
        use longshore_ledger::ControlError;
        use producer::Error as E;
        match error {
            E::NotFound(job) => Self::no_such_job(job),
            E::Postponed { .. } | E::Cancelled { .. } => Self::NotFound(error.to_string()),
            E::Refused { reason: ControlError::BadIndices(_), .. } => {
                Self::Usage(error.to_string())
            }
            E::Ledger(error) => error.into(),
            E::Storage(error) => error.into(),
            E::Refused { .. } | E::ResultsLost(_) | E::NoValue { .. } | E::Corrupt { .. } => {
                Self::Other(error.to_string())
            }
        }
    }
}
