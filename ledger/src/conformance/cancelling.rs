//! A cancel that arrives before its job ends the job on its admission, once.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{Hint, JobId, JobSummary, JournalEnding, Timestamp};

use super::harness::{Harness, NEVER, admission, await_event, await_that, check_audit, job_id};
use crate::op::{Admission, Admitted, Event, OpenParams, RestoreParams, Topic};
use crate::{Cancelled, ControlError, Ledger, PriorState, Restored};

cases! {
    a_job_that_was_cancelled_before_is_admitted_as_cancelled
    a_cancel_before_admission_counts_once
    a_rejection_does_not_use_up_a_cancel
    a_job_that_was_cancelled_while_it_was_lost_is_restored_as_cancelled
    the_cancel_of_a_deleted_job_is_not_remembered
}

async fn cancel_ahead(ledger: &Arc<dyn Ledger>, job: JobId) {
    let before = ledger.now().await.unwrap();
    assert_eq!(ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
    let at = ledger.pending_cancel(job).await.unwrap().expect("it is remembered");
    assert!(at >= before && at <= ledger.now().await.unwrap(), "{at} is not now");
    assert_eq!(ledger.job(job).await.unwrap(), None, "it is not known for that");
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
}

async fn summary(ledger: &Arc<dyn Ledger>, job: JobId) -> JobSummary {
    ledger.job(job).await.unwrap().expect("the job is there")
}

pub(super) async fn a_job_that_was_cancelled_before_is_admitted_as_cancelled(
    ledger: Arc<dyn Ledger>,
) {
    let job = job_id(1);
    assert_eq!(ledger.pending_cancel(job).await.unwrap(), None);
    for _ in 0..2 {
        cancel_ahead(&ledger, job).await;
    }
    assert_eq!(ledger.pending_cancel(job_id(2)).await.unwrap(), None);
    let mut events = ledger.events(Topic::Clients).await.unwrap();
    let open = OpenParams::new(2, 3, NEVER);
    let wanted = Admission { fan_in: Some(4), open: Some(open), ..admission(1, 10) };
    let admitted = ledger.admit(&wanted).await.unwrap();
    assert!(matches!(admitted, Admitted::Cancelled { .. }), "{admitted:?}");
    await_event(&mut events, &Event::Hint(Hint::Job { job, state: JobState::Cancelled })).await;
    let ended = summary(&ledger, job).await;
    assert_eq!((ended.state, ended.error.clone()), (JobState::Cancelled, None));
    assert_eq!((ended.counts.cancelled, ended.counts.open()), (10, 0));
    assert_eq!((ended.reduce.cancelled, ended.reduce.open()), (4, 0));
    assert_eq!((ended.queued_chunks, ended.attempts, ended.started_at), (0, 0, None));
    assert!(ended.finished_at.is_some());
    assert_eq!(ledger.open(job, &open).await.unwrap(), []);
    assert!(ledger.document(job).await.unwrap().is_some(), "it is kept as any other");
    // It is moved to the finished list by an archive, like any job that has ended.
    assert_eq!(ledger.active_jobs().await.unwrap(), [job]);
    ledger.archive(job).await.unwrap();
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), [job]);
    assert_eq!(ledger.pending_cancel(job).await.unwrap(), None, "it is done");
    assert_eq!(ledger.admit(&wanted).await.unwrap(), Admitted::Known);
    assert_eq!(ledger.cancel(job).await.unwrap(), Cancelled::Ended);
    check_audit(&ledger, job).await;

    cancel_ahead_of_brief(&ledger).await;
}

async fn cancel_ahead_of_brief(ledger: &Arc<dyn Ledger>) {
    let job = job_id(3);
    assert_eq!(ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
    let brief = Admission { keep_for: Duration::from_millis(1), ..admission(3, 2) };
    let admitted = ledger.admit(&brief).await.unwrap();
    assert!(matches!(admitted, Admitted::Cancelled { .. }), "{admitted:?}");
    await_that("it is forgotten after its time", async || {
        let is_gone = ledger.job(job).await.unwrap().is_none();
        is_gone && ledger.document(job).await.unwrap().is_none()
    })
    .await;
}

pub(super) async fn a_cancel_before_admission_counts_once(ledger: Arc<dyn Ledger>) {
    let job = job_id(1);
    cancel_ahead(&ledger, job).await;
    ledger.admit(&admission(1, 2)).await.unwrap();
    ledger.delete(job).await.unwrap();
    let again = ledger.admit(&admission(1, 2)).await.unwrap();
    assert!(matches!(again, Admitted::Accepted { .. }), "{again:?}");
    assert_eq!(summary(&ledger, job).await.state, JobState::Queued);
    check_audit(&ledger, job).await;
}

/// The same document may come a second time.
pub(super) async fn a_rejection_does_not_use_up_a_cancel(ledger: Arc<dyn Ledger>) {
    let job = job_id(1);
    cancel_ahead(&ledger, job).await;
    ledger.reject(job, "its files are away, and it was cancelled").await.unwrap();
    assert!(ledger.pending_cancel(job).await.unwrap().is_some());
    assert!(matches!(ledger.cancel(job).await, Err(ControlError::Illegal(_))));
    let admitted = ledger.admit(&admission(1, 2)).await.unwrap();
    assert!(matches!(admitted, Admitted::Cancelled { .. }), "{admitted:?}");
    check_audit(&ledger, job).await;
}

pub(super) async fn a_job_that_was_cancelled_while_it_was_lost_is_restored_as_cancelled(
    ledger: Arc<dyn Ledger>,
) {
    let now = ledger.now().await.unwrap().as_millis();
    let submitted_at = Timestamp::from_millis(now - 5_000);
    for (n, paused) in [(1, false), (2, true)] {
        let job = job_id(n);
        assert_eq!(ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
        let was = PriorState::Open { submitted_at, paused };
        assert_eq!(
            ledger.restore(&RestoreParams::new(admission(n, 4), was.clone())).await.unwrap(),
            Restored::Restored
        );
        let back = summary(&ledger, job).await;
        assert_eq!((back.state, back.counts.cancelled), (JobState::Cancelled, 4));
        assert_eq!((back.submitted_at, back.finished_at.is_some()), (submitted_at, true));
        assert_eq!(ledger.pending_cancel(job).await.unwrap(), None);
        check_audit(&ledger, job).await;
    }
    assert_eq!(ledger.active_jobs().await.unwrap(), [job_id(1), job_id(2)]);

    // A job that had ended keeps its state.
    let job = job_id(3);
    assert_eq!(ledger.cancel(job).await.unwrap(), Cancelled::BeforeAdmission);
    let finished_at = Timestamp::from_millis(now - 1_000);
    let ending = JournalEnding {
        state: JobState::Succeeded,
        finished_at,
        submitted_at,
        started_at: None,
        done: 4,
        failed: 0,
        cancelled: 0,
        reduce_done: 0,
        reduce_failed: 0,
        reduce_cancelled: 0,
        generation: 0,
        attempts: 4,
        busy_ms: 4,
        lost: 0,
        error: None,
    };
    let restored = ledger
        .restore(&RestoreParams::new(admission(3, 4), PriorState::Ended(ending)))
        .await
        .unwrap();
    assert_eq!(restored, Restored::Restored);
    assert_eq!(summary(&ledger, job).await.state, JobState::Succeeded);
    assert_eq!(ledger.pending_cancel(job).await.unwrap(), None);
}

pub(super) async fn the_cancel_of_a_deleted_job_is_not_remembered(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 2).await;
    ledger.cancel(harness.job).await.unwrap();
    ledger.delete(harness.job).await.unwrap();
    assert!(matches!(ledger.cancel(harness.job).await, Err(ControlError::NotFound)));
    assert_eq!(ledger.pending_cancel(harness.job).await.unwrap(), None);
}
