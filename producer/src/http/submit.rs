//! Submits a job through a server.
//!
//! The document gets its id here, so that a request whose outcome is unknown can be made again: it
//! finds the job that the first one made.

use std::time::Duration;

use longshore_protocol::document::JobDocument;
use longshore_protocol::wire::JobAnswer;
use longshore_protocol::{Invalid, JobId};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::request::Request;
use super::{Server, ServerError};
use crate::submission::Submission;
use crate::timers::{MayPass, PollInterval};
use crate::{ACCEPTED_WITHIN, SubmitError};

/// The longest time that one request waits for a scheduler: less than the silence after which
/// proxies break a connection.
const WAIT: Duration = Duration::from_secs(25);

/// The time for the answer to a request, beside the wait.
const ANSWER: Duration = Duration::from_secs(30);

/// Submits a document, and waits until a scheduler has accepted it. Tells whether the job is new.
pub(crate) async fn submit(
    server: &Server,
    document: &JobDocument,
    within: Duration,
) -> Result<(JobId, bool), SubmitError> {
    let submission = Submission::new(document)?;
    let (job, begun) = (submission.job, Instant::now());
    let mut may_be_own = false;
    loop {
        let left = within.saturating_sub(begun.elapsed());
        let status = send(server, &submission, left, &mut may_be_own).await?;
        match status {
            StatusCode::CREATED => return Ok((job, true)),
            // An earlier request may have made the job, and its answer did not arrive.
            StatusCode::OK => return Ok((job, may_be_own)),
            _ if begun.elapsed() < within => may_be_own = true,
            _ => {
                let missing = "no scheduler has taken it".to_owned();
                return Err(SubmitError::NotAccepted { job, waited: within, missing });
            }
        }
    }
}

/// Submits a document without waiting for a scheduler.
pub(crate) async fn publish(server: &Server, document: &JobDocument) -> Result<JobId, SubmitError> {
    let submission = Submission::new(document)?;
    send(server, &submission, Duration::ZERO, &mut false).await?;
    Ok(submission.job)
}

/// Sends the document until the server answers; gives up when it could be sent at no time, or for
/// too long. `may_be_own` tells whether a request without an answer came before.
async fn send(
    server: &Server,
    submission: &Submission,
    left: Duration,
    may_be_own: &mut bool,
) -> Result<StatusCode, SubmitError> {
    let wait = left.min(WAIT);
    let mut request = Request::post(&[&"jobs"])
        .with("within", format_args!("{}ms", wait.as_millis()))
        .within(wait + ANSWER);
    request.body = Some(submission.body.clone());
    let (begun, mut interval) = (Instant::now(), PollInterval::new());
    let patience = left.max(ACCEPTED_WITHIN);
    loop {
        let error = match server.once::<JobAnswer>(&request).await {
            Ok((status, answer)) => return answered(server, submission, status, &answer),
            Err(error) => error,
        };
        *may_be_own |= error.is_broken_connection();
        // As long as nothing was sent, there is nothing to make sure of.
        let is_asked_to_wait = error.retry_after().is_some_and(|wait| wait <= super::LONGEST_WAIT);
        let goes_on = error.may_pass() && (*may_be_own || is_asked_to_wait);
        if !goes_on || begun.elapsed() >= patience {
            return Err(failed(submission.job, error, *may_be_own));
        }
        tracing::debug!(job = %submission.job, %error, "a submission failed; trying again");
        tokio::time::sleep(error.retry_after().unwrap_or_else(|| interval.next())).await;
    }
}

fn answered(
    server: &Server,
    submission: &Submission,
    status: StatusCode,
    answer: &JobAnswer,
) -> Result<StatusCode, SubmitError> {
    if answer.id == submission.job {
        return Ok(status);
    }
    let text = format!("it made job {} of job {}", answer.id, submission.job);
    Err(ServerError::unreadable(server, &text).into())
}

fn failed(job: JobId, error: ServerError, may_be_published: bool) -> SubmitError {
    let problem = error.problem();
    if may_be_published && error.may_pass() {
        let (kind, reason) = (problem.kind, problem.detail.clone());
        return SubmitError::NotPublished { job, kind, reason };
    }
    match (error.status(), problem.errors.as_slice()) {
        (Some(409), _) => SubmitError::Conflict { job },
        (Some(422), [Invalid { place, found, allowed }]) => SubmitError::Invalid(Invalid {
            place: place.clone(),
            found: found.clone(),
            allowed: allowed.clone(),
        }),
        _ => SubmitError::Server(error),
    }
}
