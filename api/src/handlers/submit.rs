//! Submitting one document.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::Response;
use longshore_producer::{JobDocument, SubmitError};
use longshore_protocol::document::Split;
use longshore_protocol::wire::JobAnswer;
use longshore_protocol::{Invalid, JobId};

use super::{Outcome, batch, json};
use crate::Shared;
use crate::access::Caller;
use crate::call::Call;
use crate::lines::NDJSON;
use crate::refusal::Refusal;
use crate::router::Target;

/// The longest wait for a scheduler.
const MAX_WITHIN: Duration = Duration::from_secs(60);

/// The wait for a scheduler unless the client asks for another one.
const WITHIN: Duration = Duration::from_secs(10);

/// What became of a document.
pub(crate) enum Submitted {
    /// A job was made of it.
    New(JobId),
    /// The same document was submitted before.
    Same(JobId),
    /// RabbitMQ keeps the document until a scheduler takes it.
    Published(JobId),
}

impl Submitted {
    pub(crate) fn job(&self) -> JobId {
        let (Self::New(job) | Self::Same(job) | Self::Published(job)) = self;
        *job
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::New(_) => StatusCode::CREATED,
            Self::Same(_) => StatusCode::OK,
            Self::Published(_) => StatusCode::ACCEPTED,
        }
    }
}

pub(crate) async fn submit(mut call: Call) -> Outcome {
    let within = call.params.duration("within", MAX_WITHIN, WITHIN)?;
    if call.content_type().is_some_and(|kind| kind == NDJSON) {
        return batch::submit(call, within).await;
    }
    let body = call.whole_body().await?;
    let submitted = submit_one(&call.shared, &call.caller, &body, within).await?;
    Ok(answer(&submitted))
}

fn answer(submitted: &Submitted) -> Response {
    let path = format!("/v1/jobs/{}", submitted.job());
    let mut response = json(submitted.status(), &JobAnswer::submitted(submitted.job()));
    if let Ok(location) = path.parse() {
        response.headers_mut().insert(LOCATION, location);
    }
    response.extensions_mut().insert(Target(path));
    response
}

/// Submits the document in these bytes.
pub(crate) async fn submit_one(
    shared: &Shared,
    caller: &Caller,
    bytes: &[u8],
    within: Duration,
) -> Result<Submitted, Refusal> {
    let document = JobDocument::parse(bytes).map_err(|invalid| Refusal::bad_body(&invalid))?;
    if !caller.shows(&document.tenant) {
        let own = caller.tenants().unwrap_or_default().join(", ");
        let tenant = &document.tenant;
        return Err(Refusal::forbidden(format_args!(
            "tenant: the token may not submit for `{tenant}`; use {own}"
        )));
    }
    check_globs(&document)?;
    match shared.client.submit_or_find(&document, within).await {
        Ok((job, true)) => Ok(Submitted::New(job.id())),
        Ok((job, false)) => Ok(Submitted::Same(job.id())),
        Err(SubmitError::NotAccepted { job, .. }) => Ok(Submitted::Published(job)),
        Err(error) => Err(error.into()),
    }
}

/// Refuses relative globs, which would be resolved against the folder of the server.
fn check_globs(document: &JobDocument) -> Result<(), Refusal> {
    let (Split::Files { files } | Split::Lines { files, .. }) = &document.split else {
        return Ok(());
    };
    let is_relative = |glob: &&String| !glob.starts_with('/') && !glob.contains("://");
    match files.iter().position(|glob| is_relative(&glob)) {
        None => Ok(()),
        Some(place) => Err(Refusal::bad_body(&Invalid {
            place: format!("split.files[{place}]"),
            found: "a relative path".into(),
            allowed: "use an absolute path or a URL: the server's folder is not the client's"
                .into(),
        })),
    }
}
