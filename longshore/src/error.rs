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

    /// The mistake in a document, if that is the reason: its place, what was found, and what is
    /// allowed.
    ///
    /// ```
    /// use longshore::{Document, Split};
    ///
    /// let document = Document::new("t", Split::range(0..3)).priority(10);
    /// let error = document.check().expect_err("there is no priority 10");
    /// assert_eq!(error.mistake().expect("it is in the document").place, "priority");
    /// ```
    pub fn mistake(&self) -> Option<&Invalid> {
        self.source.downcast_ref()
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
        let (kind, job) = (error.kind(), error.job());
        match error {
            longshore_producer::SubmitError::Invalid(invalid) => invalid.into(),
            error => Self::new(kind, error).about(job),
        }
    }
}

impl From<longshore_producer::Error> for Error {
    fn from(error: longshore_producer::Error) -> Self {
        let (kind, job) = (error.kind(), error.job());
        Self::new(kind, error).about(job)
    }
}

impl From<longshore_producer::DeadLetterError> for Error {
    fn from(error: longshore_producer::DeadLetterError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<longshore_producer::EmptyFilter> for Error {
    fn from(error: longshore_producer::EmptyFilter) -> Self {
        Self::new(ErrorKind::BadInput, error)
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
