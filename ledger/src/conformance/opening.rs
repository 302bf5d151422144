//! Open and sweep: which chunks are opened in which order, and which are published again.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{ChunkId, ChunkMessage};

use super::harness::{Harness, NEVER, again, failed, job_id, later, ok, shape};
use crate::Ledger;
use crate::op::{Claim, OpenParams, RetryParams, SweepParams};

cases! {
    chunks_are_opened_in_order_up_to_the_end
    max_parallel_counts_open_chunks
    due_retries_come_first_grouped_by_attempt
    retries_that_are_not_due_wait
    no_chunk_of_a_paused_or_ended_job_is_opened
    done_subtasks_are_skipped
    the_sweep_publishes_chunks_that_are_due
    the_sweep_skips_chunks_that_are_not_due
    a_sweep_that_suspects_loss_publishes_chunks_queued_for_that_time
    a_paused_job_is_swept_without_messages
}

pub(super) async fn chunks_are_opened_in_order_up_to_the_end(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    assert_eq!(harness.open(0, 3).await, []);
    assert_eq!(harness.open(3, 0).await, []);
    let opened = harness.open(2, 3).await;
    assert_eq!(shape(&opened), [(0, 3, 1), (3, 6, 1)]);
    let ids: Vec<ChunkId> = opened.iter().map(|message| message.chunk).collect();
    assert_eq!(ids, [ChunkId(1), ChunkId(2)]);
    assert!(opened.iter().all(|m| m.job == harness.job && m.v == ChunkMessage::VERSION));
    let summary = harness.summary().await;
    assert_eq!((summary.counts.waiting, summary.counts.queued, summary.cursor), (2, 6, 6));
    assert_eq!((summary.queued_chunks, summary.running_chunks), (2, 0));
    assert_eq!(shape(&harness.open(u32::MAX, u64::MAX).await), [(6, 8, 1)]);
    assert_eq!(harness.open(1, 1).await, [], "nothing is left");
    assert_eq!(harness.summary().await.cursor, 8);
    harness.check().await;
}

pub(super) async fn max_parallel_counts_open_chunks(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 20, |a| a.max_parallel = Some(3)).await;
    let first = harness.take(4).await;
    assert_eq!(harness.open(5, 4).await.len(), 2, "one runs, two fit beside it");
    assert_eq!(harness.open(5, 4).await, []);
    harness.commit(first.chunk, 0, vec![ok(3)]).await;
    assert_eq!(harness.open(5, 4).await, [], "it is still open");
    harness.commit(first.chunk, 3, vec![again(Duration::ZERO)]).await;
    assert_eq!(shape(&harness.open(5, 4).await), [(3, 4, 1)], "one fits, and retries come first");
    harness.check().await;
}

pub(super) async fn due_retries_come_first_grouped_by_attempt(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 12).await;
    let held = harness.take(9).await;
    let now = || again(Duration::ZERO);
    let not_now = || later(Duration::ZERO);
    // 0 1 2 and 4 once more, 3 and 5 deferred, 6 not for hours, 7 done, 8 once more.
    let runs = vec![now(), now(), now(), not_now(), now(), not_now(), again(NEVER), ok(1), now()];
    harness.commit(held.chunk, 0, runs).await;
    let summary = harness.summary().await;
    assert_eq!((summary.counts.retrying, summary.counts.waiting, summary.counts.done), (8, 3, 1));
    assert!(summary.next_retry_at.is_some_and(|due| due <= summary.submitted_at.plus(NEVER)));
    harness.check().await;

    // Attempt 1 before attempt 2; runs cut at 2; 0..2 finds a chunk, the rest stays.
    let opened = harness.open(3, 2).await;
    assert_eq!(shape(&opened), [(3, 4, 1), (5, 6, 1), (0, 2, 1)]);
    let grant = harness.hold(&opened[0]).await;
    assert_eq!((grant.from, grant.to, grant.attempt, grant.deferrals), (3, 4, 1, 1));
    let grant = harness.hold(&opened[2]).await;
    assert_eq!((grant.from, grant.to, grant.attempt, grant.deferrals), (0, 2, 2, 0));
    harness.check().await;

    let opened = harness.open(9, 5).await;
    assert_eq!(shape(&opened), [(2, 3, 1), (4, 5, 1), (8, 9, 1), (9, 12, 1)]);
    assert_eq!(harness.summary().await.counts.retrying, 1, "6 is not due");
    harness.check().await;
}

pub(super) async fn retries_that_are_not_due_wait(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 2).await;
    let held = harness.take(2).await;
    let before = ledger.now().await.unwrap();
    harness.commit(held.chunk, 0, vec![again(NEVER), later(NEVER * 2)]).await;
    assert_eq!(harness.open(9, 9).await, []);
    let due = harness.summary().await.next_retry_at.expect("two wait");
    assert!(due >= before.plus(NEVER) && due < before.plus(NEVER * 2), "the sooner of the two");
    harness.check().await;
}

pub(super) async fn no_chunk_of_a_paused_or_ended_job_is_opened(ledger: Arc<dyn Ledger>) {
    let absent = OpenParams::new(1, 1, NEVER);
    assert_eq!(ledger.open(job_id(9), &absent).await.unwrap(), []);
    let harness = Harness::of(&ledger, 4).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.open(1, 1).await, []);
    ledger.resume(harness.job).await.unwrap();
    assert_eq!(harness.open(1, 1).await.len(), 1);
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(harness.open(1, 1).await, []);
    harness.check().await;
}

pub(super) async fn done_subtasks_are_skipped(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 10).await;
    let held = harness.take(8).await;
    // 0 and 1 done, 2 failed, 3 done, 4 and 5 retried, 6 done, 7 still held when the job fails.
    let never = || again(NEVER);
    let runs = vec![ok(2), failed("no"), ok(1), never(), never(), ok(1)];
    harness.commit(held.chunk, 0, runs).await;
    ledger.fail(harness.job, "deadline").await.unwrap();
    ledger.retry(harness.job, &RetryParams::all()).await.unwrap();
    let summary = harness.summary().await;
    assert_eq!((summary.counts.waiting, summary.counts.done, summary.cursor), (6, 4, 0));
    assert_eq!(shape(&harness.open(1, 9).await), [(2, 3, 1)]);
    assert_eq!(harness.summary().await.cursor, 3);
    assert_eq!(shape(&harness.open(2, 3).await), [(4, 6, 1), (7, 10, 1)]);
    assert_eq!(harness.open(1, 1).await, []);
    assert_eq!(harness.summary().await.counts.waiting, 0);
    harness.check().await;
}

pub(super) async fn the_sweep_publishes_chunks_that_are_due(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 20).await;
    let opened = harness.open_within(4, 2, Duration::ZERO).await;
    harness.open(1, 2).await;
    harness.hold(&opened[1]).await;
    assert_eq!(harness.sweep(0, NEVER).await, []);
    assert_eq!(harness.sweep(2, NEVER).await, [(0, 2, 1), (4, 6, 1)], "in order, but for the held");
    assert_eq!(harness.sweep(9, NEVER).await, [(6, 8, 1)], "each only once within NEVER");
    assert_eq!(harness.sweep(9, NEVER).await, []);
    // A claim of a chunk that was published again is a claim like any other.
    assert!(matches!(harness.claim(1, 1, 1, "b").await, Claim::Granted(_)));
    harness.check().await;
}

pub(super) async fn the_sweep_skips_chunks_that_are_not_due(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.sweep(job_id(9), &SweepParams::new(9, NEVER)).await.unwrap(), None);
    let harness = Harness::of(&ledger, 4).await;
    harness.open(2, 2).await;
    assert_eq!(harness.sweep(9, Duration::ZERO).await, []);
    let swept =
        ledger.sweep(harness.job, &SweepParams::new(9, NEVER)).await.unwrap().expect("known");
    assert_eq!(swept.summary.counts, harness.summary().await.counts);
    assert_eq!(swept.summary.queued_chunks, 2);
    harness.check().await;
}

pub(super) async fn a_sweep_that_suspects_loss_publishes_chunks_queued_for_that_time(
    ledger: Arc<dyn Ledger>,
) {
    let harness = Harness::of(&ledger, 20).await;
    let opened = harness.open(3, 2).await;
    harness.hold(&opened[1]).await;
    let sweep = async |suspect_lost| {
        let swept = ledger
            .sweep(harness.job, &SweepParams { suspect_lost, ..SweepParams::new(9, NEVER) })
            .await
            .unwrap();
        shape(&swept.expect("known").publish)
    };
    assert_eq!(sweep(Some(NEVER)).await, [], "nothing has been queued that long");
    assert_eq!(sweep(Some(Duration::ZERO)).await, [(0, 2, 1), (4, 6, 1)], "but for the held");
    assert_eq!(sweep(None).await, []);
    assert_eq!(
        sweep(Some(Duration::ZERO)).await,
        [(0, 2, 1), (4, 6, 1)],
        "a repeat publishes them again"
    );
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(sweep(Some(Duration::ZERO)).await, [], "a paused job publishes nothing");
    harness.check().await;
}

pub(super) async fn a_paused_job_is_swept_without_messages(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.open_within(1, 2, Duration::ZERO).await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.sweep(9, NEVER).await, []);
    ledger.resume(harness.job).await.unwrap();
    assert_eq!(harness.sweep(9, NEVER).await, [(0, 2, 1)]);
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(harness.sweep(9, NEVER).await, []);
    harness.check().await;
}
