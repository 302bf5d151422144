//! The kind of a failure, from the library's kinds, Redis's error codes and the system's kinds.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use longshore_protocol::ErrorKind;
use longshore_tls::CertificateProblem;
use redis::{RedisError, ServerErrorKind};

/// What Redis says, under the general code, to a client too many; it has no code for that.
const TOO_MANY_CLIENTS: &str = "max number of clients reached";

/// The kind of an error of the client library.
pub(super) fn of(error: &RedisError) -> ErrorKind {
    use redis::ErrorKind as Library;
    match error.kind() {
        Library::AuthenticationFailed => ErrorKind::LoginRefused,
        // Only the client of clusters makes such an error without one of the operating system: when
        // it could connect to none of the nodes.
        Library::Io => io_error(error).map_or(ErrorKind::Unreachable, ErrorKind::from),
        Library::MasterNameNotFoundBySentinel
        | Library::NoValidReplicasFoundBySentinel
        | Library::ClusterConnectionNotFound => ErrorKind::Unreachable,
        Library::InvalidClientConfig | Library::EmptySentinelList => ErrorKind::BadConfig,
        Library::Server(ServerErrorKind::NoPerm) => ErrorKind::Forbidden,
        Library::Server(_) | Library::Extension => match error.clone().into_server_errors() {
            Some(errors) => errors.first().map_or(ErrorKind::Other, |(_, error)| {
                of_reply(error.code(), error.details().unwrap_or_default())
            }),
            // The library wrapped it in words of its own, and kept the code.
            None => of_reply(error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
        },
        _ => ErrorKind::Other,
    }
}

/// The kind of an error that Redis replied with: its code, and what follows the code.
pub(super) fn of_reply(code: &str, detail: &str) -> ErrorKind {
    match code {
        "WRONGPASS" | "NOAUTH" => ErrorKind::LoginRefused,
        "NOPERM" => ErrorKind::Forbidden,
        "READONLY" => ErrorKind::ReadOnly,
        "OOM" => ErrorKind::Full,
        "MISCONF" => ErrorKind::NotPersisting,
        "NOREPLICAS" => ErrorKind::TooFewReplicas,
        "LOADING" => ErrorKind::Loading,
        "CLUSTERDOWN" => ErrorKind::ClusterDown,
        "ERR" if detail == TOO_MANY_CLIENTS => ErrorKind::TooManyConnections,
        _ => ErrorKind::Other,
    }
}

/// What is wrong with a certificate, if that is what the library failed with.
pub(super) fn certificate_problem(error: &RedisError) -> Option<CertificateProblem> {
    CertificateProblem::find(io_error(error)?)
}

/// The operating system's error within an error of the library.
fn io_error(error: &RedisError) -> Option<&io::Error> {
    let source = error.source()?;
    let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
    shared.map_or_else(|| source.downcast_ref(), |shared| shared.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reply: &str, expected: ErrorKind) {
        let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
        let error = value.and_then(redis::Value::extract_error).expect_err("it is an error");
        assert_eq!(of(&error), expected, "{reply}");
    }

    #[test]
    fn each_reply_of_redis_has_its_kind() {
        check("READONLY You can't write against a read only replica.", ErrorKind::ReadOnly);
        check("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Full);
        check("NOREPLICAS Not enough good replicas to write.", ErrorKind::TooFewReplicas);
        check("MISCONF Redis is configured to save RDB snapshots, but", ErrorKind::NotPersisting);
        check("LOADING Redis is loading the dataset in memory", ErrorKind::Loading);
        check("CLUSTERDOWN The cluster is down", ErrorKind::ClusterDown);
        check("ERR max number of clients reached", ErrorKind::TooManyConnections);
        check(
            "WRONGPASS invalid username-password pair or user is disabled.",
            ErrorKind::LoginRefused,
        );
        check("NOAUTH Authentication required.", ErrorKind::LoginRefused);
        check("NOPERM User x has no permissions to run the 'fcall' command", ErrorKind::Forbidden);
        check("ERR no room for more", ErrorKind::Other);
    }

    #[test]
    fn failures_of_the_connection_have_the_kind_of_the_operating_system_s_error() {
        let of_io = |kind: io::ErrorKind| of(&RedisError::from(io::Error::from(kind)));
        assert_eq!(of_io(io::ErrorKind::ConnectionRefused), ErrorKind::Unreachable);
        assert_eq!(of_io(io::ErrorKind::TimedOut), ErrorKind::Timeout);
        assert_eq!(of_io(io::ErrorKind::BrokenPipe), ErrorKind::Disconnected);
    }
}
