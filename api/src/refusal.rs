//! Makes answers that report a failure: problem details (RFC 9457).
//!
//! A refusal for which the client is to blame says what, where and what is allowed. A failure of a
//! service is logged with its cause and answered without: addresses of services are no business of
//! clients. Deliberately absent: the ids of requests, which the router adds.

use std::fmt;

use axum::http::StatusCode;
use longshore_producer::{DeadLetterError, Error, SubmitError, TokenError};
use longshore_protocol::{ErrorKind, Invalid, JobId, Problem};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::warn;

/// The content type of problem details.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How many seconds a client should wait before it tries again, where that helps.
const RETRY_AFTER_S: u32 = 1;

/// Problem details as they are sent.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HttpProblem")]
pub(crate) struct HttpProblem<'a> {
    /// The kind of problem as a URI.
    #[serde(rename = "type")]
    pub(crate) kind_uri: String,
    /// The status of the answer.
    pub(crate) status: u16,
    /// The id of the request, which the server's log has too.
    pub(crate) request: &'a str,
    #[serde(flatten)]
    pub(crate) problem: &'a Problem,
}

impl<'a> HttpProblem<'a> {
    pub(crate) fn new(status: StatusCode, request: &'a str, problem: &'a Problem) -> Self {
        let kind = serde_json::to_value(problem.kind).unwrap_or_default();
        let kind_uri = format!("urn:longshore:problem:{}", kind.as_str().unwrap_or("other"));
        Self { kind_uri, status: status.as_u16(), request, problem }
    }
}

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
    pub(crate) retry_after_s: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self::of(status, Problem::new(kind, detail))
    }

    fn of(status: StatusCode, problem: Problem) -> Self {
        let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_s = is_unavailable.then_some(RETRY_AFTER_S);
        Self(Box::new(Inner { status, problem, retry_after_s }))
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn problem(&self) -> &Problem {
        &self.0.problem
    }

    pub(crate) fn into_inner(self) -> Inner {
        *self.0
    }

    /// A mistake in the request itself: its path, its query or its headers.
    pub(crate) fn bad_request(invalid: &Invalid) -> Self {
        Self::of(StatusCode::BAD_REQUEST, Problem::from(invalid))
    }

    /// A mistake in the body.
    pub(crate) fn bad_body(invalid: &Invalid) -> Self {
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, Problem::from(invalid))
    }

    /// No such job, or a job that the caller's token does not show: the two look the same.
    pub(crate) fn no_such_job(job: JobId) -> Self {
        let problem = Problem::new(ErrorKind::NotFound, format_args!("no such job: {job}"));
        Self::of(StatusCode::NOT_FOUND, problem.about_job(Some(job)))
    }

    pub(crate) fn forbidden(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, detail)
    }

    pub(crate) fn too_large(most: usize) -> Self {
        let detail = format_args!("the body is too large; send at most {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::BadInput, detail)
    }

    pub(crate) fn too_slow() -> Self {
        let detail = "the body did not arrive in time; send it faster, or in parts";
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout, detail)
    }

    /// The request was carried out for too long; what became of it is not known.
    pub(crate) fn no_answer() -> Self {
        let detail = "the request took too long; whether it was carried out is not known";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Timeout, detail)
    }

    /// A failure of a service, whose text is for the log alone.
    fn of_service(kind: ErrorKind, error: &dyn fmt::Display, job: Option<JobId>) -> Self {
        warn!(%error, ?kind, "a request failed");
        let is_away = kind.is_transient() || kind.is_refusal() || kind == ErrorKind::BadCertificate;
        let (status, detail) = if is_away {
            (StatusCode::SERVICE_UNAVAILABLE, "a service that is needed can't be used now")
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, "the server's log says why, by the request's id")
        };
        Self::of(status, Problem::new(kind, detail).about_job(job))
    }
}

/// The status for a kind of failure that is not the fault of a service.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::IllegalState | ErrorKind::NotYet => StatusCode::CONFLICT,
        ErrorKind::Lost => StatusCode::GONE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl From<longshore_ledger::Error> for Refusal {
    fn from(error: longshore_ledger::Error) -> Self {
        Self::of_service(error.kind(), &error, None)
    }
}

impl From<longshore_broker::Error> for Refusal {
    fn from(error: longshore_broker::Error) -> Self {
        Self::of_service(error.kind(), &error, None)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let problem = Problem::from(&error);
        match error {
            // A job that is not admitted is not there yet, whatever is known about it.
            Error::Postponed { .. } | Error::Cancelled { .. } => {
                Self::of(StatusCode::NOT_FOUND, problem)
            }
            Error::NotFound(_)
            | Error::NodeNotFound(_)
            | Error::Refused { .. }
            | Error::ResultsLost(_)
            | Error::MapLost(_)
            | Error::NoValue { .. } => Self::of(status_of(problem.kind), problem),
            Error::Ledger(_) | Error::Storage(_) | Error::Server(_) | Error::Corrupt { .. } => {
                Self::of_service(problem.kind, &error, problem.job)
            }
        }
    }
}

impl From<DeadLetterError> for Refusal {
    fn from(error: DeadLetterError) -> Self {
        Self::of_service(error.kind(), &error, None)
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(invalid) => Self::bad_body(&invalid),
            TokenError::TooMany => Self::new(StatusCode::CONFLICT, ErrorKind::Conflict, error),
            TokenError::Ledger(error) => error.into(),
            TokenError::Server(error) => Self::of_service(error.kind(), &error, None),
        }
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        let problem = Problem::from(&error);
        match error {
            SubmitError::Invalid(_)
            | SubmitError::Rejected { .. }
            | SubmitError::Conflict { .. }
            | SubmitError::NotAccepted { .. } => Self::of(status_of(problem.kind), problem),
            SubmitError::Storage(_)
            | SubmitError::Server(_)
            | SubmitError::NotPublished { .. }
            | SubmitError::Ledger(_)
            | SubmitError::Unknown { .. } => Self::of_service(problem.kind, &error, problem.job),
        }
    }
}
