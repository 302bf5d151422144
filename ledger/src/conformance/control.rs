//! Pause, resume, cancel, fail and delete: which states allow them, and their effect on counts.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::{JobEvent, JobState};

use super::harness::{Harness, NEVER, again, check_audit, failed, job_id, ok, ok_lines};
use crate::op::Admitted;
use crate::{Cancelled, ControlError, ErrorsParams, Ledger, ResultsParams, RetryParams};

cases! {
    pause_and_resume_move_between_states
    a_resumed_job_has_its_queued_chunks_due
    an_ended_job_counts_open_subtasks_as_cancelled
    controls_refuse_what_the_table_does_not_allow
    controls_of_an_absent_job_are_not_found
    an_ended_job_can_be_deleted
}

pub(super) async fn pause_and_resume_move_between_states(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Queued, "nothing to resume");
    for _ in 0..2 {
        assert_eq!(ledger.pause(harness.job).await.unwrap(), JobState::Paused);
    }
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Queued);
    let held = harness.take(2).await;
    assert_eq!(ledger.pause(harness.job).await.unwrap(), JobState::Paused);
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Running);
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Running);
    assert_eq!(harness.succeed(&held).await, JobState::Running);
    harness.check().await;
}

pub(super) async fn a_resumed_job_has_its_queued_chunks_due(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    harness.take(2).await;
    harness.open(2, 2).await;
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Running);
    assert_eq!(harness.sweep(9, NEVER).await, [], "a resume of a job that runs changes nothing");
    ledger.pause(harness.job).await.unwrap();
    ledger.resume(harness.job).await.unwrap();
    assert_eq!(harness.sweep(9, NEVER).await, [(2, 4, 1), (4, 6, 1)]);
    harness.check().await;
}

pub(super) async fn an_ended_job_counts_open_subtasks_as_cancelled(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 10, |a| a.fan_in = Some(4)).await;
    let held = harness.take(6).await;
    harness.open(1, 2).await;
    let runs = vec![ok_lines(0, 2), failed("no"), again(Duration::ZERO)];
    harness.commit(held.chunk, 0, runs).await;
    assert_eq!(ledger.cancel(harness.job).await.unwrap(), Cancelled::Ended);
    let cancelled = harness.summary().await;
    let counts = cancelled.counts;
    assert_eq!((counts.done, counts.failed, counts.cancelled, counts.open()), (2, 1, 7, 0));
    assert_eq!((cancelled.reduce.cancelled, cancelled.reduce.open()), (4, 0));
    assert_eq!((cancelled.queued_chunks, cancelled.running_chunks, cancelled.cursor), (0, 0, 8));
    assert_eq!((cancelled.next_retry_at, cancelled.error.clone()), (None, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(ledger.cancel(harness.job).await.unwrap(), Cancelled::Ended);
    assert_eq!(harness.summary().await, cancelled, "a repeat changes nothing");
    let kept = ledger.results(harness.job, &ResultsParams::new(0..10, 99)).await.unwrap();
    assert_eq!(kept.runs.len(), 1, "its results are kept");
    harness.check().await;
}

pub(super) async fn controls_refuse_what_the_table_does_not_allow(ledger: Arc<dyn Ledger>) {
    #[track_caller]
    fn illegal<A: Debug>(answer: Result<A, ControlError>, state: JobState, event: JobEvent) {
        match answer {
            Err(ControlError::Illegal(refused)) => {
                assert_eq!((refused.state, refused.event), (state, event));
            }
            other => panic!("{event} of a job that is {state} gave {other:?}"),
        }
    }
    let harness = Harness::of(&ledger, 4).await;
    illegal(
        ledger.retry(harness.job, &RetryParams::all()).await,
        JobState::Queued,
        JobEvent::Retry,
    );
    let failed = ledger.fail(harness.job, "the deadline passed").await.unwrap();
    assert_eq!(failed, JobState::Failed);
    let summary = harness.summary().await;
    assert_eq!(summary.error.as_deref(), Some("the deadline passed"));
    assert_eq!((summary.counts.cancelled, summary.started_at), (4, None));
    illegal(ledger.pause(harness.job).await, JobState::Failed, JobEvent::Pause);
    illegal(ledger.resume(harness.job).await, JobState::Failed, JobEvent::Resume);
    illegal(ledger.cancel(harness.job).await, JobState::Failed, JobEvent::Cancel);
    illegal(ledger.fail(harness.job, "again").await, JobState::Failed, JobEvent::Fail);
    assert_eq!(harness.summary().await, summary, "nothing changed");

    ledger.reject(job_id(2), "no").await.unwrap();
    illegal(ledger.cancel(job_id(2)).await, JobState::Rejected, JobEvent::Cancel);
    illegal(
        ledger.retry(job_id(2), &RetryParams::only([])).await,
        JobState::Rejected,
        JobEvent::Retry,
    );
    harness.check().await;
    check_audit(&ledger, job_id(2)).await;
}

pub(super) async fn controls_of_an_absent_job_are_not_found(ledger: Arc<dyn Ledger>) {
    let job = job_id(9);
    let answers = [
        ledger.pause(job).await,
        ledger.resume(job).await,
        ledger.fail(job, "x").await,
        ledger.retry(job, &RetryParams::all()).await,
        ledger.retry(job, &RetryParams::only([])).await,
        ledger.delete(job).await.map(|()| JobState::Failed),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Err(ControlError::NotFound)), "control {n} gave {answer:?}");
    }
    assert_eq!(ledger.job(job).await.unwrap(), None);
}

pub(super) async fn an_ended_job_can_be_deleted(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    let held = harness.take(4).await;
    for state in [JobState::Running, JobState::Paused] {
        if state == JobState::Paused {
            ledger.pause(harness.job).await.unwrap();
        }
        let answer = ledger.delete(harness.job).await;
        assert!(matches!(answer, Err(ControlError::NotEnded(s)) if s == state), "{answer:?}");
    }
    harness.commit(held.chunk, 0, vec![ok_lines(0, 1), failed("no"), ok(2)]).await;
    harness.check().await;
    ledger.archive(harness.job).await.unwrap();
    ledger.delete(harness.job).await.unwrap();
    assert_eq!(ledger.job(harness.job).await.unwrap(), None);
    assert_eq!(ledger.document(harness.job).await.unwrap(), None);
    assert_eq!(ledger.results(harness.job, &ResultsParams::new(0..4, 99)).await.unwrap().runs, []);
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 4)).await.unwrap(), []);
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    assert!(matches!(ledger.delete(harness.job).await, Err(ControlError::NotFound)));
    // A new job of the same id inherits nothing.
    let again = super::harness::admission(1, 4);
    assert!(matches!(ledger.admit(&again).await.unwrap(), Admitted::Accepted { .. }));
    assert_eq!(ledger.results(harness.job, &ResultsParams::new(0..4, 99)).await.unwrap().runs, []);
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 4)).await.unwrap(), []);
    harness.check().await;
}
