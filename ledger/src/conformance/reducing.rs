//! The levels of a reduce run one after another, also through pauses, failures and retries.
//!
//! With 10 subtasks and a fan-in of 4: nodes 10, 11 and 12, and the root 13.

use std::sync::Arc;

use longshore_protocol::Counts;
use longshore_protocol::state::JobState;

use super::harness::{Harness, again, failed, ok, shape};
use crate::Ledger;
use crate::{ErrorsParams, ResultsParams, RetryParams};

cases! {
    the_reduce_runs_level_by_level
    a_paused_job_goes_on_to_its_reduce_when_resumed
    failed_leaves_cancel_the_reduce_until_a_retry
    a_failed_reduce_node_can_be_retried
    a_limit_of_failures_holds_in_the_reduce_too
}

async fn ten_by_four(ledger: &Arc<dyn Ledger>) -> Harness {
    Harness::with(ledger, 10, |a| a.fan_in = Some(4)).await
}

pub(super) async fn the_reduce_runs_level_by_level(ledger: Arc<dyn Ledger>) {
    let harness = ten_by_four(&ledger).await;
    let held = harness.take(9).await;
    harness.succeed(&held).await;
    let last = harness.take(9).await;
    assert_eq!(harness.open(9, 9).await, [], "the tree waits for its leaves");
    assert_eq!(harness.succeed(&last).await, JobState::Reducing);
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.cursor), (JobState::Reducing, 10));
    assert_eq!((summary.counts.done, summary.reduce), (10, Counts::new(4)));
    harness.check().await;

    let opened = harness.open(9, 2).await;
    assert_eq!(shape(&opened), [(10, 12, 1), (12, 13, 1)], "the root waits for its children");
    harness.hold(&opened[0]).await;
    harness.hold(&opened[1]).await;
    let reduce = harness.summary().await.reduce;
    assert_eq!((reduce.waiting, reduce.running), (1, 3));
    harness.check().await;
    assert_eq!(harness.succeed(&opened[1]).await, JobState::Reducing);
    assert_eq!(
        harness.commit(opened[0].chunk, 10, vec![ok(1), again_now()]).await,
        JobState::Reducing
    );
    let retried = harness.open(9, 9).await;
    assert_eq!(shape(&retried), [(11, 12, 1)]);
    harness.hold(&retried[0]).await;
    harness.check().await;
    assert_eq!(harness.succeed(&retried[0]).await, JobState::Reducing);

    let root = harness.take(9).await;
    assert_eq!((root.from, root.to), (13, 14));
    harness.check().await;
    let result = super::harness::ok_lines(13, 14);
    assert_eq!(harness.commit(root.chunk, 13, vec![result]).await, JobState::Succeeded);
    let summary = harness.summary().await;
    assert_eq!((summary.reduce.done, summary.counts.done, summary.attempts), (4, 10, 15));
    let page = ledger.results(harness.job, &ResultsParams::new(13..14, 99)).await.unwrap();
    assert_eq!(page.runs.len(), 1);
    assert_eq!(page.runs[0].body, "13\n".into());
    harness.check().await;
}

fn again_now() -> longshore_protocol::OutcomeRun {
    again(std::time::Duration::ZERO)
}

pub(super) async fn a_paused_job_goes_on_to_its_reduce_when_resumed(ledger: Arc<dyn Ledger>) {
    let harness = ten_by_four(&ledger).await;
    let held = harness.take(10).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.succeed(&held).await, JobState::Paused);
    assert_eq!(harness.open(9, 9).await, []);
    assert_eq!(harness.summary().await.reduce, Counts::new(4));
    harness.check().await;
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Reducing);
    let level = harness.take(3).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.succeed(&level).await, JobState::Paused);
    assert_eq!(ledger.resume(harness.job).await.unwrap(), JobState::Reducing);
    let root = harness.take(3).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.succeed(&root).await, JobState::Succeeded);
    harness.check().await;
}

pub(super) async fn failed_leaves_cancel_the_reduce_until_a_retry(ledger: Arc<dyn Ledger>) {
    let harness = ten_by_four(&ledger).await;
    let held = harness.take(10).await;
    let state = harness.commit(held.chunk, 0, vec![ok(4), failed("no"), ok(5)]).await;
    assert_eq!(state, JobState::Failed);
    let reduce = harness.summary().await.reduce;
    assert_eq!((reduce.cancelled, reduce.waiting), (4, 0));
    harness.check().await;
    // Nothing but the failed leaf is missing, so the tree waits again with it, whichever way it is
    // retried.
    ledger.retry(harness.job, &RetryParams::only([4])).await.unwrap();
    assert_eq!(harness.summary().await.reduce, Counts::new(4));
    harness.check().await;
    let held = harness.take(1).await;
    assert_eq!(harness.commit(held.chunk, 4, vec![failed("again")]).await, JobState::Failed);
    assert_eq!(harness.summary().await.reduce.cancelled, 4);
    ledger.retry(harness.job, &RetryParams::all()).await.unwrap();
    assert_eq!(harness.summary().await.reduce, Counts::new(4));
    harness.check().await;
    assert_eq!(harness.succeed_level().await, JobState::Reducing);
    assert_eq!(harness.succeed_level().await, JobState::Reducing);
    assert_eq!(harness.succeed_level().await, JobState::Succeeded);
    harness.check().await;
}

pub(super) async fn a_failed_reduce_node_can_be_retried(ledger: Arc<dyn Ledger>) {
    let harness = ten_by_four(&ledger).await;
    harness.succeed_level().await;
    let held = harness.take(3).await;
    let state = harness.commit(held.chunk, 10, vec![ok(1), failed("no"), ok(1)]).await;
    assert_eq!(state, JobState::Failed);
    let summary = harness.summary().await;
    assert_eq!(summary.error.as_deref(), Some("1 of 4 reduce nodes failed"));
    let reduce = summary.reduce;
    assert_eq!((reduce.done, reduce.failed, reduce.cancelled), (2, 1, 1));
    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!(errors.iter().map(|entry| entry.index).collect::<Vec<_>>(), [11]);
    harness.check().await;

    assert_eq!(ledger.retry(harness.job, &RetryParams::all()).await.unwrap(), JobState::Running);
    let summary = harness.summary().await;
    assert_eq!((summary.reduce.waiting, summary.reduce.done, summary.cursor), (2, 2, 10));
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    harness.check().await;
    let held = harness.take(9).await;
    assert_eq!((held.from, held.to), (11, 12));
    assert_eq!(harness.commit(held.chunk, 11, vec![failed("again")]).await, JobState::Failed);
    assert_eq!(
        ledger.retry(harness.job, &RetryParams::only([11])).await.unwrap(),
        JobState::Running
    );
    let reduce = harness.summary().await.reduce;
    assert_eq!((reduce.waiting, reduce.retrying, reduce.cancelled), (1, 1, 0));
    harness.check().await;
    assert_eq!(harness.succeed_level().await, JobState::Reducing);
    assert_eq!(harness.succeed_level().await, JobState::Succeeded);
    harness.check().await;
}

pub(super) async fn a_limit_of_failures_holds_in_the_reduce_too(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 10, |a| {
        a.fan_in = Some(4);
        a.stop_after_failures = Some(1);
    })
    .await;
    harness.succeed_level().await;
    let held = harness.take(3).await;
    let state = harness.commit(held.chunk, 10, vec![ok(1), failed("no")]).await;
    assert_eq!(state, JobState::Failed);
    let summary = harness.summary().await;
    let error = "1 of 4 reduce nodes failed; stop_after_failures is 1";
    assert_eq!(summary.error.as_deref(), Some(error));
    let reduce = summary.reduce;
    assert_eq!((reduce.done, reduce.failed, reduce.cancelled), (1, 1, 2));
    harness.check().await;
    // Node 12 stays cancelled, so the root does too.
    ledger.retry(harness.job, &RetryParams::only([11])).await.unwrap();
    let reduce = harness.summary().await.reduce;
    assert_eq!((reduce.retrying, reduce.waiting, reduce.cancelled), (1, 0, 2));
    harness.check().await;
    assert_eq!(harness.succeed_level().await, JobState::Failed);
    let error = "1 of 4 reduce nodes were cancelled";
    assert_eq!(harness.summary().await.error.as_deref(), Some(error));
    harness.check().await;
}
