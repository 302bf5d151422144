//! Pause, resume, cancel, fail and delete.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::{JobEvent, JobState};

use super::play::{NEVER, Play, again, check_audit, failed, job_id, ok, ok_lines};
use crate::op::Admitted;
use crate::{Cancelled, ControlError, ErrorsParams, Ledger, ResultsParams, RetryParams};

pub(super) async fn pause_and_resume_move_between_states(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 4).await;
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Queued, "nothing to resume");
    for _ in 0..2 {
        assert_eq!(ledger.pause(play.job).await.unwrap(), JobState::Paused);
    }
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Queued);
    let held = play.take(2).await;
    assert_eq!(ledger.pause(play.job).await.unwrap(), JobState::Paused);
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Running);
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Running);
    assert_eq!(play.succeed(&held).await, JobState::Running);
    play.check().await;
}

pub(super) async fn a_resumed_job_has_its_queued_chunks_due(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 6).await;
    play.take(2).await;
    play.open(2, 2).await;
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Running);
    assert_eq!(play.sweep(9, NEVER).await, [], "a resume of a job that runs changes nothing");
    ledger.pause(play.job).await.unwrap();
    ledger.resume(play.job).await.unwrap();
    assert_eq!(play.sweep(9, NEVER).await, [(2, 4, 1), (4, 6, 1)]);
    play.check().await;
}

pub(super) async fn an_ended_job_counts_what_was_open_as_cancelled(ledger: Arc<dyn Ledger>) {
    let play = Play::with(&ledger, 10, |a| a.fan_in = Some(4)).await;
    let held = play.take(6).await;
    play.open(1, 2).await;
    let runs = vec![ok_lines(0, 2), failed("no"), again(Duration::ZERO)];
    play.commit(held.chunk, 0, runs).await;
    assert_eq!(ledger.cancel(play.job).await.unwrap(), Cancelled::Ended);
    let cancelled = play.summary().await;
    let counts = cancelled.counts;
    assert_eq!((counts.done, counts.failed, counts.cancelled, counts.open()), (2, 1, 7, 0));
    assert_eq!((cancelled.reduce.cancelled, cancelled.reduce.open()), (4, 0));
    assert_eq!((cancelled.queued_chunks, cancelled.running_chunks, cancelled.cursor), (0, 0, 8));
    assert_eq!((cancelled.next_retry_at, cancelled.error.clone()), (None, None));
    assert!(cancelled.finished_at.is_some());
    assert_eq!(ledger.cancel(play.job).await.unwrap(), Cancelled::Ended);
    assert_eq!(play.summary().await, cancelled, "a repeat changes nothing");
    let kept = ledger.results(play.job, &ResultsParams::new(0..10, 99)).await.unwrap();
    assert_eq!(kept.runs.len(), 1, "what came out is kept");
    play.check().await;
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
    let play = Play::of(&ledger, 4).await;
    illegal(ledger.retry(play.job, &RetryParams::all()).await, JobState::Queued, JobEvent::Retry);
    let failed = ledger.fail(play.job, "the deadline passed").await.unwrap();
    assert_eq!(failed, JobState::Failed);
    let summary = play.summary().await;
    assert_eq!(summary.error.as_deref(), Some("the deadline passed"));
    assert_eq!((summary.counts.cancelled, summary.started_at), (4, None));
    illegal(ledger.pause(play.job).await, JobState::Failed, JobEvent::Pause);
    illegal(ledger.resume(play.job).await, JobState::Failed, JobEvent::Resume);
    illegal(ledger.cancel(play.job).await, JobState::Failed, JobEvent::Cancel);
    illegal(ledger.fail(play.job, "again").await, JobState::Failed, JobEvent::Fail);
    assert_eq!(play.summary().await, summary, "nothing changed");

    ledger.reject(job_id(2), "no").await.unwrap();
    illegal(ledger.cancel(job_id(2)).await, JobState::Rejected, JobEvent::Cancel);
    illegal(
        ledger.retry(job_id(2), &RetryParams::only([])).await,
        JobState::Rejected,
        JobEvent::Retry,
    );
    play.check().await;
    check_audit(&ledger, job_id(2)).await;
}

pub(super) async fn controls_of_an_absent_job_find_nothing(ledger: Arc<dyn Ledger>) {
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
    let play = Play::of(&ledger, 4).await;
    let held = play.take(4).await;
    for state in [JobState::Running, JobState::Paused] {
        if state == JobState::Paused {
            ledger.pause(play.job).await.unwrap();
        }
        let answer = ledger.delete(play.job).await;
        assert!(matches!(answer, Err(ControlError::NotEnded(s)) if s == state), "{answer:?}");
    }
    play.commit(held.chunk, 0, vec![ok_lines(0, 1), failed("no"), ok(2)]).await;
    play.check().await;
    ledger.archive(play.job).await.unwrap();
    ledger.delete(play.job).await.unwrap();
    assert_eq!(ledger.job(play.job).await.unwrap(), None);
    assert_eq!(ledger.document(play.job).await.unwrap(), None);
    assert_eq!(ledger.results(play.job, &ResultsParams::new(0..4, 99)).await.unwrap().runs, []);
    assert_eq!(ledger.errors(play.job, &ErrorsParams::new(0, 4)).await.unwrap(), []);
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    assert!(matches!(ledger.delete(play.job).await, Err(ControlError::NotFound)));
    // Nothing of it comes back with a new job of its name.
    let again = super::play::admission(1, 4);
    assert!(matches!(ledger.admit(&again).await.unwrap(), Admitted::Accepted { .. }));
    assert_eq!(ledger.results(play.job, &ResultsParams::new(0..4, 99)).await.unwrap().runs, []);
    assert_eq!(ledger.errors(play.job, &ErrorsParams::new(0, 4)).await.unwrap(), []);
    play.check().await;
}
