//! The API tokens of a server's fleet. What each call does is said at [`crate::ApiTokens`].

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_protocol::wire::{NewApiToken, NewTokenRequest, TokenAnswer};
use longshore_protocol::{ApiToken, Role, Timestamp};

use super::request::Request;
use super::{Server, jobs};
use crate::{Error, TokenError};

/// The API tokens of a server's fleet.
#[derive(Clone)]
pub(crate) struct ApiTokens {
    server: Server,
}

impl ApiTokens {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(jobs::now(&self.server).await?)
    }

    pub(crate) async fn list(&self) -> Result<Vec<ApiToken>, Error> {
        Ok(self.server.json(&Request::get(&[&"tokens"])).await?)
    }

    pub(crate) async fn create(
        &self,
        name: String,
        role: Role,
        tenants: Option<BTreeSet<String>>,
        expires: Option<Duration>,
    ) -> Result<NewApiToken, TokenError> {
        let expires = expires.map(|duration| format!("{}ms", duration.as_millis()));
        let body = NewTokenRequest { name, role, tenants, expires };
        Ok(self.server.json(&Request::post(&[&"tokens"]).json(&body)).await?)
    }

    pub(crate) async fn revoke(&self, id: &str) -> Result<bool, Error> {
        match self.server.json::<TokenAnswer>(&Request::delete(&[&"tokens", &id])).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
