//! The handlers of the endpoints, by what they are about.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod bulk;
pub(crate) mod control;
pub(crate) mod dead;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod job_events;
pub(crate) mod jobs;
pub(crate) mod nodes;
pub(crate) mod queues;
pub(crate) mod results;
pub(crate) mod submit;
pub(crate) mod tokens;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::refusal::Refusal;

/// What a handler gives.
pub(crate) type Outcome = Result<Response, Refusal>;

/// The content type of one value.
pub(crate) const JSON: &str = "application/json";

/// An answer of one JSON value.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    text(status, JSON, serde_json::to_string(value).expect("views are JSON"))
}

/// An answer of this text.
pub(crate) fn text(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
