//! Lost jobs are restored from the journal; known, deleted and expired ones are not.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{Counts, JobId, JobSummary, JournalEnding, JournalPosition, Timestamp};

use super::harness::{Harness, admission, await_that, check_audit, failed, job_id, ok_lines};
use crate::op::{
    Admission, Admitted, AdvanceJournalParams, RestoreParams, ResultsParams, RetryParams,
};
use crate::{ControlError, Error, Ledger, PriorState, Restored};

cases! {
    a_lost_job_is_restored_as_it_was_submitted
    an_ended_job_is_restored_with_its_counts
    a_job_restored_by_its_counts_runs_again_as_a_whole
    an_expired_job_is_not_restored
    a_known_or_deleted_job_is_not_restored
    counts_that_do_not_add_up_are_misuse
    lost_jobs_are_distinguished_from_deleted_ones
    the_place_in_the_journal_moves_by_agreement
}

async fn summary(ledger: &Arc<dyn Ledger>, job: JobId) -> JobSummary {
    ledger.job(job).await.unwrap().expect("the job is there")
}

async fn ago(ledger: &Arc<dyn Ledger>, time: Duration) -> Timestamp {
    let now = ledger.now().await.unwrap().as_millis();
    Timestamp::from_millis(now - u64::try_from(time.as_millis()).unwrap())
}

fn open(submitted_at: Timestamp, paused: bool) -> PriorState {
    PriorState::Open { submitted_at, paused }
}

/// Of 10 subtasks and, in a reduce by 4, 4 nodes.
fn ending(state: JobState, finished_at: Timestamp) -> JournalEnding {
    let (done, failed) = if state == JobState::Succeeded { (10, 0) } else { (7, 2) };
    let nodes = if state == JobState::Succeeded { 4 } else { 0 };
    JournalEnding {
        state,
        finished_at,
        submitted_at: Timestamp::from_millis(finished_at.as_millis() - 5_000),
        started_at: Some(Timestamp::from_millis(finished_at.as_millis() - 4_000)),
        done,
        failed,
        cancelled: 10 - done - failed,
        reduce_done: nodes,
        reduce_failed: 0,
        reduce_cancelled: 4 - nodes,
        generation: 1,
        attempts: 14,
        busy_ms: 250,
        lost: 3,
        error: (failed > 0).then(|| "2 of 10 subtasks failed".to_owned()),
    }
}

fn reduced(n: u64) -> Admission {
    Admission { fan_in: Some(4), ..admission(n, 10) }
}

pub(super) async fn a_lost_job_is_restored_as_it_was_submitted(ledger: Arc<dyn Ledger>) {
    let submitted = ago(&ledger, Duration::from_secs(50)).await;
    let deadline = Some(Duration::from_secs(60));
    let lost = Admission { deadline, manifest: Some("{\"files\":[]}".into()), ..admission(1, 4) };
    for again in [Restored::Restored, Restored::Known] {
        assert_eq!(
            ledger
                .restore(&RestoreParams::new(lost.clone(), open(submitted, false)))
                .await
                .unwrap(),
            again
        );
    }
    let back = summary(&ledger, job_id(1)).await;
    assert_eq!((back.state, back.counts), (JobState::Queued, Counts::new(4)));
    assert_eq!((back.submitted_at, back.started_at), (submitted, None));
    assert_eq!(
        back.restored_at, None,
        "it runs all of its subtasks again, so nothing of it is missing"
    );
    assert_eq!(back.deadline_at, Some(submitted.plus(Duration::from_secs(60))));
    let stored = ledger.document(job_id(1)).await.unwrap().expect("kept");
    assert_eq!((stored.digest, stored.manifest), (lost.digest.clone(), lost.manifest.clone()));
    assert_eq!(ledger.admit(&lost).await.unwrap(), Admitted::Known);

    let paused = admission(2, 3);
    ledger.restore(&RestoreParams::new(paused.clone(), open(submitted, true))).await.unwrap();
    assert_eq!(summary(&ledger, job_id(2)).await.state, JobState::Paused);
    assert_eq!(ledger.active_jobs().await.unwrap(), [job_id(1), job_id(2)]);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    assert_eq!(ledger.resume(job_id(2)).await.unwrap(), JobState::Queued);
    for (job, total) in [(job_id(1), 4), (job_id(2), 3)] {
        check_audit(&ledger, job).await;
        let harness = Harness { ledger: Arc::clone(&ledger), job };
        let held = harness.take(total).await;
        assert_eq!(harness.succeed(&held).await, JobState::Succeeded);
        harness.check().await;
    }
}

pub(super) async fn an_ended_job_is_restored_with_its_counts(ledger: Arc<dyn Ledger>) {
    let finished = ago(&ledger, Duration::from_secs(5)).await;
    let before = Some(ledger.now().await.unwrap());
    let states = [JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    for (n, state) in (1..).zip(states) {
        let was = PriorState::Ended(ending(state, finished.plus(Duration::from_millis(n))));
        for again in [Restored::Restored, Restored::Known] {
            assert_eq!(
                ledger.restore(&RestoreParams::new(reduced(n), was.clone())).await.unwrap(),
                again
            );
        }
        let back = summary(&ledger, job_id(n)).await;
        let PriorState::Ended(was) = was else { unreachable!("made above") };
        assert_eq!(JournalEnding::of(&back), Some(was), "it reads as it was");
        assert!(back.restored_at >= before && back.restored_at.is_some(), "and says since when");
        assert_eq!((back.counts.total, back.counts.open(), back.reduce.open()), (10, 0, 0));
        assert_eq!(ledger.admit(&reduced(n)).await.unwrap(), Admitted::Known);
        assert_eq!(
            ledger.results(job_id(n), &ResultsParams::new(0..14, 999)).await.unwrap().runs,
            []
        );
        check_audit(&ledger, job_id(n)).await;
    }
    assert_eq!(ledger.active_jobs().await.unwrap(), []);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), [3, 2, 1].map(job_id));
    let refused = ledger.retry(job_id(2), &RetryParams::only([1])).await;
    assert!(matches!(refused, Err(ControlError::BadIndices(_))), "{refused:?}");
    ledger.delete(job_id(2)).await.unwrap();
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), [3, 1].map(job_id));
    let soon = Admission { keep_for: Duration::from_secs(5), ..reduced(4) };
    let was =
        PriorState::Ended(ending(JobState::Succeeded, finished.plus(Duration::from_millis(300))));
    if ledger.restore(&RestoreParams::new(soon.clone(), was.clone())).await.unwrap()
        == Restored::Restored
    {
        await_that("its time is over", async || ledger.job(job_id(4)).await.unwrap().is_none())
            .await;
    }
}

pub(super) async fn a_job_restored_by_its_counts_runs_again_as_a_whole(ledger: Arc<dyn Ledger>) {
    let finished = ago(&ledger, Duration::from_secs(5)).await;
    let was = PriorState::Ended(ending(JobState::Failed, finished));
    ledger.restore(&RestoreParams::new(reduced(1), was.clone())).await.unwrap();
    assert_eq!(ledger.retry(job_id(1), &RetryParams::all()).await.unwrap(), JobState::Running);
    let harness = Harness { ledger: Arc::clone(&ledger), job: job_id(1) };
    harness.check().await;
    let back = harness.summary().await;
    assert_eq!((back.counts, back.reduce), (Counts::new(10), Counts::new(4)));
    assert_eq!((back.generation, back.cursor, back.error, back.restored_at), (2, 0, None, None));
    assert_eq!(ledger.active_jobs().await.unwrap(), [job_id(1)]);
    let held = harness.take(10).await;
    assert_eq!(harness.commit(held.chunk, 0, vec![ok_lines(0, 10)]).await, JobState::Reducing);
    for _ in 0..4 {
        let held = harness.take(1).await;
        harness.succeed(&held).await;
    }
    assert_eq!(harness.summary().await.state, JobState::Succeeded);
    harness.check().await;
}

pub(super) async fn an_expired_job_is_not_restored(ledger: Arc<dyn Ledger>) {
    let finished = ago(&ledger, Duration::from_secs(60)).await;
    let brief = Admission { keep_for: Duration::from_secs(59), ..reduced(1) };
    let was = PriorState::Ended(ending(JobState::Succeeded, finished));
    assert_eq!(
        ledger.restore(&RestoreParams::new(brief.clone(), was.clone())).await.unwrap(),
        Restored::Expired
    );
    assert_eq!(ledger.job(job_id(1)).await.unwrap(), None);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    // A job that never ended has no such time.
    let open = open(finished, false);
    assert_eq!(
        ledger.restore(&RestoreParams::new(brief.clone(), open.clone())).await.unwrap(),
        Restored::Restored
    );
}

pub(super) async fn a_known_or_deleted_job_is_not_restored(ledger: Arc<dyn Ledger>) {
    let submitted = ago(&ledger, Duration::from_secs(5)).await;
    let was = open(submitted, false);
    let harness = Harness::of(&ledger, 4).await;
    let held = harness.take(4).await;
    assert_eq!(
        ledger.restore(&RestoreParams::new(admission(1, 4), was.clone())).await.unwrap(),
        Restored::Known
    );
    harness.commit(held.chunk, 0, vec![ok_lines(0, 3), failed("no")]).await;
    let before = harness.summary().await;
    assert_eq!(
        ledger.restore(&RestoreParams::new(admission(1, 4), was.clone())).await.unwrap(),
        Restored::Known
    );
    assert_eq!(harness.summary().await, before, "nothing changed");
    harness.check().await;
    ledger.delete(harness.job).await.unwrap();
    assert_eq!(
        ledger.restore(&RestoreParams::new(admission(1, 4), was.clone())).await.unwrap(),
        Restored::Known
    );
    assert_eq!(ledger.job(harness.job).await.unwrap(), None);

    ledger.reject(job_id(2), "no").await.unwrap();
    assert_eq!(
        ledger.restore(&RestoreParams::new(admission(2, 4), was.clone())).await.unwrap(),
        Restored::Restored
    );
    assert_eq!(summary(&ledger, job_id(2)).await.state, JobState::Queued);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
}

pub(super) async fn counts_that_do_not_add_up_are_misuse(ledger: Arc<dyn Ledger>) {
    let finished = ago(&ledger, Duration::from_secs(5)).await;
    let good = ending(JobState::Failed, finished);
    for wrong in [
        JournalEnding { done: 8, ..good.clone() },
        JournalEnding { reduce_cancelled: 3, ..good.clone() },
        JournalEnding { state: JobState::Running, ..good.clone() },
    ] {
        let answer =
            ledger.restore(&RestoreParams::new(reduced(1), PriorState::Ended(wrong))).await;
        assert!(matches!(answer, Err(Error::Misuse { .. })), "{answer:?}");
    }
    assert_eq!(ledger.job(job_id(1)).await.unwrap(), None);
}

pub(super) async fn lost_jobs_are_distinguished_from_deleted_ones(ledger: Arc<dyn Ledger>) {
    for n in 1..=3 {
        ledger.admit(&admission(n, 2)).await.unwrap();
    }
    ledger.reject(job_id(5), "no").await.unwrap();
    ledger.cancel(job_id(2)).await.unwrap();
    ledger.cancel(job_id(3)).await.unwrap();
    ledger.delete(job_id(3)).await.unwrap();
    let asked = [9, 1, 2, 3, 4, 5].map(job_id);
    assert_eq!(ledger.missing(&asked).await.unwrap(), [job_id(9), job_id(4)]);
    assert_eq!(ledger.missing(&[]).await.unwrap(), []);
    // A new job of that id can be lost again.
    let brief = Admission { keep_for: Duration::ZERO, ..admission(3, 2) };
    ledger.admit(&brief).await.unwrap();
    assert_eq!(ledger.missing(&[job_id(3)]).await.unwrap(), []);
    ledger.cancel(job_id(3)).await.unwrap();
    await_that("it is gone", async || ledger.missing(&[job_id(3)]).await.unwrap().len() == 1).await;
}

pub(super) async fn the_place_in_the_journal_moves_by_agreement(ledger: Arc<dyn Ledger>) {
    let place = |offset, record: &str| JournalPosition { offset, record: record.into() };
    let (one, two, anew) = (place(1 << 40, "one"), place((1 << 40) + 1, "two"), place(0, "anew"));
    assert_eq!(ledger.journal_position().await.unwrap(), None);
    let moves = [
        (Some(&one), &two, None),
        (None, &one, Some(&one)),
        (None, &two, Some(&one)),
        (Some(&place(1 << 40, "other")), &two, Some(&one)),
        (Some(&one), &two, Some(&two)),
        (Some(&one), &anew, Some(&two)),
        (Some(&two), &anew, Some(&anew)),
    ];
    for (from, to, now) in moves {
        let answer = ledger
            .advance_journal(&AdvanceJournalParams::new(from.cloned(), to.clone()))
            .await
            .unwrap();
        assert_eq!(answer.as_ref(), now, "{from:?} to {to:?}");
        assert_eq!(ledger.journal_position().await.unwrap(), answer);
    }
}
