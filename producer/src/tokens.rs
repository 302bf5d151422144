//! The API tokens, as a client sees and changes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_ledger::op::MAX_API_TOKENS;
use longshore_protocol::wire::NewApiToken;
use longshore_protocol::{ApiToken, Invalid, Role, Timestamp};

use crate::{Error, ServerError, Way, direct, either, http};

/// Why a token was not created.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name or a tenant is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There are too many tokens.
    #[error("there are {MAX_API_TOKENS} tokens already; revoke some")]
    TooMany,
    /// The ledger can't be used.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
    /// The server can't be used, or refused.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Lists, creates and revokes the tokens by which clients of the HTTP API identify themselves.
/// Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct ApiTokens {
    pub(crate) way: Way<direct::tokens::ApiTokens, http::tokens::ApiTokens>,
}

impl std::fmt::Debug for ApiTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiTokens").finish_non_exhaustive()
    }
}

impl ApiTokens {
    /// The tokens of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { way: Way::Direct(direct::tokens::ApiTokens::new(ledger)) }
    }

    /// Records changes in the audit trail as those of this person. Without it the caller records
    /// them. A server records them itself, under the token that it is called with.
    #[must_use]
    pub fn recorded_as(mut self, who: String) -> Self {
        if let Way::Direct(tokens) = &mut self.way {
            tokens.record_as(who);
        }
        self
    }

    /// The time of the ledger's clock, by which tokens are dated.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        either!(&self.way, tokens => tokens.now().await)
    }

    /// All tokens. Their secrets are not kept.
    pub async fn list(&self) -> Result<Vec<ApiToken>, Error> {
        either!(&self.way, tokens => tokens.list().await)
    }

    /// Creates a token for these tenants, or for all of them, that is valid for a time, or for
    /// ever. Its secret is kept nowhere.
    pub async fn create(
        &self,
        name: String,
        role: Role,
        tenants: Option<BTreeSet<String>>,
        expires: Option<Duration>,
    ) -> Result<NewApiToken, TokenError> {
        either!(&self.way, tokens => tokens.create(name, role, tenants, expires).await)
    }

    /// Revokes a token; servers refuse it within two seconds. `false` if there is none with this
    /// id.
    pub async fn revoke(&self, id: &str) -> Result<bool, Error> {
        either!(&self.way, tokens => tokens.revoke(id).await)
    }
}
