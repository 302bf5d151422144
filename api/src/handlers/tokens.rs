//! API tokens: their list, creation and revocation.

use std::time::Duration;

use axum::http::StatusCode;
use longshore_protocol::wire::{NewTokenRequest, TokenAnswer};
use longshore_protocol::{ErrorKind, Invalid};

use super::{Outcome, json};
use crate::call::Call;
use crate::refusal::Refusal;
use crate::router::Target;

const ALLOWED: &str = r#"write {"name": "ci", "role": "submitter", "tenants": ["web"]}"#;

pub(crate) async fn list(call: Call) -> Outcome {
    Ok(json(StatusCode::OK, &call.shared.client.tokens().list().await?))
}

pub(crate) async fn create(mut call: Call) -> Outcome {
    let NewTokenRequest { name, role, tenants, expires } = call.object(ALLOWED).await?;
    let expires = expires.as_deref().map(duration).transpose()?;
    let new = call.shared.client.tokens().create(name, role, tenants, expires).await?;
    call.shared.guard.tokens_changed();
    let target = format!("{} {} ({})", new.token.id, new.token.name, new.token.role);
    let mut response = json(StatusCode::CREATED, &new);
    response.extensions_mut().insert(Target(target));
    Ok(response)
}

fn duration(text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text).map_err(|error| {
        Refusal::bad_body(&Invalid {
            place: "expires".into(),
            found: error.to_string(),
            allowed: "write a duration like 90d".into(),
        })
    })
}

pub(crate) async fn revoke(call: Call) -> Outcome {
    let id = call.params.token();
    let is_revoked = call.shared.client.tokens().revoke(id).await?;
    call.shared.guard.tokens_changed();
    match is_revoked {
        true => Ok(json(StatusCode::OK, &TokenAnswer::revoked(id.to_owned()))),
        false => {
            let detail = format_args!("no such token: {id}; GET /v1/tokens lists them");
            Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, detail))
        }
    }
}
