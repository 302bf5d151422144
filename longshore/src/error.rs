//! The one error type of the public API, with a kind for programs and the job that it is about.

use std::fmt;

use longshore_protocol::{ErrorKind, Invalid, JobId};

/// Why a call failed. Programs decide by [`Self::kind`]; the text is for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    job: Option<JobId>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// The kind of failure.
    ///
    /// ```
    /// use longshore::{Error, ErrorKind};
    ///
    /// fn should_retry(error: &Error) -> bool {
    ///     error.kind() != ErrorKind::LoginRefused && error.kind().is_transient()
    /// }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The job that the error is about, if it is about one. After a failed submission, to submit
    /// the same document with this id ([`Document::id`](crate::Document::id)) is safe.
    pub fn job(&self) -> Option<JobId> {
        self.job
    }

    pub(crate) fn new(
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, job: None, source: source.into() }
    }

    fn about(self, job: Option<JobId>) -> Self {
        Self { job, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorKind::BadInput, invalid)
    }
}

impl From<longshore_broker::Error> for Error {
    fn from(error: longshore_broker::Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<longshore_ledger::Error> for Error {
    fn from(error: longshore_ledger::Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<longshore_producer::ConnectError> for Error {
    fn from(error: longshore_producer::ConnectError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<longshore_producer::SubmitError> for Error {
    fn from(error: longshore_producer::SubmitError) -> Self {
        use longshore_producer::SubmitError as E;
        let job = match &error {
            E::Rejected { job, .. }
            | E::Conflict { job }
            | E::NotPublished { job, .. }
            | E::NotAccepted { job, .. }
            | E::Unknown { job, .. } => Some(*job),
            E::Invalid(_) | E::Storage(_) | E::Ledger(_) => None,
        };
        Self::new(error.kind(), error).about(job)
    }
}

impl From<longshore_producer::Error> for Error {
    fn from(error: longshore_producer::Error) -> Self {
        use longshore_producer::Error as E;
        let job = match &error {
            E::NotFound(job)
            | E::ResultsLost(job)
            | E::Postponed { job, .. }
            | E::Cancelled { job, .. }
            | E::Refused { job, .. }
            | E::Corrupt { job, .. }
            | E::NoValue { job, .. } => Some(*job),
            E::Ledger(_) | E::Storage(_) => None,
        };
        Self::new(error.kind(), error).about(job)
    }
}

impl From<longshore_worker::BuildError> for Error {
    fn from(error: longshore_worker::BuildError) -> Self {
        Self::new(ErrorKind::BadConfig, error)
    }
}

impl From<longshore_worker::Error> for Error {
    fn from(error: longshore_worker::Error) -> Self {
        use longshore_worker::Error as E;
        let kind = match &error {
            E::Broker(error) => error.kind(),
            E::Ledger(error) => error.kind(),
            E::BrokerClosed => ErrorKind::Disconnected,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
