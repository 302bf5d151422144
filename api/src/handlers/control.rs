//! Controlling jobs: pause, resume, cancel, retry, delete.

use axum::http::StatusCode;
use longshore_producer::{Cancelled, Job};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{JobAnswer, RetryRequest};

use super::{Outcome, json};
use crate::call::Call;

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
    let allowed = r#"write {"indices": [7, 9]}, or leave the body out for all"#;
    let request: RetryRequest = call.object(allowed).await?;
    let (job, _) = call.job().await?;
    state(&job, job.retry(request.indices.as_deref()).await?)
}

pub(crate) async fn delete(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    job.delete().await?;
    Ok(json(StatusCode::OK, &JobAnswer::deleted(job.id())))
}
