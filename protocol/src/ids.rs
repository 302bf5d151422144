//! The ids of jobs, nodes, schedulers and chunks, and epochs, tokens and digests.
//!
//! Each is a type of its own, so that a chunk is never taken for an epoch.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a job, which is its idempotency key: the same id with the same content is the same
/// job.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// The nil UUID. No job has this id: documents that ask for it are refused.
    pub const NIL: Self = Self(Uuid::nil());

    /// Makes an id from the caller's UUID; UUIDv7 keeps jobs in order of submission.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(s).map(Self)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Makes an id; the caller guarantees that it is unique, usually with a UUID in it.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The id as written in keys and messages.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id! {
    /// The id of one incarnation of a worker process: `hostname-uuid`, new at every start, so that
    /// an old incarnation never looks alive.
    NodeId
}

text_id! {
    /// The id of one incarnation of a scheduler process: `hostname-uuid`, new at every start.
    SchedulerId
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// The number of a chunk within its job: 1, 2, 3, … in the order in which the ledger opened
    /// them.
    ChunkId
}

number_id! {
    /// How often a chunk was handed out: 1 at first, one more with each revoke or release. Compared
    /// for equality only: after a rollback of Redis an epoch can be issued twice.
    Epoch
}

impl Epoch {
    /// The epoch of a chunk that was never released or revoked.
    pub const FIRST: Self = Self(1);
}

/// A fencing token: 128 random bits that a worker draws before its first attempt to claim a chunk,
/// and repeats with each further attempt. Only commits with the current token count. Written as 32
/// hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

impl Token {
    /// Makes a token from the caller's random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// The text is not a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected 32 hex digits")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(s: &str) -> Result<Self, InvalidToken> {
        // The length check alone would let a sign or a multi-byte character through.
        if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidToken);
        }
        let number = u128::from_str_radix(s, 16).map_err(|_| InvalidToken)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The SHA-256 of a job document's canonical form without its id, in hex: same digest, same
/// content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// From the 64 hex digits.
    pub fn new(hex: impl Into<String>) -> Self {
        Self(hex.into())
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
