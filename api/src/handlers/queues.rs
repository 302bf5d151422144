//! The queues of the fleet.

use axum::http::StatusCode;

use super::{Outcome, json};
use crate::call::Call;

pub(crate) async fn list(call: Call) -> Outcome {
    Ok(json(StatusCode::OK, &call.shared.client.queues().await?))
}
