//! The kinds of failure that programs tell apart, the same for broker, ledger, clients and verbs.
//!
//! Errors keep their own types and texts; a kind is what a program decides by. Deliberately absent:
//! the texts of errors, and what an operator can do about a kind, which differs between RabbitMQ
//! and Redis.

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of failure an error is. Programs decide by the kind; the text of an error is for
/// people, and may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No server listens at the address, or the name has no address.
    Unreachable,
    /// The server did not answer in time. Whether it did what was asked is unknown.
    Timeout,
    /// The server, or something between, closed the connection. Whether the server did what was
    /// asked is unknown.
    Disconnected,
    /// User or password are wrong.
    LoginRefused,
    /// The user exists and may not do this.
    Forbidden,
    /// The certificate of the server can't be trusted, or the server demands another one of ours.
    BadCertificate,
    /// The server is a replica, which accepts no writes.
    ReadOnly,
    /// The server is out of memory or disk space, and accepts no writes.
    Full,
    /// The server can't save to its disk, and accepts no writes for that reason.
    NotPersisting,
    /// Fewer replicas follow than the server asks for, and it accepts no writes for that reason.
    TooFewReplicas,
    /// The server is starting and still reads its data.
    Loading,
    /// The server has as many connections as it allows.
    TooManyConnections,
    /// A part of the cluster has no server.
    ClusterDown,
    /// A setting can't be used: an address, a namespace.
    BadConfig,
    /// The input is wrong: a job document, a glob, indices.
    BadInput,
    /// What was named does not exist, or was kept no longer.
    NotFound,
    /// Something else has the name already.
    Conflict,
    /// The state of a job does not allow what was asked.
    IllegalState,
    /// A job that was waited for has ended without success.
    JobFailed,
    /// A check found something that is not in order.
    CheckFailed,
    /// What was asked for does not exist yet; asking again later may help.
    NotYet,
    /// Data that existed was lost.
    Lost,
    /// Stored data can't be read: another program wrote it, or versions differ.
    Corrupt,
    /// A caller broke the rules of an operation, which is a bug of Longshore's.
    Bug,
    /// None of the others.
    Other,
}

impl ErrorKind {
    /// The kind in words, as a fragment.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Unreachable => "service unreachable",
            Self::Timeout => "no answer in time",
            Self::Disconnected => "connection closed",
            Self::LoginRefused => "login refused",
            Self::Forbidden => "not allowed for this user",
            Self::BadCertificate => "bad certificate",
            Self::ReadOnly => "server is a replica",
            Self::Full => "server is full",
            Self::NotPersisting => "server can't save",
            Self::TooFewReplicas => "too few replicas",
            Self::Loading => "server is starting",
            Self::TooManyConnections => "too many connections",
            Self::ClusterDown => "part of the cluster is down",
            Self::BadConfig => "bad setting",
            Self::BadInput => "bad input",
            Self::NotFound => "not found",
            Self::Conflict => "name is taken",
            Self::IllegalState => "state does not allow it",
            Self::JobFailed => "job has not succeeded",
            Self::CheckFailed => "check failed",
            Self::NotYet => "not yet",
            Self::Lost => "data was lost",
            Self::Corrupt => "stored data can't be read",
            Self::Bug => "bug",
            Self::Other => "other failure",
        }
    }

    /// Whether a service answers and refuses this user, so that waiting does not help.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::LoginRefused | Self::Forbidden)
    }

    /// Whether a service answers and accepts no writes.
    pub fn refuses_writes(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Full | Self::NotPersisting | Self::TooFewReplicas)
    }

    /// Whether the same call may work later without anybody changing anything but the service.
    pub fn is_transient(self) -> bool {
        self.refuses_writes()
            || matches!(
                self,
                Self::Unreachable
                    | Self::Timeout
                    | Self::Disconnected
                    | Self::Loading
                    | Self::TooManyConnections
                    | Self::ClusterDown
                    | Self::NotYet
            )
    }
}

impl From<&io::Error> for ErrorKind {
    /// The kind of a failure of a connection, or of opening one.
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        match error.kind() {
            Io::TimedOut | Io::WouldBlock => Self::Timeout,
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::UnexpectedEof => Self::Disconnected,
            // A failed TLS handshake is one of the first two; `longshore-tls` tells problems with
            // certificates from other failures.
            Io::InvalidData | Io::Other | Io::InvalidInput | Io::Unsupported => Self::Other,
            Io::PermissionDenied => Self::Forbidden,
            // Refusals, missing routes, missing sockets; a name without an address has no kind that
            // can be named.
            _ => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_fails_is_told_from_one_that_breaks() {
        let check = |kind: io::ErrorKind, expected| {
            assert_eq!(ErrorKind::from(&io::Error::from(kind)), expected, "{kind}");
        };
        check(io::ErrorKind::ConnectionRefused, ErrorKind::Unreachable);
        check(io::ErrorKind::HostUnreachable, ErrorKind::Unreachable);
        check(io::ErrorKind::NotFound, ErrorKind::Unreachable);
        check(io::ErrorKind::TimedOut, ErrorKind::Timeout);
        check(io::ErrorKind::ConnectionReset, ErrorKind::Disconnected);
        check(io::ErrorKind::UnexpectedEof, ErrorKind::Disconnected);
        check(io::ErrorKind::InvalidData, ErrorKind::Other);
    }
}
