//! API tokens straight in the ledger. What each call does is said at [`crate::ApiTokens`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_protocol::wire::NewApiToken;
use longshore_protocol::{
    Action, ActionOutcome, ApiSecret, ApiToken, KeptApiToken, Role, Timestamp,
};
use tracing::error;
use uuid::Uuid;

use crate::{Error, TokenError};

/// The API tokens of a ledger.
#[derive(Clone)]
pub(crate) struct ApiTokens {
    ledger: Arc<dyn Ledger>,
    /// The person whom the audit trail names.
    who: Option<String>,
}

impl ApiTokens {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, who: None }
    }

    pub(crate) fn record_as(&mut self, who: String) {
        self.who = Some(who);
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.ledger.now().await?)
    }

    pub(crate) async fn list(&self) -> Result<Vec<ApiToken>, Error> {
        Ok(self.ledger.api_tokens().await?.into_iter().map(|kept| kept.token).collect())
    }

    pub(crate) async fn create(
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
        if !self.ledger.add_api_token(&kept).await? {
            return Err(TokenError::TooMany);
        }
        let token = kept.token;
        let target = format!("{} {} ({})", token.id, token.name, token.role);
        self.record("create_token", target).await;
        Ok(NewApiToken { secret: secret.as_str().to_owned(), token })
    }

    pub(crate) async fn revoke(&self, id: &str) -> Result<bool, Error> {
        let was_there = self.ledger.remove_api_token(id).await?;
        if was_there {
            self.record("revoke_token", id.to_owned()).await;
        }
        Ok(was_there)
    }

    /// Records a change in the audit trail. The change has been made by then.
    async fn record(&self, action: &str, target: String) {
        let Some(who) = self.who.clone() else { return };
        let entry = Action {
            id: Uuid::now_v7().to_string(),
            at: Timestamp::default(),
            token: None,
            who,
            address: None,
            action: action.to_owned(),
            target,
            outcome: ActionOutcome::Done,
            status: None,
            request: None,
        };
        if let Err(error) = self.ledger.record_action(&entry).await {
            error!(%error, "the audit trail can't be written");
        }
    }
}
