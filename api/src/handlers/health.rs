//! The endpoints that need no token.
//!
//! Whether the process lives and can work, its metrics, and the description of the API.

use std::time::Duration;

use axum::http::StatusCode;
use longshore_broker::Queue;
use longshore_protocol::ErrorKind;
use tracing::debug;

use super::{JSON, Outcome, text};
use crate::call::Call;
use crate::openapi;
use crate::refusal::Refusal;

/// The longest wait for a service to show that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// The content type of metrics.
pub(crate) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) async fn alive(_: Call) -> Outcome {
    Ok(text(StatusCode::OK, TEXT, "ok\n"))
}

pub(crate) async fn ready(call: Call) -> Outcome {
    let ledger = tokio::time::timeout(READY_WITHIN, call.shared.ledger().now());
    let broker = tokio::time::timeout(READY_WITHIN, call.shared.broker().depth(&Queue::Jobs));
    let (ledger, broker) = tokio::join!(ledger, broker);
    let mut away = Vec::new();
    if !matches!(ledger, Ok(Ok(_))) {
        debug!(?ledger, "not ready");
        away.push("Redis");
    }
    if !matches!(broker, Ok(Ok(_))) {
        debug!(?broker, "not ready");
        away.push("RabbitMQ");
    }
    if away.is_empty() {
        return Ok(text(StatusCode::OK, TEXT, "ready\n"));
    }
    let detail = format!("{} can't be used now", away.join(" and "));
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unreachable, detail))
}

pub(crate) async fn metrics(call: Call) -> Outcome {
    match &call.shared.metrics {
        Some(render) => Ok(text(StatusCode::OK, METRICS, render())),
        None => {
            let detail = "this process has no metrics";
            Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, detail))
        }
    }
}

pub(crate) async fn description(_: Call) -> Outcome {
    Ok(text(StatusCode::OK, JSON, openapi::document()))
}
