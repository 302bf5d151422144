//! Commits: their effect on the counts, and how they end jobs.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::OutcomeRun;
use longshore_protocol::state::JobState;

use super::harness::{Harness, NEVER, again, failed, later, ok, ok_lines, shape, token};
use crate::op::{Committed, ErrorsParams, ReleaseParams, Released};
use crate::{Error, Ledger};

cases! {
    a_chunk_settles_in_parts_and_closes
    a_repeated_commit_changes_nothing
    a_commit_that_breaks_the_rules_is_misuse
    failures_are_retried_deferred_or_final
    a_job_shows_its_last_error
    the_error_of_a_reduce_node_names_it_as_such
    a_limit_of_failures_ends_the_job
    a_job_with_failures_fails_once_all_is_settled
    a_paused_job_ends_when_its_running_chunks_do
}

pub(super) async fn a_chunk_settles_in_parts_and_closes(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    let held = harness.take(6).await;
    assert_eq!(harness.commit(held.chunk, 0, vec![ok(2)]).await, JobState::Running);
    let summary = harness.summary().await;
    assert_eq!((summary.counts.done, summary.counts.running), (2, 4));
    assert_eq!((summary.attempts, summary.busy), (2, Duration::from_millis(10)));
    assert_eq!(harness.commit(held.chunk, 2, vec![ok(1), ok(2)]).await, JobState::Running);
    harness.check().await;
    assert_eq!(harness.commit(held.chunk, 5, vec![ok(1)]).await, JobState::Succeeded);
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 6));
    assert_eq!((summary.attempts, summary.busy), (6, Duration::from_millis(30)));
    assert_eq!((summary.queued_chunks, summary.running_chunks, summary.cursor), (0, 0, 6));
    assert!(summary.finished_at >= summary.started_at && summary.finished_at.is_some());
    assert_eq!((summary.error, summary.eta), (None, None));
    harness.check().await;
}

pub(super) async fn a_repeated_commit_changes_nothing(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    let held = harness.take(6).await;
    harness.commit(held.chunk, 0, vec![ok_lines(0, 2), failed("no"), again(NEVER)]).await;
    let before = harness.summary().await;
    for runs in [
        vec![ok_lines(0, 2), failed("no"), again(NEVER)],
        vec![ok(1)],
        vec![ok(4)],
        vec![failed("something else"), later(Duration::ZERO)],
        vec![],
    ] {
        assert_eq!(harness.commit(held.chunk, 0, runs).await, JobState::Running);
    }
    harness.commit(held.chunk, 4, vec![]).await;
    assert_eq!(harness.summary().await, before);
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap().len(), 1);
    ledger.pause(harness.job).await.unwrap();
    let state = harness.commit(held.chunk, 0, vec![ok(1)]).await;
    assert_eq!(state, JobState::Paused, "the state is told with a repeat too");
    harness.check().await;
}

pub(super) async fn a_commit_that_breaks_the_rules_is_misuse(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 600).await;
    let held = harness.take(300).await;
    harness.commit(held.chunk, 0, vec![ok(10)]).await;
    let before = harness.summary().await;
    let misuse = async |shown: u64, from: u64, runs: Vec<OutcomeRun>| {
        let answer = harness.try_commit(1, shown, from, runs.clone()).await;
        let refused = matches!(answer, Err(Error::Misuse { operation: "commit", .. }));
        assert!(refused, "{runs:?} from {from} gave {answer:?}");
        assert_eq!(harness.summary().await, before, "nothing changed");
    };
    misuse(1, 11, vec![ok(1)]).await; // a gap
    misuse(1, 11, vec![]).await;
    misuse(1, 10, vec![ok(291)]).await; // reaches past the end
    misuse(1, 10, vec![ok(290), failed("one too many")]).await;
    misuse(1, 10, vec![ok(0)]).await;
    misuse(1, 250, vec![ok_lines(250, 260)]).await; // across a stride
    misuse(9, 250, vec![ok_lines(250, 260)]).await; // whatever the token
    misuse(1, u64::MAX, vec![ok(2)]).await;
    // Without results a run may be of any length.
    assert_eq!(harness.commit(held.chunk, 10, vec![ok(290)]).await, JobState::Running);
    harness.check().await;
}

pub(super) async fn failures_are_retried_deferred_or_final(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 5).await;
    let held = harness.take(5).await;
    let zero = Duration::ZERO;
    harness.commit(held.chunk, 0, vec![ok(1), again(zero), later(zero), failed("bad input")]).await;
    let counts = harness.summary().await.counts;
    assert_eq!((counts.done, counts.retrying, counts.failed, counts.running), (1, 2, 1, 1));
    assert_eq!(harness.release(1, 1).await, Released::Queued);
    harness.check().await;

    // 2 was deferred: still its first attempt. 1 is at its second.
    let opened = harness.open(2, 5).await;
    assert_eq!(shape(&opened), [(2, 3, 1), (1, 2, 1)]);
    assert_eq!(harness.hold(&opened[0]).await.deferrals, 1);
    harness.commit(opened[0].chunk, 2, vec![later(zero)]).await;
    assert_eq!(harness.hold(&opened[1]).await.attempt, 2);
    harness.commit(opened[1].chunk, 1, vec![later(zero)]).await;
    let opened = harness.open(2, 5).await;
    assert_eq!(shape(&opened), [(2, 3, 1), (1, 2, 1)]);
    let grant = harness.hold(&opened[0]).await;
    assert_eq!((grant.attempt, grant.deferrals), (1, 2));
    let grant = harness.hold(&opened[1]).await;
    assert_eq!((grant.attempt, grant.deferrals), (2, 1));
    // A failure after deferrals starts counting them anew.
    harness.commit(opened[1].chunk, 1, vec![again(zero)]).await;
    let third = harness.open(1, 5).await;
    let grant = harness.hold(&third[0]).await;
    assert_eq!((grant.from, grant.attempt, grant.deferrals), (1, 3, 0));
    harness.commit(third[0].chunk, 1, vec![failed("third time")]).await;

    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    let told: Vec<_> = errors
        .iter()
        .map(|entry| (entry.index, entry.error.as_str(), entry.attempts, entry.node.as_str()))
        .collect();
    assert_eq!(told, [(1, "third time", 3, "a"), (3, "bad input", 1, "a")]);
    let summary = harness.summary().await;
    assert!(errors.iter().all(|entry| entry.at >= summary.submitted_at));
    assert_eq!((summary.counts.failed, summary.attempts), (2, 8));
    harness.check().await;
}

pub(super) async fn a_job_shows_its_last_error(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 9, |a| a.fan_in = Some(9)).await;
    let told = async || harness.summary().await.last_error;
    let why = |error: &str| OutcomeRun::Retry { error: error.into(), delay: Duration::ZERO };
    let held = harness.take(9).await;
    harness.commit(held.chunk, 0, vec![ok(2), later(NEVER)]).await;
    assert_eq!(told().await, None, "a deferral is not a failure");
    harness.commit(held.chunk, 3, vec![why("flaky"), ok(1)]).await;
    assert_eq!(told().await.as_deref(), Some("subtask 3: flaky"));
    harness.commit(held.chunk, 5, vec![ok(1), failed("broken"), why("a\0b\n"), ok(1)]).await;
    assert_eq!(told().await.as_deref(), Some("subtask 7: a\0b\n"));
    // The newest error stays, also after later successes.
    let again = harness.take(1).await;
    harness.succeed(&again).await;
    assert_eq!(told().await.as_deref(), Some("subtask 7: a\0b\n"));

    // 1 KiB of it, cut between characters.
    let again = harness.take(1).await;
    assert_eq!(again.from, 7);
    harness.commit(again.chunk, 7, vec![why(&format!("{}äöü", "x".repeat(1_021)))]).await;
    assert_eq!(told().await, Some(format!("subtask 7: {}ä", "x".repeat(1_021))));
    let again = harness.take(1).await;
    harness.commit(again.chunk, 7, vec![failed(&format!("{}ä", "x".repeat(1_023)))]).await;
    assert_eq!(told().await, Some(format!("subtask 7: {}", "x".repeat(1_023))));
    harness.check().await;
}

pub(super) async fn the_error_of_a_reduce_node_names_it_as_such(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 4, |a| a.fan_in = Some(2)).await;
    harness.succeed_level().await;
    let held = harness.take(2).await;
    assert_eq!(held.from, 4);
    let flaky = OutcomeRun::Retry { error: "flaky".into(), delay: Duration::ZERO };
    harness.commit(held.chunk, 4, vec![ok(1), flaky]).await;
    assert_eq!(harness.summary().await.last_error.as_deref(), Some("reduce node 5: flaky"));
    harness.check().await;
}

pub(super) async fn a_limit_of_failures_ends_the_job(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 20, |a| a.stop_after_failures = Some(2)).await;
    let first = harness.take(5).await;
    let second = harness.take(5).await;
    harness.open(1, 5).await;
    let state = harness.commit(first.chunk, 0, vec![failed("1"), again(NEVER)]).await;
    assert_eq!(state, JobState::Running);
    // The whole commit counts, also what follows the failure that was one too many.
    let state = harness.commit(second.chunk, 5, vec![ok(1), failed("2"), ok(1), failed("3")]).await;
    assert_eq!(state, JobState::Failed);
    let summary = harness.summary().await;
    let counts = summary.counts;
    assert_eq!((counts.done, counts.failed, counts.cancelled, counts.open()), (2, 3, 15, 0));
    let error = "3 of 20 subtasks failed; stop_after_failures is 2";
    assert_eq!(summary.error.as_deref(), Some(error));
    assert_eq!((summary.queued_chunks, summary.running_chunks), (0, 0));
    assert_eq!((summary.next_retry_at, summary.eta), (None, None));
    assert!(summary.finished_at.is_some());
    let answer =
        ledger.release(harness.job, &ReleaseParams::new(first.chunk, token(1))).await.unwrap();
    assert_eq!(answer, Released::Fenced);
    harness.check().await;
}

pub(super) async fn a_job_with_failures_fails_once_all_is_settled(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    let held = harness.take(4).await;
    let state = harness.commit(held.chunk, 0, vec![failed("x"), ok(2)]).await;
    assert_eq!(state, JobState::Running, "the rest still runs");
    let state = harness.commit(held.chunk, 3, vec![failed("y")]).await;
    assert_eq!(state, JobState::Failed);
    let summary = harness.summary().await;
    assert_eq!((summary.counts.done, summary.counts.failed, summary.counts.cancelled), (2, 2, 0));
    assert_eq!(summary.error.as_deref(), Some("2 of 4 subtasks failed"));
    harness.check().await;
}

pub(super) async fn a_paused_job_ends_when_its_running_chunks_do(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    let held = harness.take(4).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.commit(held.chunk, 0, vec![ok(3)]).await, JobState::Paused);
    assert_eq!(harness.summary().await.state, JobState::Paused);
    let answer = harness.try_commit(1, 1, 3, vec![ok(1)]).await.unwrap();
    assert_eq!(answer, Committed::Settled { state: JobState::Succeeded });
    assert!(harness.summary().await.finished_at.is_some());
    harness.check().await;
}
