//! What `open` and `sweep` give to be published.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{ChunkId, ChunkMessage};

use super::play::{NEVER, Play, again, failed, job_id, later, ok, shape};
use crate::Ledger;
use crate::op::{Claim, OpenParams, RetryParams, SweepParams};

pub(super) async fn chunks_are_opened_in_order_up_to_the_end(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 8).await;
    assert_eq!(play.open(0, 3).await, []);
    assert_eq!(play.open(3, 0).await, []);
    let opened = play.open(2, 3).await;
    assert_eq!(shape(&opened), [(0, 3, 1), (3, 6, 1)]);
    let ids: Vec<ChunkId> = opened.iter().map(|message| message.chunk).collect();
    assert_eq!(ids, [ChunkId(1), ChunkId(2)]);
    assert!(opened.iter().all(|m| m.job == play.job && m.v == ChunkMessage::VERSION));
    let summary = play.summary().await;
    assert_eq!((summary.counts.waiting, summary.counts.queued, summary.cursor), (2, 6, 6));
    assert_eq!((summary.queued_chunks, summary.running_chunks), (2, 0));
    assert_eq!(shape(&play.open(u32::MAX, u64::MAX).await), [(6, 8, 1)]);
    assert_eq!(play.open(1, 1).await, [], "nothing is left");
    assert_eq!(play.summary().await.cursor, 8);
    play.check().await;
}

pub(super) async fn max_parallel_counts_open_chunks(ledger: Arc<dyn Ledger>) {
    let play = Play::with(&ledger, 20, |a| a.max_parallel = Some(3)).await;
    let first = play.take(4).await;
    assert_eq!(play.open(5, 4).await.len(), 2, "one runs, two fit beside it");
    assert_eq!(play.open(5, 4).await, []);
    play.commit(first.chunk, 0, vec![ok(3)]).await;
    assert_eq!(play.open(5, 4).await, [], "it is still open");
    play.commit(first.chunk, 3, vec![again(Duration::ZERO)]).await;
    assert_eq!(shape(&play.open(5, 4).await), [(3, 4, 1)], "one fits, and retries come first");
    play.check().await;
}

pub(super) async fn due_retries_come_first_grouped_by_attempt(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 12).await;
    let held = play.take(9).await;
    let now = || again(Duration::ZERO);
    let not_now = || later(Duration::ZERO);
    // 0 1 2 and 4 once more, 3 and 5 deferred, 6 not for hours, 7 done, 8 once more.
    let runs = vec![now(), now(), now(), not_now(), now(), not_now(), again(NEVER), ok(1), now()];
    play.commit(held.chunk, 0, runs).await;
    let summary = play.summary().await;
    assert_eq!((summary.counts.retrying, summary.counts.waiting, summary.counts.done), (8, 3, 1));
    assert!(summary.next_retry_at.is_some_and(|due| due <= summary.submitted_at.plus(NEVER)));
    play.check().await;

    // Attempt 1 before attempt 2; stretches cut at 2; 0..2 finds a chunk, the rest stays.
    let opened = play.open(3, 2).await;
    assert_eq!(shape(&opened), [(3, 4, 1), (5, 6, 1), (0, 2, 1)]);
    let grant = play.hold(&opened[0]).await;
    assert_eq!((grant.from, grant.to, grant.attempt, grant.deferrals), (3, 4, 1, 1));
    let grant = play.hold(&opened[2]).await;
    assert_eq!((grant.from, grant.to, grant.attempt, grant.deferrals), (0, 2, 2, 0));
    play.check().await;

    let opened = play.open(9, 5).await;
    assert_eq!(shape(&opened), [(2, 3, 1), (4, 5, 1), (8, 9, 1), (9, 12, 1)]);
    assert_eq!(play.summary().await.counts.retrying, 1, "6 is not due");
    play.check().await;
}

pub(super) async fn retries_that_are_not_due_wait(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 2).await;
    let held = play.take(2).await;
    let before = ledger.now().await.unwrap();
    play.commit(held.chunk, 0, vec![again(NEVER), later(NEVER * 2)]).await;
    assert_eq!(play.open(9, 9).await, []);
    let due = play.summary().await.next_retry_at.expect("two wait");
    assert!(due >= before.plus(NEVER) && due < before.plus(NEVER * 2), "the sooner of the two");
    play.check().await;
}

pub(super) async fn nothing_is_opened_of_a_job_that_does_not_feed(ledger: Arc<dyn Ledger>) {
    let absent = OpenParams::new(1, 1, NEVER);
    assert_eq!(ledger.open(job_id(9), &absent).await.unwrap(), []);
    let play = Play::of(&ledger, 4).await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.open(1, 1).await, []);
    ledger.resume(play.job).await.unwrap();
    assert_eq!(play.open(1, 1).await.len(), 1);
    ledger.cancel(play.job).await.unwrap();
    assert_eq!(play.open(1, 1).await, []);
    play.check().await;
}

pub(super) async fn what_is_done_is_stepped_over(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 10).await;
    let held = play.take(8).await;
    // 0 and 1 done, 2 failed, 3 done, 4 and 5 retried, 6 done, 7 still held when the job fails.
    let never = || again(NEVER);
    let runs = vec![ok(2), failed("no"), ok(1), never(), never(), ok(1)];
    play.commit(held.chunk, 0, runs).await;
    ledger.fail(play.job, "deadline").await.unwrap();
    ledger.retry(play.job, &RetryParams::all()).await.unwrap();
    let summary = play.summary().await;
    assert_eq!((summary.counts.waiting, summary.counts.done, summary.cursor), (6, 4, 0));
    assert_eq!(shape(&play.open(1, 9).await), [(2, 3, 1)]);
    assert_eq!(play.summary().await.cursor, 3);
    assert_eq!(shape(&play.open(2, 3).await), [(4, 6, 1), (7, 10, 1)]);
    assert_eq!(play.open(1, 1).await, []);
    assert_eq!(play.summary().await.counts.waiting, 0);
    play.check().await;
}

pub(super) async fn the_sweep_publishes_what_is_due(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 20).await;
    let opened = play.open_within(4, 2, Duration::ZERO).await;
    play.open(1, 2).await;
    play.hold(&opened[1]).await;
    assert_eq!(play.sweep(0, NEVER).await, []);
    assert_eq!(play.sweep(2, NEVER).await, [(0, 2, 1), (4, 6, 1)], "in order, but for the held");
    assert_eq!(play.sweep(9, NEVER).await, [(6, 8, 1)], "each only once within NEVER");
    assert_eq!(play.sweep(9, NEVER).await, []);
    // A claim of a chunk that was published again is a claim like any other.
    assert!(matches!(play.claim(1, 1, 1, "b").await, Claim::Granted(_)));
    play.check().await;
}

pub(super) async fn the_sweep_leaves_alone_what_is_not_due(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.sweep(job_id(9), &SweepParams::new(9, NEVER)).await.unwrap(), None);
    let play = Play::of(&ledger, 4).await;
    play.open(2, 2).await;
    assert_eq!(play.sweep(9, Duration::ZERO).await, []);
    let swept = ledger.sweep(play.job, &SweepParams::new(9, NEVER)).await.unwrap().expect("known");
    assert_eq!(swept.summary.counts, play.summary().await.counts);
    assert_eq!(swept.summary.queued_chunks, 2);
    play.check().await;
}

pub(super) async fn in_doubt_the_sweep_publishes_what_has_been_queued_for_so_long(
    ledger: Arc<dyn Ledger>,
) {
    let play = Play::of(&ledger, 20).await;
    let opened = play.open(3, 2).await;
    play.hold(&opened[1]).await;
    let sweep = async |doubt| {
        let swept = ledger
            .sweep(play.job, &SweepParams { suspect_lost: doubt, ..SweepParams::new(9, NEVER) })
            .await
            .unwrap();
        shape(&swept.expect("known").publish)
    };
    assert_eq!(sweep(Some(NEVER)).await, [], "nothing has been queued for so long");
    assert_eq!(sweep(Some(Duration::ZERO)).await, [(0, 2, 1), (4, 6, 1)], "but for the held");
    assert_eq!(sweep(None).await, []);
    assert_eq!(sweep(Some(Duration::ZERO)).await, [(0, 2, 1), (4, 6, 1)], "doubt knows no haste");
    ledger.pause(play.job).await.unwrap();
    assert_eq!(sweep(Some(Duration::ZERO)).await, [], "a paused job publishes nothing");
    play.check().await;
}

pub(super) async fn a_paused_job_is_swept_without_messages(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 4).await;
    play.open_within(1, 2, Duration::ZERO).await;
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.sweep(9, NEVER).await, []);
    ledger.resume(play.job).await.unwrap();
    assert_eq!(play.sweep(9, NEVER).await, [(0, 2, 1)]);
    ledger.cancel(play.job).await.unwrap();
    assert_eq!(play.sweep(9, NEVER).await, []);
    play.check().await;
}
