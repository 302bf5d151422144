//! Prints the results of a job, and after a failed one its first ten errors.

use futures_util::{FutureExt, StreamExt, TryStreamExt, pin_mut};
use longshore_producer::{Job, JobDocument};
use longshore_protocol::JobSummary;
use longshore_protocol::document::Results;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::ResultView;
use serde_json::value::RawValue;

use super::{Output, grouped, job, talk};
use crate::failure::Failure;

/// The number of errors printed for a failed job; `longshore errors` prints all.
const ERRORS_SHOWN: usize = 10;

/// Prints the reduced value of a job with a reduction; otherwise a line for each subtask that is
/// done, in index order.
pub(crate) async fn print(
    output: &mut Output,
    job: &Job,
    document: &JobDocument,
    summary: &JobSummary,
) -> Result<(), Failure> {
    if document.results == Results::Discard {
        return Ok(());
    }
    if document.reduce.is_some() && summary.state.is_success() {
        let value = job.value().await?;
        if output.is_json() {
            output.json(&ResultView { index: None, result: &value })?;
        } else {
            output.data(value)?;
        }
    } else if document.reduce.is_none() {
        let results = job.results();
        pin_mut!(results);
        while let Some((index, value)) = results.try_next().await? {
            result(output, index, &value)?;
        }
    }
    output.flush()
}

/// Prints the results as they come until the job has ended; fails unless it succeeded.
pub(crate) async fn follow(
    output: &mut Output,
    job: &Job,
    document: &JobDocument,
) -> Result<(), Failure> {
    if document.reduce.is_none() {
        let mut results = job.follow_results(0..u64::MAX);
        loop {
            let next = match results.try_next().now_or_never() {
                Some(next) => next?,
                None => {
                    // What was printed should be seen while there is nothing to print.
                    output.flush()?;
                    results.try_next().await?
                }
            };
            let Some((index, value)) = next else { break };
            result(output, index, &value)?;
        }
    }
    let summary = job.wait().await?;
    if document.reduce.is_some() {
        print(output, job, document, &summary).await?;
    }
    output.flush()?;
    if summary.state.is_success() { Ok(()) } else { Err(failed(&summary)) }
}

fn result(output: &mut Output, index: u64, value: &RawValue) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&ResultView { index: Some(index), result: value })
    } else {
        output.data(value)
    }
}

/// Prints the results and the first errors of an ended job; fails unless the job succeeded.
pub(crate) async fn outcome(
    output: &mut Output,
    job: &Job,
    document: &JobDocument,
    summary: &JobSummary,
) -> Result<(), Failure> {
    print(output, job, document, summary).await?;
    if summary.state.is_success() {
        return Ok(());
    }
    let errors = job.errors().take(ERRORS_SHOWN + 1);
    pin_mut!(errors);
    let mut shown = 0;
    while let Some(entry) = errors.try_next().await? {
        if shown == ERRORS_SHOWN {
            let failed = summary.counts.failed + summary.reduce.failed;
            let more = grouped(failed.saturating_sub(ERRORS_SHOWN as u64));
            talk(format_args!("… and {more} more"));
            break;
        }
        talk(job::failed_subtask(&entry, summary.counts.total));
        shown += 1;
    }
    Err(failed(summary))
}

/// The failure of a job that did not succeed.
pub(crate) fn failed(summary: &JobSummary) -> Failure {
    let reason = summary.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    Failure::job_failed(Some(summary.id), format_args!("the job {}{reason}", ended(summary.state)))
}

fn ended(state: JobState) -> &'static str {
    match state {
        JobState::Failed => "failed",
        JobState::Cancelled => "was cancelled",
        JobState::Rejected => "was rejected",
        _ => "has not succeeded",
    }
}
