//! Controlling jobs: pause, resume, cancel, retry, delete.

use axum::http::StatusCode;
use longshore_producer::{Cancelled, Job};
use longshore_protocol::Invalid;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{JobAnswer, RetryRequest};

use super::{Outcome, json};
use crate::call::Call;
use crate::refusal::Refusal;

fn state(job: &Job, state: JobState) -> Outcome {
    Ok(json(StatusCode::OK, &JobAnswer::state(job.id(), state)))
}

pub(crate) async fn pause(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    state(&job, job.pause().await?)
}

pub(crate) async fn resume(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    state(&job, job.resume().await?)
}

/// Cancels a job. A job that is not admitted yet can be cancelled too, unless the caller is bound
/// to tenants: whose job it will be is not known.
pub(crate) async fn cancel(call: Call) -> Outcome {
    let job = match call.caller.tenants() {
        Some(_) => call.job().await?.0,
        None => call.shared.client.job(call.params.job()?),
    };
    let answer = match job.cancel().await? {
        Cancelled::Ended => JobAnswer::state(job.id(), JobState::Cancelled),
        Cancelled::BeforeAdmission => JobAnswer::cancelled_before_admission(job.id()),
    };
    Ok(json(StatusCode::OK, &answer))
}

pub(crate) async fn retry(mut call: Call) -> Outcome {
    let body = call.whole_body().await?;
    let request: RetryRequest = match body.is_empty() {
        true => RetryRequest::default(),
        false => read(&body).map_err(|error| {
            Refusal::bad_body(&Invalid {
                place: "body".into(),
                found: error.to_string(),
                allowed: r#"write {"indices": [7, 9]}, or leave the body out for all"#.into(),
            })
        })?,
    };
    let (job, _) = call.job().await?;
    state(&job, job.retry(request.indices.as_deref()).await?)
}

/// Reads an object; serde alone would take a list of the fields' values too.
fn read(body: &[u8]) -> Result<RetryRequest, serde_json::Error> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    serde_json::from_value(members.into())
}

pub(crate) async fn delete(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    job.delete().await?;
    Ok(json(StatusCode::OK, &JobAnswer::deleted(job.id())))
}
