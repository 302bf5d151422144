//! The audit trail.

use axum::http::StatusCode;
use longshore_ledger::ActionsParams;
use longshore_protocol::wire::ActionList;

use super::{Outcome, json};
use crate::call::Call;

/// The most entries on a page.
pub(crate) const MAX_ENTRIES: u64 = 1_000;

/// The entries on a page unless the client asks for another number.
const ENTRIES: u64 = 100;

pub(crate) async fn list(call: Call) -> Outcome {
    let limit = call.params.whole("limit", 1..=MAX_ENTRIES, ENTRIES)?;
    let cursor = call.params.parsed("cursor")?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let actions = call.shared.ledger().actions(&ActionsParams { cursor, limit }).await?;
    let next = actions.last().filter(|_| actions.len() == limit).map(|last| last.cursor());
    Ok(json(StatusCode::OK, &ActionList { actions, next }))
}
