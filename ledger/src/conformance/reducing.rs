//! The levels of a reduce. With 10 subtasks and a fan-in of 4: nodes 10, 11 and 12, and the root 13.

use std::sync::Arc;

use longshore_protocol::Counts;
use longshore_protocol::state::JobState;

use super::play::{Play, again, failed, ok, shape};
use crate::Ledger;
use crate::{ErrorsParams, ResultsParams, RetryParams};

async fn ten_by_four(ledger: &Arc<dyn Ledger>) -> Play {
    Play::with(ledger, 10, |a| a.fan_in = Some(4)).await
}

pub(super) async fn the_tree_is_worked_off_level_by_level(ledger: Arc<dyn Ledger>) {
    let play = ten_by_four(&ledger).await;
    let held = play.take(9).await;
    play.succeed(&held).await;
    let last = play.take(9).await;
    assert_eq!(play.open(9, 9).await, [], "the tree waits for its leaves");
    assert_eq!(play.succeed(&last).await, JobState::Reducing);
    let summary = play.summary().await;
    assert_eq!((summary.state, summary.cursor), (JobState::Reducing, 10));
    assert_eq!((summary.counts.done, summary.reduce), (10, Counts::new(4)));
    play.check().await;

    let opened = play.open(9, 2).await;
    assert_eq!(shape(&opened), [(10, 12, 1), (12, 13, 1)], "the root waits for its children");
    play.hold(&opened[0]).await;
    play.hold(&opened[1]).await;
    let reduce = play.summary().await.reduce;
    assert_eq!((reduce.waiting, reduce.running), (1, 3));
    play.check().await;
    assert_eq!(play.succeed(&opened[1]).await, JobState::Reducing);
    assert_eq!(
        play.commit(opened[0].chunk, 10, vec![ok(1), again_now()]).await,
        JobState::Reducing
    );
    let retried = play.open(9, 9).await;
    assert_eq!(shape(&retried), [(11, 12, 1)]);
    play.hold(&retried[0]).await;
    play.check().await;
    assert_eq!(play.succeed(&retried[0]).await, JobState::Reducing);

    let root = play.take(9).await;
    assert_eq!((root.from, root.to), (13, 14));
    play.check().await;
    let result = super::play::ok_lines(13, 14);
    assert_eq!(play.commit(root.chunk, 13, vec![result]).await, JobState::Succeeded);
    let summary = play.summary().await;
    assert_eq!((summary.reduce.done, summary.counts.done, summary.attempts), (4, 10, 15));
    let page = ledger.results(play.job, &ResultsParams::new(13..14, 99)).await.unwrap();
    assert_eq!(page.runs.len(), 1);
    assert_eq!(page.runs[0].lines, "13\n");
    play.check().await;
}

fn again_now() -> longshore_protocol::Run {
    again(std::time::Duration::ZERO)
}

pub(super) async fn a_paused_job_goes_on_to_its_reduce_when_resumed(ledger: Arc<dyn Ledger>) {
    let play = ten_by_four(&ledger).await;
    let held = play.take(10).await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.succeed(&held).await, JobState::Paused);
    assert_eq!(play.open(9, 9).await, []);
    assert_eq!(play.summary().await.reduce, Counts::new(4));
    play.check().await;
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Reducing);
    let level = play.take(3).await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.succeed(&level).await, JobState::Paused);
    assert_eq!(ledger.resume(play.job).await.unwrap(), JobState::Reducing);
    let root = play.take(3).await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.succeed(&root).await, JobState::Succeeded);
    play.check().await;
}

pub(super) async fn failed_leaves_give_up_the_tree_until_a_retry(ledger: Arc<dyn Ledger>) {
    let play = ten_by_four(&ledger).await;
    let held = play.take(10).await;
    let state = play.commit(held.chunk, 0, vec![ok(4), failed("no"), ok(5)]).await;
    assert_eq!(state, JobState::Failed);
    let reduce = play.summary().await.reduce;
    assert_eq!((reduce.cancelled, reduce.waiting), (4, 0));
    play.check().await;
    // Nothing but the failed leaf is missing, so the tree waits again with it, whichever way it is retried.
    ledger.retry(play.job, &RetryParams::only([4])).await.unwrap();
    assert_eq!(play.summary().await.reduce, Counts::new(4));
    play.check().await;
    let held = play.take(1).await;
    assert_eq!(play.commit(held.chunk, 4, vec![failed("again")]).await, JobState::Failed);
    assert_eq!(play.summary().await.reduce.cancelled, 4);
    ledger.retry(play.job, &RetryParams::all()).await.unwrap();
    assert_eq!(play.summary().await.reduce, Counts::new(4));
    play.check().await;
    assert_eq!(play.succeed_level().await, JobState::Reducing);
    assert_eq!(play.succeed_level().await, JobState::Reducing);
    assert_eq!(play.succeed_level().await, JobState::Succeeded);
    play.check().await;
}

pub(super) async fn a_failed_reduce_node_can_be_retried(ledger: Arc<dyn Ledger>) {
    let play = ten_by_four(&ledger).await;
    play.succeed_level().await;
    let held = play.take(3).await;
    let state = play.commit(held.chunk, 10, vec![ok(1), failed("no"), ok(1)]).await;
    assert_eq!(state, JobState::Failed);
    let summary = play.summary().await;
    assert_eq!(summary.error.as_deref(), Some("1 of 4 reduce nodes failed"));
    let reduce = summary.reduce;
    assert_eq!((reduce.done, reduce.failed, reduce.cancelled), (2, 1, 1));
    let errors = ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!(errors.iter().map(|entry| entry.index).collect::<Vec<_>>(), [11]);
    play.check().await;

    assert_eq!(ledger.retry(play.job, &RetryParams::all()).await.unwrap(), JobState::Running);
    let summary = play.summary().await;
    assert_eq!((summary.reduce.waiting, summary.reduce.done, summary.cursor), (2, 2, 10));
    assert_eq!(ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    play.check().await;
    let held = play.take(9).await;
    assert_eq!((held.from, held.to), (11, 12));
    assert_eq!(play.commit(held.chunk, 11, vec![failed("again")]).await, JobState::Failed);
    assert_eq!(ledger.retry(play.job, &RetryParams::only([11])).await.unwrap(), JobState::Running);
    let reduce = play.summary().await.reduce;
    assert_eq!((reduce.waiting, reduce.retrying, reduce.cancelled), (1, 1, 0));
    play.check().await;
    assert_eq!(play.succeed_level().await, JobState::Reducing);
    assert_eq!(play.succeed_level().await, JobState::Succeeded);
    play.check().await;
}

pub(super) async fn a_limit_of_failures_holds_in_the_reduce_too(ledger: Arc<dyn Ledger>) {
    let play = Play::with(&ledger, 10, |a| {
        a.fan_in = Some(4);
        a.stop_after_failures = Some(1);
    })
    .await;
    play.succeed_level().await;
    let held = play.take(3).await;
    let state = play.commit(held.chunk, 10, vec![ok(1), failed("no")]).await;
    assert_eq!(state, JobState::Failed);
    let summary = play.summary().await;
    let error = "1 of 4 reduce nodes failed; stop_after_failures is 1";
    assert_eq!(summary.error.as_deref(), Some(error));
    let reduce = summary.reduce;
    assert_eq!((reduce.done, reduce.failed, reduce.cancelled), (1, 1, 2));
    play.check().await;
    // Node 12 stays cancelled, so the root does too.
    ledger.retry(play.job, &RetryParams::only([11])).await.unwrap();
    let reduce = play.summary().await.reduce;
    assert_eq!((reduce.retrying, reduce.waiting, reduce.cancelled), (1, 0, 2));
    play.check().await;
    assert_eq!(play.succeed_level().await, JobState::Failed);
    let error = "1 of 4 reduce nodes were cancelled";
    assert_eq!(play.summary().await.error.as_deref(), Some(error));
    play.check().await;
}
