//! Claim, release and revoke: which node holds a chunk, and what becomes of the rest.

use std::sync::Arc;

use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, Epoch, JobSummary, Timestamp};

use super::harness::{Harness, NEVER, again, await_that, job_id, node, ok, token};
use crate::Ledger;
use crate::op::{
    Claim, ClaimParams, Commit, CommitParams, Committed, Grant, LossCause, ReleaseParams, Released,
    RevokeParams, Revoked,
};

cases! {
    a_claim_is_granted_once_and_repeated_to_its_holder
    the_first_claim_starts_the_job
    a_claim_of_an_absent_chunk_is_gone
    the_rest_of_a_released_chunk_is_queued
    the_rest_of_a_released_chunk_is_cut_into_parts
    a_revoke_takes_all_chunks_of_a_node
    a_node_keeps_what_it_claimed_after_its_orphans
    holders_are_named_once_and_only_while_they_hold
    a_token_that_lost_its_hold_is_fenced
}

pub(super) async fn a_claim_is_granted_once_and_repeated_to_its_holder(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    let opened = harness.open(1, 4).await;
    let nobody = Claim::Stale { holder: None };
    assert_eq!(harness.claim(1, 2, 7, "a").await, nobody, "there was no epoch 2");
    let digest = ledger.document(harness.job).await.unwrap().expect("admitted").digest;
    let tried = Vec::new();
    let grant = Grant { from: 0, to: 4, attempt: 1, deferrals: 0, crashes: 0, digest, tried };
    assert_eq!(harness.claim(1, 1, 7, "a").await, Claim::Granted(grant.clone()));
    assert_eq!(harness.claim(1, 1, 7, "a").await, Claim::Granted(grant.clone()), "a repeat");
    assert_eq!(
        harness.claim(1, 9, 7, "a").await,
        Claim::Granted(grant.clone()),
        "by the token alone"
    );
    let held = Claim::Stale { holder: Some(node("a")) };
    assert_eq!(harness.claim(1, 1, 8, "b").await, held);
    assert_eq!(harness.claim(1, 1, 8, "a").await, held, "another token, though of the same node");
    let summary = harness.summary().await;
    assert_eq!((summary.counts.running, summary.running_chunks), (4, 1));
    // After a partial commit a repeat grants what is left; a pause does not touch it.
    assert!(matches!(
        harness.try_commit(opened[0].chunk.0, 7, 0, vec![ok(1)]).await,
        Ok(Committed::Settled { .. })
    ));
    ledger.pause(harness.job).await.unwrap();
    let rest = Grant { from: 1, ..grant };
    assert_eq!(harness.claim(1, 1, 7, "a").await, Claim::Granted(rest));
    harness.check().await;
}

pub(super) async fn the_first_claim_starts_the_job(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    let opened = harness.open(2, 1).await;
    assert_eq!(harness.summary().await.state, JobState::Queued);
    harness.hold(&opened[0]).await;
    let started = harness.summary().await;
    assert_eq!(started.state, JobState::Running);
    assert!(started.started_at.is_some_and(|at| at >= started.submitted_at));
    harness.hold(&opened[1]).await;
    assert_eq!(harness.summary().await.started_at, started.started_at);
    harness.check().await;
}

pub(super) async fn a_claim_of_an_absent_chunk_is_gone(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.open(2, 1).await;
    assert_eq!(harness.claim(3, 1, 3, "a").await, Claim::Gone, "no such chunk");
    let absent = ledger
        .claim(job_id(9), &ClaimParams::new(ChunkId(1), Epoch(1), token(1), node("a")))
        .await
        .unwrap();
    assert_eq!(absent, Claim::Gone);
    ledger.reject(job_id(9), "no").await.unwrap();
    let rejected = ledger
        .claim(job_id(9), &ClaimParams::new(ChunkId(1), Epoch(1), token(1), node("a")))
        .await
        .unwrap();
    assert_eq!(rejected, Claim::Gone);
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.claim(1, 1, 1, "a").await, Claim::Gone);
    ledger.resume(harness.job).await.unwrap();
    assert!(matches!(harness.claim(1, 1, 1, "a").await, Claim::Granted(_)));
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(harness.claim(1, 1, 1, "a").await, Claim::Gone, "its holder too");
    assert_eq!(harness.claim(2, 1, 2, "a").await, Claim::Gone);
    harness.check().await;
}

pub(super) async fn the_rest_of_a_released_chunk_is_queued(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    let held = harness.take(6).await;
    harness.commit(held.chunk, 0, vec![ok(1), again(NEVER)]).await;
    assert_eq!(harness.release(1, 99).await, Released::Fenced, "another token");
    assert_eq!(harness.release(2, 1).await, Released::Fenced, "no such chunk");
    assert_eq!(harness.release(1, 1).await, Released::Queued);
    assert_eq!(harness.release(1, 1).await, Released::Fenced, "it was released already");
    let summary = harness.summary().await;
    assert_eq!((summary.counts.queued, summary.counts.running), (4, 0));
    assert_eq!((summary.queued_chunks, summary.running_chunks, summary.lost), (1, 0, 0));
    assert_eq!(harness.sweep(9, NEVER).await, [(2, 6, 2)], "due at once, under a new epoch");
    let old = harness.claim(1, 1, 2, "b").await;
    assert_eq!(old, Claim::Stale { holder: None }, "the first message is old");
    let Claim::Granted(grant) = harness.claim(1, 2, 2, "b").await else {
        panic!("the new epoch is granted")
    };
    assert_eq!((grant.from, grant.to, grant.attempt), (2, 6, 1));
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.release(1, 2).await, Released::Queued, "a pause does not keep it");
    let absent =
        ledger.release(job_id(9), &ReleaseParams::new(ChunkId(1), token(1))).await.unwrap();
    assert_eq!(absent, Released::Fenced);
    harness.check().await;
}

pub(super) async fn the_rest_of_a_released_chunk_is_cut_into_parts(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 200).await;
    let held = harness.take(12).await;
    harness.commit(held.chunk, 0, vec![ok(2)]).await;
    assert_eq!(harness.release_in_parts(1, 99, 4).await, Released::Fenced, "another token");
    assert_eq!(harness.release_in_parts(1, 1, 4).await, Released::Queued);
    assert_eq!(
        harness.release_in_parts(1, 1, 4).await,
        Released::Fenced,
        "it was released already"
    );
    let summary = harness.summary().await;
    assert_eq!((summary.queued_chunks, summary.running_chunks, summary.lost), (3, 0, 0));
    assert_eq!((summary.counts.queued, summary.counts.running), (10, 0));
    harness.check().await;
    assert_eq!(harness.sweep(9, NEVER).await, [(2, 6, 2), (6, 10, 2), (10, 12, 2)], "due at once");
    for chunk in 1..4 {
        let claim = harness.claim(chunk, 2, 10 + chunk, "b").await;
        assert!(matches!(claim, Claim::Granted(_)), "part {chunk}: {claim:?}");
    }
    let last = harness.try_commit(3, 13, 10, vec![ok(2)]).await;
    assert_eq!(last.unwrap(), Committed::Settled { state: JobState::Running });
    let held = harness.take(188).await;
    assert_eq!(held.chunk.0, 4, "parts have numbers of their own");
    assert_eq!(harness.release_in_parts(4, 4, 1).await, Released::Queued);
    let parts = harness.sweep(99, NEVER).await;
    assert_eq!(parts.len() as u64, 188_u64.div_ceil(6), "not more than are allowed");
    assert!(parts.iter().all(|(from, to, _)| to - from == 6 || *to == 200), "{parts:?}");
    harness.check().await;
}

pub(super) async fn a_revoke_takes_all_chunks_of_a_node(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 40).await;
    harness.open(12, 2).await;
    for chunk in [11, 2, 5] {
        assert!(matches!(harness.claim(chunk, 1, chunk, "a").await, Claim::Granted(_)));
    }
    assert!(matches!(harness.claim(3, 1, 3, "b").await, Claim::Granted(_)));
    harness.commit(ChunkId(5), 8, vec![ok(1)]).await;
    assert_eq!(
        ledger
            .revoke(harness.job, &RevokeParams::new(node("c"), LossCause::Vanished))
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        ledger.revoke(job_id(9), &RevokeParams::new(node("a"), LossCause::Vanished)).await.unwrap(),
        []
    );
    ledger.pause(harness.job).await.unwrap();
    let taken = |chunk, from, to| Revoked { chunk: ChunkId(chunk), from, to, epoch: Epoch(2) };
    let expected = [taken(2, 2, 4), taken(5, 9, 10), taken(11, 20, 22)];
    assert_eq!(
        ledger
            .revoke(harness.job, &RevokeParams::new(node("a"), LossCause::Vanished))
            .await
            .unwrap(),
        expected
    );
    assert_eq!(
        ledger
            .revoke(harness.job, &RevokeParams::new(node("a"), LossCause::Vanished))
            .await
            .unwrap(),
        [],
        "a repeat"
    );
    ledger.resume(harness.job).await.unwrap();
    let summary = harness.summary().await;
    assert_eq!((summary.lost, summary.running_chunks, summary.queued_chunks), (5, 1, 11));
    assert_eq!((summary.counts.running, summary.counts.queued, summary.attempts), (2, 21, 1));
    let again =
        ledger.revoke(harness.job, &RevokeParams::new(node("b"), LossCause::Left)).await.unwrap();
    assert_eq!(again, [taken(3, 4, 6)]);
    assert_eq!(harness.summary().await.lost, 7);
    harness.check().await;
}

pub(super) async fn a_node_keeps_what_it_claimed_after_its_orphans(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    harness.open(3, 2).await;
    let now = async || ledger.now().await.unwrap();
    let claim = async |chunk| {
        let before = now().await;
        await_that("the clock moves on", async || now().await > before).await;
        assert!(matches!(harness.claim(chunk, 1, chunk, "a").await, Claim::Granted(_)));
        ledger.holders(harness.job).await.unwrap().remove(0)
    };
    let (first, second) = (claim(2).await, claim(3).await);
    assert_eq!(first.oldest, first.newest);
    assert!(second.oldest == first.oldest && second.newest > first.newest, "{second:?}");
    let begun = now().await;
    let (early, late) = (first.oldest.as_millis() - 1, begun.as_millis() + 99);
    let orphaned = async |claimed_by| {
        let loss = LossCause::Orphaned { claimed_by: Timestamp::from_millis(claimed_by) };
        let revoked =
            ledger.revoke(harness.job, &RevokeParams::new(node("a"), loss.clone())).await.unwrap();
        revoked.iter().map(|it| it.chunk.0).collect::<Vec<_>>()
    };
    assert_eq!(orphaned(early).await, [0; 0]);
    assert_eq!(orphaned(second.oldest.as_millis()).await, [2]);
    let third = claim(1).await;
    assert_eq!(third.oldest, second.newest, "what is left");
    assert_eq!(orphaned(late).await, [1, 3]);
    assert_eq!(harness.summary().await.orphaned, 2);
    harness.check().await;
}

pub(super) async fn holders_are_named_once_and_only_while_they_hold(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 40).await;
    let holders = async || {
        let nodes = ledger.holders(harness.job).await.unwrap();
        nodes.iter().map(|holder| holder.node.as_str().to_owned()).collect::<Vec<_>>()
    };
    harness.open(12, 2).await;
    assert_eq!(holders().await, [""; 0], "nobody claimed");
    for (chunk, by) in [(11, "b"), (2, "a"), (5, "B"), (3, "b"), (7, "c")] {
        assert!(matches!(harness.claim(chunk, 1, chunk, by).await, Claim::Granted(_)));
    }
    assert_eq!(holders().await, ["B", "a", "b", "c"]);
    ledger.pause(harness.job).await.unwrap();
    harness.commit(ChunkId(2), 2, vec![ok(2)]).await;
    harness.commit(ChunkId(11), 20, vec![ok(1)]).await;
    harness.release(7, 7).await;
    assert_eq!(holders().await, ["B", "b"]);
    ledger.revoke(harness.job, &RevokeParams::new(node("B"), LossCause::Vanished)).await.unwrap();
    assert_eq!(holders().await, ["b"]);
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(holders().await, [""; 0], "an ended job is held by nobody");
    assert_eq!(ledger.holders(job_id(9)).await.unwrap(), []);
    harness.check().await;
}

pub(super) async fn a_token_that_lost_its_hold_is_fenced(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 9).await;
    let opened = harness.open(3, 3).await;
    for message in &opened {
        harness.hold(message).await;
    }
    let fenced = async |chunk: u64, shown: u64| {
        let before = harness.summary().await;
        let counted = before.fenced + u64::from(!before.state.is_terminal());
        let expected = JobSummary { fenced: counted, ..before };
        let from = (chunk - 1) * 3;
        let answer = harness.try_commit(chunk, shown, from, vec![ok(3)]).await.unwrap();
        assert_eq!(answer, Committed::Fenced);
        assert_eq!(harness.summary().await, expected, "counted, and nothing else changed");
    };
    fenced(1, 2).await;
    fenced(4, 4).await;
    harness.release(1, 1).await;
    fenced(1, 1).await;
    ledger.revoke(harness.job, &RevokeParams::new(node("a"), LossCause::Vanished)).await.unwrap();
    fenced(2, 2).await;
    assert!(matches!(harness.claim(2, 2, 22, "b").await, Claim::Granted(_)));
    fenced(2, 2).await;
    let settled = harness.try_commit(2, 22, 3, vec![ok(3)]).await.unwrap();
    assert_eq!(settled, Committed::Settled { state: JobState::Running });
    fenced(2, 22).await;
    assert!(matches!(harness.claim(3, 2, 33, "b").await, Claim::Granted(_)));
    ledger.cancel(harness.job).await.unwrap();
    fenced(3, 33).await;
    let commit = Commit::new(0, vec![ok(1)], NEVER);
    let absent = ledger
        .commit(job_id(9), &CommitParams::new(ChunkId(1), token(1), commit.clone()))
        .await
        .unwrap();
    assert_eq!(absent, Committed::Fenced);
    harness.check().await;
}
