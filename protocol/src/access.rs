//! Who may do what through the HTTP API: roles, API tokens, and the audit trail.
//!
//! An API token is not a fencing token ([`Token`](crate::Token)): it identifies a person or a
//! program to the HTTP API. Deliberately absent: random bits and clocks, which callers pass as
//! arguments, and which role an endpoint needs, which the crate `api` decides.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::names::{MAX_NAME, check_name};
use crate::{Digest, Invalid, InvalidCursor, Timestamp};

/// What an API token permits. Each role permits what the ones before it permit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads jobs, results, errors and workers.
    Viewer,
    /// Submits jobs.
    Submitter,
    /// Controls jobs and workers: pause, resume, cancel, retry, delete, drain, readmit.
    Operator,
    /// Reads the audit trail.
    Admin,
}

impl Role {
    /// All roles, from the one that permits least.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Operator, Self::Admin];

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether this role permits what needs `needed`.
    pub fn permits(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such role; use viewer, submitter, operator or admin")]
pub struct InvalidRole;

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(InvalidRole)
    }
}

/// The secret of an API token: 256 random bits, written as `longshore_` and 64 hex digits. It is
/// shown once and kept nowhere; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiSecret(String);

impl ApiSecret {
    const PREFIX: &'static str = "longshore_";

    /// Makes a secret from the caller's random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(format!("{}{}", Self::PREFIX, hex(&bytes)))
    }

    /// Reads a secret as a client presents it; `None` for a text of another form.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        let is_secret = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_secret.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The text that clients present.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of the text, by which the ledger knows the token. 256 random bits can't be
    /// guessed from it, so it needs no salt and no slow hash.
    pub fn digest(&self) -> Digest {
        Digest::new(hex(&Sha256::digest(self.0.as_bytes())))
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiSecret").finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An API token as it is listed. It holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiToken {
    /// The first 16 hex digits of the digest of the secret.
    pub id: String,
    /// What people call the token. The audit trail names it.
    pub name: String,
    /// What the token permits.
    pub role: Role,
    /// The tenants whose jobs the token shows; null for all of them.
    pub tenants: Option<BTreeSet<String>>,
    /// When the token was created (the ledger's clock).
    pub created_at: Timestamp,
    /// When the token stops being valid (the ledger's clock); null for never.
    pub expires_at: Option<Timestamp>,
}

impl ApiToken {
    /// The id of a token whose secret has this digest.
    pub fn id_of(digest: &Digest) -> String {
        digest.as_str().chars().take(16).collect()
    }

    /// Whether the token shows the jobs of a tenant.
    pub fn shows(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    /// Whether the token is not valid any more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Checks the token's name and the names of its tenants.
    pub fn check(&self) -> Result<(), Invalid> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.contains(char::is_control) {
            return Err(Invalid {
                place: "name".into(),
                found: format!("{length} characters"),
                allowed: format!("use 1 to {MAX_NAME} printable characters"),
            });
        }
        match &self.tenants {
            Some(tenants) if tenants.is_empty() => Err(Invalid {
                place: "tenants".into(),
                found: "an empty list".into(),
                allowed: "name at least one tenant, or leave them out for all".into(),
            }),
            Some(tenants) => tenants.iter().try_for_each(|tenant| check_name("tenants", tenant)),
            None => Ok(()),
        }
    }
}

/// An API token as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptApiToken {
    /// The digest of the secret.
    pub digest: Digest,
    /// The token.
    #[serde(flatten)]
    pub token: ApiToken,
}

/// Whether a request that changes something was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionOutcome {
    /// The change was made.
    Done,
    /// The change was refused: the caller may not make it, or the input or the state forbids it.
    Refused,
    /// The change failed, and may have been made in part.
    Failed,
}

/// An entry of the audit trail: who did what, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// The entry's own id, a UUID in its usual form.
    pub id: String,
    /// When the ledger recorded the entry (its own clock). Recording sets it.
    #[serde(default)]
    pub at: Timestamp,
    /// The id of the token; absent where no token was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The name of the token, or of the user of the command line.
    pub who: String,
    /// The address that the request came from; absent for the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The operation, as the API description names it.
    pub action: String,
    /// The path of the request, or what it was about.
    pub target: String,
    /// Whether the change was made.
    pub outcome: ActionOutcome,
    /// The status of the answer; absent for the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The id of the request; absent for the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Action {
    /// The entry's place in the audit trail.
    pub fn cursor(&self) -> ActionCursor {
        ActionCursor { at: self.at, id: self.id.clone() }
    }
}

/// The last entry of a page of the audit trail: the next page begins behind it.
///
/// Its text is `<Unix milliseconds>-<id>`; programs should not rely on that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionCursor {
    /// When the ledger recorded the entry.
    pub at: Timestamp,
    /// The entry's id.
    pub id: String,
}

impl fmt::Display for ActionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at, self.id)
    }
}

impl FromStr for ActionCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (at, id) = text.split_once('-').ok_or(InvalidCursor)?;
        let at = Timestamp::from_millis(at.parse().map_err(|_| InvalidCursor)?);
        Uuid::parse_str(id).map_err(|_| InvalidCursor)?;
        Ok(Self { at, id: id.to_owned() })
    }
}

impl JsonSchema for ActionCursor {
    fn schema_name() -> Cow<'static, str> {
        "ActionCursor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where the next page of the audit trail begins. Opaque.",
            "type": "string",
        })
    }
}

impl Serialize for ActionCursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ActionCursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_permits_what_the_ones_before_it_permit() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role.as_str().parse(), Ok(role));
            for (other, needed) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.permits(needed), place >= other, "{role} for {needed}");
            }
        }
        assert_eq!("root".parse::<Role>(), Err(InvalidRole));
    }

    #[test]
    fn a_secret_is_read_as_it_was_shown_and_never_printed() {
        let secret = ApiSecret::from_bytes([0xab; 32]);
        assert_eq!(ApiSecret::parse(secret.as_str()), Some(secret.clone()));
        assert_eq!(ApiSecret::parse(&secret.as_str().replace("ab", "AB")), Some(secret.clone()));
        assert!(!format!("{secret:?}").contains("ab"), "{secret:?}");
        for wrong in ["", "longshore_", "longshore_abc", &"a".repeat(74), "longshore_é"] {
            assert_eq!(ApiSecret::parse(wrong), None, "{wrong}");
        }
        assert_eq!(secret.digest().as_str().len(), 64);
        assert_eq!(ApiToken::id_of(&secret.digest()), secret.digest().as_str()[..16]);
    }

    #[test]
    fn a_token_names_the_tenants_that_it_shows() {
        let token = |tenants: Option<&[&str]>| ApiToken {
            id: String::new(),
            name: "ci".into(),
            role: Role::Viewer,
            tenants: tenants.map(|names| names.iter().map(|name| (*name).into()).collect()),
            created_at: Timestamp::from_millis(1),
            expires_at: Some(Timestamp::from_millis(5)),
        };
        assert!(token(None).shows("a") && token(Some(&["a"])).shows("a"));
        assert!(!token(Some(&["b"])).shows("a"));
        assert_eq!(token(Some(&["a", "b"])).check(), Ok(()));
        assert!(token(Some(&[])).check().is_err() && token(Some(&["a b"])).check().is_err());
        assert!(ApiToken { name: "\n".into(), ..token(None) }.check().is_err());
        let at = Timestamp::from_millis;
        assert!(!token(None).has_expired(at(4)) && token(None).has_expired(at(5)));
    }
}
