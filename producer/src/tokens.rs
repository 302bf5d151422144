//! The API tokens of the fleet: created, listed and revoked.
//!
//! Deliberately absent: the audit trail, which the caller writes, since it knows who acts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_ledger::op::MAX_API_TOKENS;
use longshore_protocol::wire::NewApiToken;
use longshore_protocol::{ApiSecret, ApiToken, Invalid, KeptApiToken, Role};

use crate::Error;

/// Creates, lists and revokes API tokens. Needs the ledger alone.
#[derive(Clone)]
pub struct ApiTokens {
    ledger: Arc<dyn Ledger>,
}

impl std::fmt::Debug for ApiTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ApiTokens").field(&self.ledger.describe()).finish()
    }
}

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
}

impl ApiTokens {
    /// The tokens of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
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
        let secret = ApiSecret::from_bytes(rand::random());
        let digest = secret.digest();
        let created_at = self.ledger.now().await?;
        let token = ApiToken {
            id: ApiToken::id_of(&digest),
            name,
            role,
            tenants,
            created_at,
            expires_at: expires.map(|duration| created_at.plus(duration)),
        };
        token.check()?;
        let kept = KeptApiToken { digest, token };
        match self.ledger.add_api_token(&kept).await? {
            true => Ok(NewApiToken { secret: secret.as_str().to_owned(), token: kept.token }),
            false => Err(TokenError::TooMany),
        }
    }

    /// All tokens. Their secrets are not kept.
    pub async fn list(&self) -> Result<Vec<ApiToken>, Error> {
        let tokens = self.ledger.api_tokens().await?;
        Ok(tokens.into_iter().map(|kept| kept.token).collect())
    }

    /// Revokes a token; servers refuse it within two seconds. False if there is none with this id.
    pub async fn revoke(&self, id: &str) -> Result<bool, Error> {
        Ok(self.ledger.remove_api_token(id).await?)
    }
}
