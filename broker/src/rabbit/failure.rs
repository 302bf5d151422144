//! How a step on RabbitMQ failed, which kind of error that is, and the time-out of every step.

use std::time::Duration;

use lapin::protocol::AMQPErrorKind;
use longshore_protocol::ErrorKind;
use tokio::time::timeout;

use crate::PublishError;

/// AMQP's reply code for a queue that does not exist.
pub(crate) const NOT_FOUND: u16 = 404;
/// The user lacks a permission, or could not log in.
pub(crate) const ACCESS_REFUSED: u16 = 403;
/// The queue exists with other arguments.
pub(crate) const PRECONDITION_FAILED: u16 = 406;
/// The virtual host does not exist, or the user may not open it.
pub(crate) const NOT_ALLOWED: u16 = 530;
/// An operator or the node's shutdown ended the connection.
pub(crate) const CONNECTION_FORCED: u16 = 320;
/// The server does not implement the request; ends the connection.
pub(crate) const NOT_IMPLEMENTED: u16 = 540;
/// The server failed, or a feature flag is off; ends the connection.
pub(crate) const INTERNAL_ERROR: u16 = 541;

/// The failure of a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// RabbitMQ refused this one request; the connection goes on.
    #[error("{text}")]
    Refused { code: u16, text: String },
    /// RabbitMQ ended the connection, or did not open it, and gave a reason.
    #[error("{text}")]
    Expelled { code: u16, text: String },
    /// The connection can't be used any more.
    #[error("{text}")]
    Broken { kind: ErrorKind, text: String },
    /// RabbitMQ did not answer in time.
    #[error("{step}: no answer within {limit:?}")]
    TimedOut { step: &'static str, limit: Duration },
}

impl Failure {
    /// The connection was closed, by this process or by something between it and RabbitMQ.
    pub(crate) fn closed(text: impl Into<String>) -> Self {
        Self::Broken { kind: ErrorKind::Disconnected, text: text.into() }
    }

    /// A time-out of something that is no single step.
    pub(crate) fn too_late(text: impl Into<String>) -> Self {
        Self::Broken { kind: ErrorKind::Timeout, text: text.into() }
    }

    /// The kind of failure, for programs.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Expelled { code: ACCESS_REFUSED, .. } => ErrorKind::LoginRefused,
            Self::Refused { code, .. } | Self::Expelled { code, .. } => match *code {
                ACCESS_REFUSED | NOT_ALLOWED => ErrorKind::Forbidden,
                NOT_FOUND => ErrorKind::NotFound,
                PRECONDITION_FAILED => ErrorKind::Conflict,
                CONNECTION_FORCED => ErrorKind::Disconnected,
                _ => ErrorKind::Other,
            },
            Self::Broken { kind, .. } => *kind,
            Self::TimedOut { .. } => ErrorKind::Timeout,
        }
    }

    /// The failure of a step of the login. RabbitMQ ends the connection then, also where AMQP's
    /// class of the code says that only a request was refused.
    pub(crate) fn at_login(self) -> Self {
        match self {
            Self::Refused { code, text } => Self::Expelled { code, text },
            other => other,
        }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        Self::Unknown { kind: failure.kind(), reason: failure.to_string() }
    }
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        use lapin::ErrorKind as Library;
        let amqp = match error.kind() {
            Library::ProtocolError(amqp) => amqp,
            Library::IOError(io) => {
                return Self::Broken { kind: ErrorKind::from(&**io), text: io.to_string() };
            }
            Library::MissingHeartbeatError => return Self::too_late(error.to_string()),
            Library::InvalidChannelState(..) | Library::InvalidConnectionState(_) => {
                return Self::closed(error.to_string());
            }
            _ => return Self::Broken { kind: ErrorKind::Other, text: error.to_string() },
        };
        let (code, text) = (amqp.get_id(), amqp.get_message().to_string());
        match amqp.kind() {
            AMQPErrorKind::Soft(_) => Self::Refused { code, text },
            AMQPErrorKind::Hard(_) => Self::Expelled { code, text },
        }
    }
}

/// Runs one step under a time-out. lapin's own futures have none, and some stay pending when a
/// connection breaks.
pub(crate) async fn within<T>(
    limit: Duration,
    step: &'static str,
    future: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, future).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => Err(Failure::TimedOut { step, limit }),
    }
}
