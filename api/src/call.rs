//! A request as its handler receives it: identified, authorized, its parameters read.

use std::error::Error as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use longshore_producer::{Error, Job};
use longshore_protocol::{ErrorKind, Invalid, JobSummary};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::Shared;
use crate::access::Caller;
use crate::endpoint::Endpoint;
use crate::params::Params;
use crate::refusal::Refusal;

/// A request that may be carried out.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: &'static Endpoint,
    pub(crate) caller: Caller,
    pub(crate) params: Params,
    pub(crate) headers: HeaderMap,
    /// In a lock only so that a call can be borrowed across threads.
    pub(crate) body: Mutex<Body>,
}

impl Call {
    /// The job of the path and its summary. A job of another tenant looks as if it did not exist.
    pub(crate) async fn job(&self) -> Result<(Job, JobSummary), Refusal> {
        let id = self.params.job()?;
        let job = self.shared.client.job(id);
        match job.summary().await {
            Ok(summary) if self.caller.shows(&summary.tenant) => Ok((job, summary)),
            Ok(_) => Err(Refusal::no_such_job(id)),
            // Whose job it will be is not known yet.
            Err(Error::Postponed { .. } | Error::Cancelled { .. })
                if self.caller.tenants().is_some() =>
            {
                Err(Refusal::no_such_job(id))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The content type without its parameters, in lower case; `None` if there is none.
    pub(crate) fn content_type(&self) -> Option<String> {
        let text = self.headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default();
        Some(kind.trim().to_ascii_lowercase())
    }

    /// Refuses a content type that the endpoint does not take.
    pub(crate) fn check_content_type(&self) -> Result<(), Refusal> {
        let (Some(body), Some(found)) = (self.endpoint.body, self.content_type()) else {
            return Ok(());
        };
        let kinds: Vec<&str> = body.content.iter().map(|(kind, _)| *kind).collect();
        if kinds.contains(&found.as_str()) || found.is_empty() {
            return Ok(());
        }
        let found: String = found.chars().take(60).filter(|char| !char.is_control()).collect();
        let detail =
            format_args!("content-type: `{found}` is not taken here; use {}", kinds.join(" or "));
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorKind::BadInput, detail))
    }

    /// Reads a body that is a JSON object; `allowed` says what it may be.
    pub(crate) async fn object<T: DeserializeOwned>(
        &mut self,
        allowed: &str,
    ) -> Result<T, Refusal> {
        let mut body = self.whole_body().await?;
        if body.is_empty() && self.endpoint.body.is_some_and(|body| !body.is_required) {
            body = Bytes::from_static(b"{}");
        }
        parse_object(&body).map_err(|error| {
            Refusal::bad_body(&Invalid {
                place: "body".into(),
                found: error.to_string(),
                allowed: allowed.into(),
            })
        })
    }

    /// Reads the whole body.
    pub(crate) async fn whole_body(&mut self) -> Result<Bytes, Refusal> {
        let most = self.endpoint.max_body;
        let announced = self.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let announced = announced.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        if announced > most as u64 {
            return Err(Refusal::too_large(most));
        }
        let body = std::mem::take(self.body.get_mut());
        let read = axum::body::to_bytes(body, most);
        let read = tokio::time::timeout(self.shared.limits.body_within, read).await;
        let read = read.map_err(|_| Refusal::too_slow())?;
        read.map_err(|error| {
            if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) {
                return Refusal::too_large(most);
            }
            Refusal::bad_request(&Invalid {
                place: "body".into(),
                found: "it ended early".into(),
                allowed: "send as many bytes as the headers announce".into(),
            })
        })
    }
}

/// Reads an object; serde alone would take a list of the fields' values too.
fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    serde_json::from_value(members.into())
}
