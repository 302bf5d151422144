//! What an operator can do about a Redis that does not do as asked, for each kind of failure.

use longshore_protocol::ErrorKind;

use crate::{ControlError, Error};

/// What to do about a failure of Redis; `None` where the kind does not tell.
pub(crate) fn remedy(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Unreachable => "start Redis, or correct redis_url",
        ErrorKind::Timeout => "see whether Redis hangs, and what the network between drops",
        ErrorKind::Disconnected => "see whether Redis is what listens there, and its log",
        ErrorKind::LoginRefused => "correct user and password in redis_url",
        ErrorKind::Forbidden => "allow this user the commands that docs/redis.md lists",
        ErrorKind::ReadOnly => {
            "this Redis is a replica: name the master in redis_url, or the sentinels that know it"
        }
        ErrorKind::Full => "raise maxmemory, or delete old jobs with `longshore delete`",
        ErrorKind::NotPersisting => "Redis can't write to its disk: see its log, free disk space",
        ErrorKind::TooFewReplicas => "start Redis's replicas, or lower min-replicas-to-write",
        ErrorKind::Loading => "wait until Redis has read its data",
        ErrorKind::TooManyConnections => "raise maxclients in redis.conf, or run fewer processes",
        ErrorKind::ClusterDown => {
            "see `redis-cli cluster info`, and start the nodes that are missing"
        }
        _ => return None,
    })
}

/// The remedy as the end of a sentence; nothing where there is none.
pub(crate) fn advice(kind: ErrorKind) -> String {
    remedy(kind).map_or_else(String::new, |remedy| format!("; {remedy}"))
}

impl Error {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { kind, .. } => *kind,
            Self::BadUrl(_) | Self::BadFile(_) => ErrorKind::BadConfig,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Misuse { .. } => ErrorKind::Bug,
        }
    }

    /// What an operator can do about it; `None` where the kind does not tell.
    pub fn remedy(&self) -> Option<&'static str> {
        remedy(self.kind())
    }
}

impl ControlError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Illegal(_) | Self::NotEnded(_) => ErrorKind::IllegalState,
            Self::BadIndices(_) => ErrorKind::BadInput,
            Self::Ledger(error) => error.kind(),
        }
    }
}
