//! Retries of failed subtasks, all or by index, of ended and of running jobs.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;

use super::harness::{Harness, NEVER, again, failed, ok, shape};
use crate::op::MAX_RETRY_INDICES;
use crate::{ControlError, ErrorsParams, Ledger, RetryParams};

cases! {
    a_failed_job_is_retried_whole
    a_failed_job_is_retried_by_index
    a_running_job_gets_its_failed_subtasks_back
    a_retry_of_bad_indices_changes_nothing
}

/// A failed job: 0 and 3 failed, 1 and 2 are done, the rest was open.
async fn half_failed(ledger: &Arc<dyn Ledger>) -> Harness {
    let harness = Harness::with(ledger, 8, |a| a.deadline = Some(NEVER)).await;
    let held = harness.take(6).await;
    let runs = vec![failed("a"), ok(2), failed("b"), again(NEVER)];
    harness.commit(held.chunk, 0, runs).await;
    assert_eq!(ledger.fail(harness.job, "deadline").await.unwrap(), JobState::Failed);
    let counts = harness.summary().await.counts;
    assert_eq!((counts.done, counts.failed, counts.cancelled), (2, 2, 4));
    harness.check().await;
    harness
}

pub(super) async fn a_failed_job_is_retried_whole(ledger: Arc<dyn Ledger>) {
    let harness = half_failed(&ledger).await;
    let before = harness.summary().await;
    assert_eq!(ledger.retry(harness.job, &RetryParams::all()).await.unwrap(), JobState::Running);
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.generation), (JobState::Running, 1));
    assert_eq!((summary.counts.waiting, summary.counts.done, summary.cursor), (6, 2, 0));
    assert_eq!((summary.error, summary.deadline_at, summary.finished_at), (None, None, None));
    assert_eq!(summary.started_at, before.started_at);
    assert_eq!(summary.attempts, before.attempts, "what was spent was spent");
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    harness.check().await;
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::all()).await.unwrap(),
        JobState::Running,
        "a repeat"
    );
    assert_eq!(harness.summary().await.generation, 1);

    let opened = harness.open(9, 9).await;
    assert_eq!(shape(&opened), [(0, 1, 1), (3, 8, 1)]);
    assert_eq!(harness.hold(&opened[1]).await.attempt, 1);
    harness.hold(&opened[0]).await;
    harness.succeed(&opened[1]).await;
    assert_eq!(harness.succeed(&opened[0]).await, JobState::Succeeded);
    assert_eq!(harness.summary().await.counts.done, 8);
    harness.check().await;
}

pub(super) async fn a_failed_job_is_retried_by_index(ledger: Arc<dyn Ledger>) {
    let harness = half_failed(&ledger).await;
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::only([3, 3])).await.unwrap(),
        JobState::Running
    );
    let summary = harness.summary().await;
    let counts = summary.counts;
    assert_eq!((counts.retrying, counts.failed, counts.cancelled, counts.waiting), (1, 1, 4, 0));
    assert_eq!((summary.generation, summary.error, summary.deadline_at), (1, None, None));
    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!(errors.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0]);
    harness.check().await;
    let held = harness.take(9).await;
    assert_eq!((held.from, held.to), (3, 4));
    assert_eq!(harness.open(9, 9).await, [], "the cancelled rest stays cancelled");
    harness.check().await;
    assert_eq!(harness.succeed(&held).await, JobState::Failed);
    assert_eq!(harness.summary().await.error.as_deref(), Some("1 of 8 subtasks failed"));
    harness.check().await;

    ledger.retry(harness.job, &RetryParams::only([0])).await.unwrap();
    let held = harness.take(9).await;
    assert_eq!(harness.succeed(&held).await, JobState::Failed);
    let summary = harness.summary().await;
    assert_eq!(summary.error.as_deref(), Some("4 of 8 subtasks were cancelled"));
    assert_eq!((summary.counts.done, summary.counts.cancelled, summary.generation), (4, 4, 2));
    harness.check().await;

    // A retry of everything includes the cancelled subtasks.
    ledger.retry(harness.job, &RetryParams::all()).await.unwrap();
    assert_eq!(harness.succeed_level().await, JobState::Succeeded);
    assert_eq!(harness.summary().await.counts.done, 8);
    harness.check().await;
}

pub(super) async fn a_running_job_gets_its_failed_subtasks_back(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    let held = harness.take(6).await;
    harness.commit(held.chunk, 0, vec![ok(1), failed("a"), failed("b"), failed("c")]).await;
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::only([2])).await.unwrap(),
        JobState::Running
    );
    let summary = harness.summary().await;
    assert_eq!((summary.counts.failed, summary.counts.retrying, summary.generation), (2, 1, 1));
    assert_eq!((summary.counts.running, summary.counts.waiting, summary.cursor), (2, 2, 6));
    harness.check().await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(ledger.retry(harness.job, &RetryParams::all()).await.unwrap(), JobState::Paused);
    let summary = harness.summary().await;
    assert_eq!((summary.counts.failed, summary.counts.retrying, summary.generation), (0, 3, 2));
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    harness.check().await;
    ledger.resume(harness.job).await.unwrap();
    assert_eq!(shape(&harness.open(9, 9).await), [(1, 4, 1), (6, 8, 1)]);
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::all()).await.unwrap(),
        JobState::Running,
        "none failed"
    );
    assert_eq!(harness.summary().await.generation, 2);
    harness.check().await;
}

pub(super) async fn a_retry_of_bad_indices_changes_nothing(ledger: Arc<dyn Ledger>) {
    let harness = half_failed(&ledger).await;
    let before = harness.summary().await;
    let too_many = vec![0; MAX_RETRY_INDICES + 1];
    let bad: [(&[u64], &str); 6] = [
        (&[], "no subtasks"),
        (&[0, 1], "subtask 1 "),
        (&[4], "subtask 4 "),
        (&[0, 8, 1], "subtask 8 "),
        (&[u64::MAX, 9], "subtask 18446744073709551615 "),
        (&too_many, "10001 "),
    ];
    for (indices, expected) in bad {
        match ledger.retry(harness.job, &RetryParams::only(indices.to_vec())).await {
            Err(ControlError::BadIndices(text)) => {
                assert!(text.contains(expected), "{text:?} does not name {expected:?}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(harness.summary().await, before);
    }
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::only([0, 3])).await.unwrap(),
        JobState::Running
    );
    let held = harness.take(1).await;
    let state = harness.commit(held.chunk, held.from, vec![again(Duration::ZERO)]).await;
    assert_eq!(state, JobState::Running);
    harness.check().await;
}
