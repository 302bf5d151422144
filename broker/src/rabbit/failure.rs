//! Why a step with RabbitMQ failed, and the time-out that every step is under.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;
use tokio::time::timeout;

/// AMQP's reply code for a queue that does not exist.
pub(crate) const NOT_FOUND: u16 = 404;
/// The user lacks the permission, or could not log in.
pub(crate) const ACCESS_REFUSED: u16 = 403;
/// The queue exists with other arguments.
pub(crate) const PRECONDITION_FAILED: u16 = 406;
/// The virtual host does not exist, or is not for this user.
pub(crate) const NOT_ALLOWED: u16 = 530;
/// The server can't do that at all; ends the connection.
pub(crate) const NOT_IMPLEMENTED: u16 = 540;
/// The server failed, or a feature of it is turned off; ends the connection.
pub(crate) const INTERNAL_ERROR: u16 = 541;

/// Why a step failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// RabbitMQ said no to this one request; the connection goes on.
    #[error("{text}")]
    Refused { code: u16, text: String },
    /// RabbitMQ ended the connection, or never opened it, and said why.
    #[error("{text}")]
    Expelled { code: u16, text: String },
    /// The connection is of no more use.
    #[error("{0}")]
    Broken(String),
    /// No answer.
    #[error("{step}: no answer within {limit:?}")]
    TimedOut { step: &'static str, limit: Duration },
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        let ErrorKind::ProtocolError(amqp) = error.kind() else {
            return match error.kind() {
                ErrorKind::IOError(io) => Self::Broken(io.to_string()),
                _ => Self::Broken(error.to_string()),
            };
        };
        let (code, text) = (amqp.get_id(), amqp.get_message().to_string());
        match amqp.kind() {
            AMQPErrorKind::Soft(_) => Self::Refused { code, text },
            AMQPErrorKind::Hard(_) => Self::Expelled { code, text },
        }
    }
}

/// Runs one step under a time-out. lapin's own futures have none, and some stay pending when a connection dies.
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
