//! Jobs that are re-opened.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;

use super::play::{NEVER, Play, again, failed, ok, shape};
use crate::op::MAX_RETRY_INDICES;
use crate::{ControlError, ErrorsParams, Ledger, RetryParams};

/// 0 and 3 fail, 1 and 2 are done, the rest is open when the job is failed.
async fn half_failed(ledger: &Arc<dyn Ledger>) -> Play {
    let play = Play::with(ledger, 8, |a| a.deadline = Some(NEVER)).await;
    let held = play.take(6).await;
    let runs = vec![failed("a"), ok(2), failed("b"), again(NEVER)];
    play.commit(held.chunk, 0, runs).await;
    assert_eq!(ledger.fail(play.job, "deadline").await.unwrap(), JobState::Failed);
    let counts = play.summary().await.counts;
    assert_eq!((counts.done, counts.failed, counts.cancelled), (2, 2, 4));
    play.check().await;
    play
}

pub(super) async fn a_failed_job_is_retried_whole(ledger: Arc<dyn Ledger>) {
    let play = half_failed(&ledger).await;
    let before = play.summary().await;
    assert_eq!(ledger.retry(play.job, &RetryParams::all()).await.unwrap(), JobState::Running);
    let summary = play.summary().await;
    assert_eq!((summary.state, summary.generation), (JobState::Running, 1));
    assert_eq!((summary.counts.waiting, summary.counts.done, summary.cursor), (6, 2, 0));
    assert_eq!((summary.error, summary.deadline_at, summary.finished_at), (None, None, None));
    assert_eq!(summary.started_at, before.started_at);
    assert_eq!(summary.attempts, before.attempts, "what was spent was spent");
    assert_eq!(ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    play.check().await;
    assert_eq!(
        ledger.retry(play.job, &RetryParams::all()).await.unwrap(),
        JobState::Running,
        "a repeat"
    );
    assert_eq!(play.summary().await.generation, 1);

    let opened = play.open(9, 9).await;
    assert_eq!(shape(&opened), [(0, 1, 1), (3, 8, 1)]);
    assert_eq!(play.hold(&opened[1]).await.attempt, 1);
    play.hold(&opened[0]).await;
    play.succeed(&opened[1]).await;
    assert_eq!(play.succeed(&opened[0]).await, JobState::Succeeded);
    assert_eq!(play.summary().await.counts.done, 8);
    play.check().await;
}

pub(super) async fn a_failed_job_is_retried_by_index(ledger: Arc<dyn Ledger>) {
    let play = half_failed(&ledger).await;
    assert_eq!(
        ledger.retry(play.job, &RetryParams::only([3, 3])).await.unwrap(),
        JobState::Running
    );
    let summary = play.summary().await;
    let counts = summary.counts;
    assert_eq!((counts.retrying, counts.failed, counts.cancelled, counts.waiting), (1, 1, 4, 0));
    assert_eq!((summary.generation, summary.error, summary.deadline_at), (1, None, None));
    let errors = ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!(errors.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0]);
    play.check().await;
    let held = play.take(9).await;
    assert_eq!((held.from, held.to), (3, 4));
    assert_eq!(play.open(9, 9).await, [], "the cancelled rest stays cancelled");
    play.check().await;
    assert_eq!(play.succeed(&held).await, JobState::Failed);
    assert_eq!(play.summary().await.error.as_deref(), Some("1 of 8 subtasks failed"));
    play.check().await;

    ledger.retry(play.job, &RetryParams::only([0])).await.unwrap();
    let held = play.take(9).await;
    assert_eq!(play.succeed(&held).await, JobState::Failed);
    let summary = play.summary().await;
    assert_eq!(summary.error.as_deref(), Some("4 of 8 subtasks were cancelled"));
    assert_eq!((summary.counts.done, summary.counts.cancelled, summary.generation), (4, 4, 2));
    play.check().await;

    // The whole of it takes the cancelled ones too.
    ledger.retry(play.job, &RetryParams::all()).await.unwrap();
    assert_eq!(play.succeed_level().await, JobState::Succeeded);
    assert_eq!(play.summary().await.counts.done, 8);
    play.check().await;
}

pub(super) async fn a_running_job_gets_its_failed_subtasks_back(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 8).await;
    let held = play.take(6).await;
    play.commit(held.chunk, 0, vec![ok(1), failed("a"), failed("b"), failed("c")]).await;
    assert_eq!(ledger.retry(play.job, &RetryParams::only([2])).await.unwrap(), JobState::Running);
    let summary = play.summary().await;
    assert_eq!((summary.counts.failed, summary.counts.retrying, summary.generation), (2, 1, 1));
    assert_eq!((summary.counts.running, summary.counts.waiting, summary.cursor), (2, 2, 6));
    play.check().await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(ledger.retry(play.job, &RetryParams::all()).await.unwrap(), JobState::Paused);
    let summary = play.summary().await;
    assert_eq!((summary.counts.failed, summary.counts.retrying, summary.generation), (0, 3, 2));
    assert_eq!(ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    play.check().await;
    ledger.resume(play.job).await.unwrap();
    assert_eq!(shape(&play.open(9, 9).await), [(1, 4, 1), (6, 8, 1)]);
    assert_eq!(
        ledger.retry(play.job, &RetryParams::all()).await.unwrap(),
        JobState::Running,
        "none failed"
    );
    assert_eq!(play.summary().await.generation, 2);
    play.check().await;
}

pub(super) async fn a_retry_of_bad_indices_changes_nothing(ledger: Arc<dyn Ledger>) {
    let play = half_failed(&ledger).await;
    let before = play.summary().await;
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
        match ledger.retry(play.job, &RetryParams::only(indices.to_vec())).await {
            Err(ControlError::BadIndices(text)) => {
                assert!(text.contains(expected), "{text:?} does not name {expected:?}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(play.summary().await, before);
    }
    assert_eq!(
        ledger.retry(play.job, &RetryParams::only([0, 3])).await.unwrap(),
        JobState::Running
    );
    let held = play.take(1).await;
    let state = play.commit(held.chunk, held.from, vec![again(Duration::ZERO)]).await;
    assert_eq!(state, JobState::Running);
    play.check().await;
}
