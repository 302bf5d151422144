//! Chunks that kill their nodes are cut and isolated until the guilty subtask alone fails.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, Epoch};

use super::harness::{Harness, NEVER, failed, lost, node, ok};
use crate::Ledger;
use crate::op::{Claim, ErrorsParams, Grant, LossCause, RetryParams, RevokeParams, Revoked};

cases! {
    a_chunk_that_killed_two_nodes_is_cut
    a_subtask_that_kills_its_nodes_alone_fails
    a_node_that_leaves_counts_as_no_crash
    a_node_that_dies_is_counted_once
    a_node_holds_one_suspect_of_a_job_at_a_time
    cut_chunks_keep_within_max_parallel
    a_poisonous_subtask_ends_the_job_as_any_failure_does
    a_poisonous_reduce_node_fails
}

impl Harness {
    async fn granted(&self, chunk: u64, epoch: u64, shown: u64, by: &str) -> Grant {
        match self.claim(chunk, epoch, shown, by).await {
            Claim::Granted(grant) => grant,
            refused => panic!("chunk {chunk} of epoch {epoch} was refused: {refused:?}"),
        }
    }

    /// (chunk, from, to, epoch) of the chunks that are queued again.
    async fn revoked(&self, by: &str, died: bool) -> Vec<(u64, u64, u64, u64)> {
        let revoked = self
            .ledger
            .revoke(self.job, &RevokeParams::new(node(by), lost(died)))
            .await
            .expect("revoke");
        let told = |it: &Revoked| (it.chunk.0, it.from, it.to, it.epoch.0);
        revoked.iter().map(told).collect()
    }

    /// One node after the other, named after the epoch, claims the chunk and dies.
    async fn crash(&self, chunk: u64, epochs: std::ops::Range<u64>) -> Vec<(u64, u64, u64, u64)> {
        let mut last = Vec::new();
        for epoch in epochs {
            let by = format!("n{chunk}.{epoch}");
            self.granted(chunk, epoch, 1_000 * chunk + epoch, &by).await;
            last = self.revoked(&by, true).await;
            self.check().await;
        }
        last
    }
}

pub(super) async fn a_chunk_that_killed_two_nodes_is_cut(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 30).await;
    harness.open(2, 22).await;
    assert_eq!(harness.crash(1, 1..2).await, [(1, 0, 22, 2)], "one death does not make a suspect");
    // Subtasks that were settled before the second death are not suspected.
    harness.granted(1, 2, 7, "n").await;
    harness.try_commit(1, 7, 0, vec![ok(2)]).await.unwrap();
    let parts = harness.revoked("n", true).await;
    let expected = [(1, 2, 3, 3), (3, 3, 10, 3), (4, 10, 17, 3), (5, 17, 22, 3)];
    assert_eq!(parts, expected);
    let summary = harness.summary().await;
    assert_eq!((summary.counts.done, summary.counts.queued, summary.queued_chunks), (2, 28, 5));
    assert_eq!((summary.lost, summary.crashes, summary.reissued), (42, 2, 5));
    harness.check().await;

    // The parts inherit attempt, epoch and evidence.
    let grant = harness.granted(3, 3, 8, "m").await;
    assert_eq!((grant.from, grant.to, grant.attempt, grant.crashes), (3, 10, 1, 2));
    assert!(grant.is_suspect());
    let parts = harness.revoked("m", true).await;
    assert_eq!(parts, [(3, 3, 4, 4), (6, 4, 7, 4), (7, 7, 10, 4)], "a third death cuts again");
    let grant = harness.granted(2, 1, 9, "m").await;
    assert!(!grant.is_suspect(), "its neighbour was not near");
    harness.check().await;
}

pub(super) async fn a_subtask_that_kills_its_nodes_alone_fails(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.open(4, 1).await;
    let before = harness.summary().await.submitted_at;
    assert_eq!(harness.crash(2, 1..5).await, [(2, 1, 2, 5)], "the first two may have had company");
    assert_eq!(harness.summary().await.counts.failed, 0);
    assert_eq!(harness.crash(2, 5..6).await, []);
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.counts.failed), (JobState::Running, 1));
    assert_eq!((summary.attempts, summary.crashes, summary.lost, summary.reissued), (0, 5, 4, 4));
    let why = "3 nodes died running it alone (n2.3, n2.4, n2.5), 5 in all; given up";
    assert_eq!(summary.last_error, Some(format!("subtask 1: {why}")));

    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    let [entry] = &errors[..] else { panic!("one failed: {errors:?}") };
    assert_eq!((entry.index, entry.attempts, entry.node.as_str()), (1, 1, "n2.5"));
    assert_eq!(entry.error, why);
    let evidence: Vec<_> =
        entry.deaths.iter().map(|death| (death.node.as_str(), death.among)).collect();
    assert_eq!(evidence, [("n2.1", 1), ("n2.2", 1), ("n2.3", 1), ("n2.4", 1), ("n2.5", 1)]);
    assert!(entry.deaths.iter().all(|death| before <= death.at && death.at <= entry.at));

    // All other subtasks are done; a retry drops the evidence against this one.
    for chunk in [1, 3, 4] {
        harness.granted(chunk, 1, chunk, "a").await;
        harness.commit(ChunkId(chunk), chunk - 1, vec![ok(1)]).await;
    }
    let summary = harness.summary().await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Failed, 3));
    assert_eq!(summary.error.as_deref(), Some("1 of 4 subtasks failed"));
    ledger.retry(harness.job, &RetryParams::all()).await.unwrap();
    let opened = harness.open(1, 1).await;
    assert_eq!(harness.hold(&opened[0]).await.crashes, 0);
    assert_eq!(harness.succeed(&opened[0]).await, JobState::Succeeded);
    harness.check().await;
}

pub(super) async fn a_node_that_leaves_counts_as_no_crash(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    harness.open(1, 8).await;
    for epoch in 1..9 {
        assert_eq!(harness.granted(1, epoch, epoch, "n").await.crashes, 0);
        assert_eq!(harness.revoked("n", false).await, [(1, 0, 8, epoch + 1)]);
    }
    let summary = harness.summary().await;
    assert_eq!((summary.recoveries, summary.crashes, summary.lost), (8, 0, 64));
    // A node that leaves after others died does not remove the suspicion either.
    harness.crash(1, 9..10).await;
    assert_eq!(harness.granted(1, 10, 10, "n").await.crashes, 1);
    harness.revoked("n", false).await;
    assert_eq!(harness.granted(1, 11, 11, "n").await.crashes, 1);
    harness.check().await;
}

pub(super) async fn a_node_that_dies_is_counted_once(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    harness.open(1, 8).await;
    // A claim that a dead node had sent may be executed after its chunks were revoked.
    for epoch in 1..5 {
        harness.granted(1, epoch, epoch, "late").await;
        assert_eq!(harness.revoked("late", true).await, [(1, 0, 8, epoch + 1)]);
    }
    assert_eq!(harness.granted(1, 5, 5, "n").await.crashes, 1);
    harness.check().await;
}

pub(super) async fn a_node_holds_one_suspect_of_a_job_at_a_time(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 9).await;
    harness.open(4, 2).await;
    assert_eq!(harness.crash(1, 1..3).await, [(1, 0, 1, 3), (5, 1, 2, 3)]);
    assert_eq!(harness.crash(2, 1..3).await, [(2, 2, 3, 3), (6, 3, 4, 3)]);
    assert_eq!(harness.sweep(9, NEVER).await.len(), 4, "all are published");

    harness.granted(1, 3, 1, "a").await;
    for chunk in [2, 5, 6] {
        assert_eq!(harness.claim(chunk, 3, 9, "a").await, Claim::Gone, "chunk {chunk}");
    }
    assert!(matches!(harness.claim(1, 3, 9, "a").await, Claim::Stale { .. }));
    harness.granted(1, 3, 1, "a").await;
    harness.granted(3, 1, 3, "a").await;
    harness.granted(2, 3, 2, "b").await;
    assert_eq!(harness.claim(5, 3, 9, "b").await, Claim::Gone);
    assert_eq!(harness.summary().await.queued_chunks, 3);
    assert_eq!(harness.sweep(9, NEVER).await, [], "not while nothing changes");
    // Refused chunks are due when a suspect is closed, released or revoked.
    harness.commit(ChunkId(3), 4, vec![ok(2)]).await;
    assert_eq!(harness.sweep(9, NEVER).await, [], "that was none");
    harness.commit(ChunkId(1), 0, vec![ok(1)]).await;
    assert_eq!(harness.sweep(9, NEVER).await, [(1, 2, 3), (3, 4, 3)]);
    harness.granted(5, 3, 5, "a").await;
    harness.release(2, 2).await;
    assert_eq!(harness.sweep(9, NEVER).await, [(2, 3, 4), (3, 4, 3)]);
    harness.granted(6, 3, 6, "b").await;
    assert_eq!(harness.claim(2, 4, 2, "a").await, Claim::Gone);
    harness.revoked("a", false).await;
    assert_eq!(harness.sweep(9, NEVER).await, [(2, 3, 4), (1, 2, 4)]);
    harness.granted(2, 4, 2, "a").await;
    harness.check().await;
}

pub(super) async fn cut_chunks_keep_within_max_parallel(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 9, |a| a.max_parallel = Some(2)).await;
    harness.open(2, 3).await;
    assert_eq!(harness.crash(1, 1..3).await, [(1, 0, 1, 3), (3, 1, 2, 3), (4, 2, 3, 3)]);
    assert_eq!(harness.open(1, 1).await, []);
    assert_eq!(harness.sweep(9, NEVER).await.len(), 3);
    harness.granted(3, 3, 3, "a").await;
    harness.granted(1, 3, 1, "b").await;
    assert_eq!(harness.claim(2, 1, 2, "c").await, Claim::Gone, "two run already");
    assert_eq!(harness.claim(4, 3, 4, "c").await, Claim::Gone);
    harness.granted(3, 3, 3, "a").await;
    assert_eq!(harness.sweep(9, NEVER).await, []);
    harness.commit(ChunkId(1), 0, vec![ok(1)]).await;
    assert_eq!(harness.sweep(9, NEVER).await, [(3, 6, 1), (2, 3, 3)], "there is room");
    harness.granted(2, 1, 2, "c").await;
    assert_eq!(harness.claim(4, 3, 4, "d").await, Claim::Gone);
    harness.release(2, 2).await;
    assert_eq!(harness.sweep(9, NEVER).await, [(3, 6, 2), (2, 3, 3)]);
    harness.granted(4, 3, 4, "c").await;
    harness.commit(ChunkId(3), 1, vec![ok(1)]).await;
    harness.commit(ChunkId(4), 2, vec![ok(1)]).await;
    let opened = harness.open(9, 9).await;
    assert_eq!(opened.len(), 1, "all is as before");
    harness.granted(2, 2, 2, "c").await;
    harness.hold(&opened[0]).await;
    harness.check().await;
}

pub(super) async fn a_poisonous_subtask_ends_the_job_as_any_failure_does(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 4, |a| a.stop_after_failures = Some(2)).await;
    harness.open(3, 1).await;
    harness.granted(1, 1, 1, "a").await;
    harness.commit(ChunkId(1), 0, vec![failed("no")]).await;
    harness.crash(2, 1..5).await;
    ledger.pause(harness.job).await.unwrap();
    ledger.resume(harness.job).await.unwrap();
    // The node held something innocent too; with the job's end there is nothing to do again.
    harness.granted(2, 5, 2, "last").await;
    harness.granted(3, 1, 3, "last").await;
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.revoked("last", true).await, []);
    let summary = harness.summary().await;
    assert_eq!(summary.state, JobState::Failed);
    let error = "2 of 4 subtasks failed; stop_after_failures is 2";
    assert_eq!(summary.error.as_deref(), Some(error));
    assert_eq!((summary.counts.failed, summary.counts.cancelled), (2, 2));
    assert!(summary.finished_at.is_some());
    let newest = &ledger.recoveries(harness.job, 1).await.unwrap()[0];
    assert_eq!((&newest.given_up[..], newest.chunks), (&[1][..], 1));
    harness.check().await;

    let again = ledger
        .revoke(harness.job, &RevokeParams::new(node("last"), LossCause::Vanished))
        .await
        .unwrap();
    assert_eq!(again, [], "a repeat");
    assert_eq!(harness.summary().await, summary);
}

pub(super) async fn a_poisonous_reduce_node_fails(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 4, |a| a.fan_in = Some(2)).await;
    harness.succeed_level().await;
    let opened = harness.open(1, 2).await;
    let chunk = opened[0].chunk.0;
    assert_eq!((opened[0].from, opened[0].to, opened[0].epoch), (4, 6, Epoch(1)));
    let parts = harness.crash(chunk, 1..3).await;
    assert_eq!(parts, [(chunk, 4, 5, 3), (chunk + 1, 5, 6, 3)]);
    harness.granted(chunk, 3, chunk, "a").await;
    harness.commit(ChunkId(chunk), 4, vec![ok(1)]).await;
    assert_eq!(harness.crash(chunk + 1, 3..6).await, [], "that was the last of the level");
    let summary = harness.summary().await;
    assert_eq!(summary.state, JobState::Failed);
    assert_eq!(summary.error.as_deref(), Some("1 of 3 reduce nodes failed"));
    assert!(summary.last_error.is_some_and(|error| error.starts_with("reduce node 5: 3 nodes")));
    assert_eq!((summary.reduce.done, summary.reduce.failed, summary.reduce.cancelled), (1, 1, 1));
    assert_eq!(summary.busy, Duration::from_millis(30));
    harness.check().await;
}
