//! Why Redis does not do as asked, read from its words, and what an operator can do about it.
//!
//! Redis tells causes apart by the first word of an error only, and the client library by words of its own. This file is
//! the one place that knows these words.

use crate::Error;

/// Why Redis could not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Nobody listens there, or the name has no address.
    Unreachable,
    /// It accepted the connection and gave no answer in time.
    Silent,
    /// It accepted the connection and ended it without a word.
    HangsUp,
    /// User or password are wrong.
    Login,
    /// The user may not do this.
    Forbidden,
    /// It is a replica, which takes no writes.
    ReadOnly,
    /// It has reached `maxmemory`.
    Full,
    /// It can't save to disk, and refuses writes for it.
    NotSaving,
    /// Fewer replicas follow than `min-replicas-to-write` asks for.
    TooFewReplicas,
    /// It reads its data after a start.
    Loading,
    /// All connections that `maxclients` allows are taken.
    TooManyClients,
    /// No node serves a part of the cluster's slots.
    ClusterDown,
}

/// What an error says, in lower case, and the cause that it tells of.
const WORDS: [(&str, Cause); 28] = [
    ("wrongpass", Cause::Login),
    ("noauth", Cause::Login),
    ("authenticationfailed", Cause::Login),
    ("password authentication failed", Cause::Login),
    ("invalid username-password", Cause::Login),
    ("noperm", Cause::Forbidden),
    ("may not load it", Cause::Forbidden),
    ("readonly", Cause::ReadOnly),
    ("read only replica", Cause::ReadOnly),
    ("readonly replica", Cause::ReadOnly),
    ("used memory > 'maxmemory'", Cause::Full),
    ("misconf", Cause::NotSaving),
    ("noreplicas", Cause::TooFewReplicas),
    ("loading", Cause::Loading),
    ("max number of clients", Cause::TooManyClients),
    ("clusterdown", Cause::ClusterDown),
    ("timed out", Cause::Silent),
    ("timeout occurred", Cause::Silent),
    ("no connection within", Cause::Silent),
    ("connection refused", Cause::Unreachable),
    ("no route to host", Cause::Unreachable),
    ("network is unreachable", Cause::Unreachable),
    ("failed to lookup address", Cause::Unreachable),
    ("no such file or directory", Cause::Unreachable),
    ("connection reset", Cause::HangsUp),
    ("connection aborted", Cause::HangsUp),
    ("broken pipe", Cause::HangsUp),
    ("unexpected end of file", Cause::HangsUp),
];

impl Cause {
    /// The cause that the text of an error tells of; `None` where it tells of none that is known.
    pub fn of(reason: &str) -> Option<Self> {
        let reason = reason.to_ascii_lowercase();
        WORDS.iter().find(|(word, _)| reason.contains(word)).map(|(_, cause)| *cause)
    }

    /// Whether waiting can't help: Redis is there and refuses this user.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Login | Self::Forbidden)
    }

    /// Whether Redis answers, and refuses writes.
    pub fn refuses_writes(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Full | Self::NotSaving | Self::TooFewReplicas)
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => "start Redis, or correct redis_url",
            Self::Silent => "see whether Redis hangs, and what the network between drops",
            Self::HangsUp => "see whether Redis is what listens there, and its log",
            Self::Login => "correct user and password in redis_url",
            Self::Forbidden => "allow this user the commands that docs/redis.md lists",
            Self::ReadOnly => {
                "this Redis is a replica: name the master in redis_url, or the sentinels that know it"
            }
            Self::Full => "raise maxmemory, or delete old jobs with `longshore delete`",
            Self::NotSaving => "Redis can't write to its disk: see its log, free disk space",
            Self::TooFewReplicas => "start Redis's replicas, or lower min-replicas-to-write",
            Self::Loading => "wait until Redis has read its data",
            Self::TooManyClients => "raise maxclients in redis.conf, or run fewer processes",
            Self::ClusterDown => {
                "see `redis-cli cluster info`, and start the nodes that are missing"
            }
        }
    }
}

/// The remedy as the end of a sentence; nothing where there is none.
pub(crate) fn advice(reason: &str) -> String {
    Cause::of(reason).map_or_else(String::new, |cause| format!("; {}", cause.remedy()))
}

impl Error {
    /// Why the ledger can't be used, where its words tell.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Unavailable { reason, .. } => Cause::of(reason),
            Self::BadUrl(_) | Self::Corrupt { .. } | Self::Misuse { .. } => None,
        }
    }

    /// What to do about it, where its words tell.
    pub fn remedy(&self) -> Option<&'static str> {
        self.cause().map(Cause::remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_from_redis_s_own_words() {
        let check = |reason: &str, expected| assert_eq!(Cause::of(reason), expected, "{reason}");
        check("READONLY: You can't write against a read only replica.", Some(Cause::ReadOnly));
        check("\"OOM\": command not allowed when used memory > 'maxmemory'.", Some(Cause::Full));
        check("ReadOnly: You can't write against a read only replica.", Some(Cause::ReadOnly));
        check("\"NOREPLICAS\": Not enough good replicas to write.", Some(Cause::TooFewReplicas));
        let misconf = "MISCONF: Redis is configured to save RDB snapshots, but it's unable to \
                       persist to disk.";
        check(misconf, Some(Cause::NotSaving));
        check("LOADING: Redis is loading the dataset in memory", Some(Cause::Loading));
        check("ERR max number of clients reached", Some(Cause::TooManyClients));
        check("Connection refused (os error 111)", Some(Cause::Unreachable));
        check("timed out after 2s waiting for an answer", Some(Cause::Silent));
        check("no room for more", None);
    }
}
