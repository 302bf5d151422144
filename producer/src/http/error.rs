//! Why a server could not be used, or did not do what was asked.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use longshore_protocol::{ErrorKind, Problem};
use longshore_tls::CertificateProblem;
use reqwest::StatusCode;

use super::Server;
use super::request::Request;
use crate::timers::MayPass;

/// Why a server of the HTTP API could not be used, or did not do what was asked. The text is the
/// server's own where it gave one.
#[derive(Debug)]
pub struct ServerError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    /// The status of the answer; `None` without an answer of a Longshore server.
    status: Option<u16>,
    retry_after: Option<Duration>,
    /// The request was sent, and what became of it is not known.
    is_broken_connection: bool,
}

impl Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl StdError for ServerError {}

impl MayPass for ServerError {
    fn may_pass(&self) -> bool {
        let kind = self.kind();
        match self.0.status {
            Some(status) => status == StatusCode::SERVICE_UNAVAILABLE && !kind.is_refusal(),
            None => kind.is_transient(),
        }
    }
}

impl ServerError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.problem.kind
    }

    /// What happened, as the server says it.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The status of the answer; `None` if no Longshore server answered.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// When the server wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the connection broke after the request was sent.
    pub(super) fn is_broken_connection(&self) -> bool {
        self.0.is_broken_connection
    }

    fn new(kind: ErrorKind, detail: impl Display) -> Self {
        Self(Box::new(Inner {
            problem: Problem::new(kind, detail),
            status: None,
            retry_after: None,
            is_broken_connection: false,
        }))
    }

    pub(super) fn bad_settings(detail: impl Display) -> Self {
        Self::new(ErrorKind::BadConfig, detail)
    }

    /// A setting of a request that can't be sent to a server.
    pub(super) fn unsupported(detail: impl Display) -> Self {
        Self::new(ErrorKind::BadInput, detail)
    }

    pub(super) fn refused(
        status: StatusCode,
        problem: Problem,
        retry_after: Option<Duration>,
    ) -> Self {
        let status = Some(status.as_u16());
        Self(Box::new(Inner { problem, status, retry_after, is_broken_connection: false }))
    }

    /// No connection, or one that broke.
    pub(super) fn no_answer(server: &Server, error: &reqwest::Error) -> Self {
        if let Some(problem) = CertificateProblem::find(error) {
            let detail = problem.describe(&server.to_string());
            return Self::new(ErrorKind::BadCertificate, detail);
        }
        let kind = match io_error(error).map(ErrorKind::from) {
            _ if error.is_timeout() => ErrorKind::Timeout,
            Some(ErrorKind::Other) | None if error.is_connect() => ErrorKind::Unreachable,
            Some(ErrorKind::Other) | None => ErrorKind::Disconnected,
            Some(kind) => kind,
        };
        if error.is_connect() {
            let cause = cause(error);
            return Self::new(
                kind,
                format_args!(
                    "{server} can't be reached: {cause}; check the URL, and that `longshore api` \
                     or `longshore dev` serves there"
                ),
            );
        }
        let mut broken =
            Self::new(kind, format_args!("{server} broke the connection: {}", cause(error)));
        broken.0.is_broken_connection = true;
        broken
    }

    /// A line of an answer stopped in the middle, or the answer did not go on.
    pub(super) fn cut(server: &Server, what: &str) -> Self {
        let mut broken = Self::new(ErrorKind::Disconnected, format_args!("{server} {what}"));
        broken.0.is_broken_connection = true;
        broken
    }

    pub(super) fn timeout(server: &Server, within: Duration) -> Self {
        let seconds = within.as_secs();
        let mut error = Self::new(
            ErrorKind::Timeout,
            format_args!("{server} did not answer within {seconds}s; look at its log, or /readyz"),
        );
        error.0.is_broken_connection = true;
        error
    }

    /// An answer that no Longshore server gives.
    pub(super) fn foreign(server: &Server, status: StatusCode, kind: &str) -> Self {
        let kind = if kind.is_empty() { "no content type" } else { kind };
        let kind: String = kind.chars().filter(|char| !char.is_control()).take(60).collect();
        let status_is = match status {
            // What a proxy answers whose server is away.
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => ErrorKind::Unreachable,
            StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unreachable,
            _ => ErrorKind::BadConfig,
        };
        Self::new(
            status_is,
            format_args!(
                "{server} answers {status} with {kind}, as no Longshore server does; check the \
                 URL and its path"
            ),
        )
    }

    pub(super) fn redirected(server: &Server, status: StatusCode, place: &str) -> Self {
        let place: String = place.chars().filter(|char| !char.is_control()).take(200).collect();
        let status = status.as_u16();
        Self::new(
            ErrorKind::BadConfig,
            format_args!(
                "{server} redirects ({status}) to `{place}`, and redirects are not followed; name \
                 the server itself"
            ),
        )
    }

    /// The server has no such endpoint.
    pub(super) fn unknown_path(server: &Server, request: &Request) -> Self {
        let what = request.what();
        Self::new(
            ErrorKind::Other,
            format_args!(
                "{server} has no {what}: it is older than this program, which needs it; update \
                 the server, or check the path of its URL"
            ),
        )
    }

    pub(super) fn unreadable(server: &Server, error: &dyn Display) -> Self {
        Self::new(
            ErrorKind::Corrupt,
            format_args!("{server} gave an answer that can't be read: {error}"),
        )
    }

    pub(super) fn too_large(server: &Server, most: usize) -> Self {
        let detail = format_args!("{server} gave an answer of more than {most} bytes");
        Self::new(ErrorKind::Corrupt, detail)
    }
}

/// The innermost cause, which is the one that people can do something about.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The failure of the connection itself.
fn io_error(error: &reqwest::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        found = error.downcast_ref().or(found);
        cause = error.source();
    }
    found
}
