//! The records of recoveries: their chunks, when they are complete, and how many are kept.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{ChunkId, LossKind, Recovery};

use super::harness::{Harness, job_id, node, ok};
use crate::Ledger;
use crate::op::{Claim, LossCause, MAX_RECOVERIES, RevokeParams};

cases! {
    a_recovery_is_incomplete_until_all_its_chunks_are_claimed
    orphaned_chunks_count_as_no_loss
    the_newest_hundred_recoveries_are_kept
}

pub(super) async fn a_recovery_is_incomplete_until_all_its_chunks_are_claimed(
    ledger: Arc<dyn Ledger>,
) {
    let harness = Harness::of(&ledger, 40).await;
    let newest = async || ledger.recoveries(harness.job, 1).await.unwrap().remove(0);
    let claim = async |chunk: u64, epoch: u64, by: &str| {
        let claim = harness.claim(chunk, epoch, 100 * epoch + chunk, by).await;
        assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
    };
    harness.open(4, 5).await;
    ledger.revoke(harness.job, &RevokeParams::new(node("a"), LossCause::Vanished)).await.unwrap();
    assert_eq!(ledger.recoveries(harness.job, 9).await.unwrap(), [], "it held nothing");
    for (chunk, by) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        claim(chunk, 1, by).await;
    }
    harness.try_commit(4, 104, 15, vec![ok(4)]).await.unwrap();
    let before = ledger.now().await.unwrap();
    ledger.revoke(harness.job, &RevokeParams::new(node("a"), LossCause::Vanished)).await.unwrap();
    let first = newest().await;
    let expected = Recovery {
        at: first.at,
        node: node("a"),
        lost: LossKind::Died,
        how: None,
        chunks: 3,
        subtasks: 11,
        cut: 0,
        given_up: vec![],
        waiting: 3,
        again_after: None,
    };
    assert_eq!(first, expected);
    assert!(first.at >= before);
    claim(1, 2, "b").await;
    claim(1, 2, "b").await;
    assert_eq!(
        newest().await,
        Recovery { waiting: 2, ..expected.clone() },
        "a repeat changes nothing"
    );
    ledger.revoke(harness.job, &RevokeParams::new(node("b"), LossCause::Left)).await.unwrap();
    let second = newest().await;
    assert_eq!(second.lost, LossKind::Left);
    assert_eq!((second.chunks, second.subtasks, second.waiting), (2, 10, 2));

    // Each chunk counts for the recovery that queued it.
    claim(2, 2, "c").await;
    claim(1, 3, "c").await;
    claim(4, 2, "c").await;
    harness.release(4, 204).await;
    claim(4, 3, "c").await;
    let both = ledger.recoveries(harness.job, 9).await.unwrap();
    assert_eq!(both.len(), 2);
    assert_eq!((both[0].waiting, both[0].again_after), (1, None));
    let again_after = both[1].again_after.expect("all of it runs again");
    assert!(again_after <= ledger.now().await.unwrap().since(both[1].at));
    assert_eq!(both[1], Recovery { waiting: 0, again_after: Some(again_after), ..expected });
    claim(3, 2, "c").await;
    assert!(newest().await.again_after.is_some());

    // A second death cuts what it held.
    ledger.revoke(harness.job, &RevokeParams::new(node("c"), LossCause::Vanished)).await.unwrap();
    let third = newest().await;
    assert_eq!((third.chunks, third.subtasks, third.cut), (8, 16, 2));
    let summary = harness.summary().await;
    assert_eq!((summary.recoveries, summary.crashes, summary.reissued), (3, 2, 3 + 2 + 8));
    assert_eq!(summary.lost, 11 + 10 + 16);
    assert_eq!(ledger.recoveries(job_id(9), 9).await.unwrap(), []);
    harness.check().await;
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(ledger.recoveries(harness.job, 9).await.unwrap().len(), 3, "kept with the job");
    ledger.delete(harness.job).await.unwrap();
    assert_eq!(ledger.recoveries(harness.job, 9).await.unwrap(), []);
}

pub(super) async fn orphaned_chunks_count_as_no_loss(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.open(1, 4).await;
    let all = LossCause::Orphaned {
        claimed_by: ledger.now().await.unwrap().plus(Duration::from_hours(1)),
    };
    for epoch in 1..=3 {
        assert!(matches!(harness.claim(1, epoch, epoch, "a").await, Claim::Granted(_)));
        let revoked =
            ledger.revoke(harness.job, &RevokeParams::new(node("a"), all.clone())).await.unwrap();
        assert_eq!(revoked.len(), 1, "it is never cut");
    }
    let newest = ledger.recoveries(harness.job, 1).await.unwrap().remove(0);
    assert_eq!((newest.lost, newest.how, newest.subtasks), (LossKind::Orphaned, None, 4));
    let summary = harness.summary().await;
    assert_eq!((summary.recoveries, summary.crashes, summary.orphaned), (3, 0, 3));
    assert_eq!((summary.reissued, summary.lost), (3, 12));
    harness.check().await;
}

pub(super) async fn the_newest_hundred_recoveries_are_kept(ledger: Arc<dyn Ledger>) {
    assert_eq!(MAX_RECOVERIES, 100);
    let harness = Harness::of(&ledger, 2).await;
    harness.open(2, 1).await;
    // The oldest one is dropped while its chunk still waits.
    assert!(matches!(harness.claim(2, 1, 1, "old").await, Claim::Granted(_)));
    ledger.revoke(harness.job, &RevokeParams::new(node("old"), LossCause::Left)).await.unwrap();
    for n in 1..=MAX_RECOVERIES as u64 {
        let by = format!("n{n}");
        assert!(matches!(harness.claim(1, n, n + 1, &by).await, Claim::Granted(_)));
        ledger.revoke(harness.job, &RevokeParams::new(node(&by), LossCause::Left)).await.unwrap();
    }
    let kept = ledger.recoveries(harness.job, 1_000).await.unwrap();
    let names: Vec<_> = kept.iter().map(|recovery| recovery.node.as_str().to_owned()).collect();
    assert_eq!(names, (1..=100).rev().map(|n| format!("n{n}")).collect::<Vec<_>>());
    assert!(kept[0].again_after.is_none() && kept[1..].iter().all(|it| it.again_after.is_some()));
    assert_eq!(harness.summary().await.recoveries, 101);
    assert!(matches!(harness.claim(2, 2, 2, "a").await, Claim::Granted(_)));
    harness.commit(ChunkId(2), 1, vec![ok(1)]).await;
    assert_eq!(ledger.recoveries(harness.job, 1_000).await.unwrap(), kept);
    assert!(kept[1].again_after < Some(Duration::from_secs(3_600)));
    harness.check().await;
}
