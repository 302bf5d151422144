//! Subtasks keep the nodes on which they failed; attempts on bad nodes are refunded.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{ChunkId, ChunkMessage, Isolation, Timestamp};

use super::fleet::info;
use super::harness::{Harness, again, failed, node, ok, shape};
use crate::op::{BeatParams, Claim, ErrorsParams, Grant, IsolateParams, MAX_TRIED, NodeSnapshot};
use crate::{Committed, Ledger};

cases! {
    failed_attempts_are_remembered_with_their_nodes
    the_newest_nodes_are_remembered
    a_failure_on_a_refunded_node_uses_up_no_attempt
    a_final_failure_is_tried_again_once_its_node_is_refunded
    a_node_is_out_of_rotation_until_it_is_readmitted
}

const NOW: Duration = Duration::ZERO;

impl Harness {
    /// Claims for a node, with the chunk's number as the token's.
    async fn hold_on(&self, message: &ChunkMessage, by: &str) -> Grant {
        match self.claim(message.chunk.0, message.epoch.0, message.chunk.0, by).await {
            Claim::Granted(grant) => grant,
            refused => panic!("{message:?} was refused: {refused:?}"),
        }
    }

    /// Opens the only chunk and fails its only subtask on a node; returns the grant.
    async fn fail_on(&self, by: &str, is_final: bool) -> Grant {
        let opened = self.open(9, 9).await;
        assert_eq!(opened.len(), 1);
        let grant = self.hold_on(&opened[0], by).await;
        let run = if is_final { failed("hole") } else { again(NOW) };
        self.commit(opened[0].chunk, opened[0].from, vec![run]).await;
        grant
    }
}

pub(super) async fn failed_attempts_are_remembered_with_their_nodes(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    let opened = harness.open(2, 3).await;
    for (message, by) in opened.iter().zip(["a", "b"]) {
        assert_eq!(harness.hold_on(message, by).await.tried, []);
        harness.commit(message.chunk, message.from, vec![ok(1), again(NOW), again(NOW)]).await;
    }
    // 1 and 2 failed on one node, 4 and 5 on another.
    let opened = harness.open(9, 9).await;
    assert_eq!(shape(&opened), [(1, 3, 1), (4, 6, 1)]);
    let ids: Vec<ChunkId> = opened.iter().map(|message| message.chunk).collect();
    let [a, b, c] = ["a", "b", "c"].map(node);
    let asked = [ids[1], ChunkId(99), ids[0]];
    let expected = [vec![b.clone()], vec![], vec![a.clone()]];
    assert_eq!(ledger.tried_nodes(harness.job, &asked).await.unwrap(), expected);
    assert_eq!(ledger.tried_nodes(harness.job, &[]).await.unwrap(), Vec::<Vec<_>>::new());
    let grant = harness.hold_on(&opened[0], "c").await;
    assert_eq!((grant.attempt, grant.tried), (2, vec![a.clone()]));
    harness.commit(opened[0].chunk, 1, vec![again(NOW), ok(1)]).await;
    harness.hold_on(&opened[1], "c").await;
    // Neighbours that failed on different nodes wait in different chunks.
    harness.commit(opened[1].chunk, 4, vec![again(NOW), ok(1)]).await;
    let opened = harness.open(9, 9).await;
    let ids: Vec<ChunkId> = opened.iter().map(|message| message.chunk).collect();
    let expected = [vec![a, c.clone()], vec![b, c]];
    assert_eq!(ledger.tried_nodes(harness.job, &ids).await.unwrap(), expected);
    harness.check().await;
}

pub(super) async fn the_newest_nodes_are_remembered(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 1).await;
    let names: Vec<String> = (0..12).map(|number| format!("n{number}")).collect();
    for name in &names {
        harness.fail_on(name, false).await;
    }
    let grant = harness.fail_on("last", false).await;
    let newest: Vec<_> = names[12 - MAX_TRIED..].iter().map(|name| node(name)).collect();
    assert_eq!((grant.attempt, grant.tried), (13, newest));
}

pub(super) async fn a_failure_on_a_refunded_node_uses_up_no_attempt(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 1).await;
    harness.fail_on("a", false).await;
    harness.fail_on("b", false).await;
    assert_eq!(ledger.refund_attempts(harness.job, &[node("a")]).await.unwrap(), 0);
    // One of the three attempts does not count, so a fourth one is left.
    let grant = harness.fail_on("c", true).await;
    assert_eq!((grant.attempt, grant.tried), (2, vec![node("b")]));
    assert_eq!(harness.summary().await.counts.failed, 1, "but this one was");
    let harness =
        Harness::with(&ledger, 1, |admission| admission.job = super::harness::job_id(2)).await;
    harness.fail_on("a", false).await;
    let opened = harness.open(1, 1).await;
    assert_eq!(harness.hold_on(&opened[0], "b").await.attempt, 2);
    assert_eq!(ledger.refund_attempts(harness.job, &[node("a")]).await.unwrap(), 0);
    harness.commit(opened[0].chunk, 0, vec![failed("late")]).await;
    let counts = harness.summary().await.counts;
    assert_eq!((counts.failed, counts.retrying), (0, 1), "it was begun as the last attempt");
    // Failures on the node itself never count.
    let grant = harness.fail_on("a", true).await;
    assert_eq!((grant.attempt, grant.tried), (2, vec![node("b")]));
    let grant = harness.fail_on("c", true).await;
    assert_eq!((grant.attempt, grant.tried), (2, vec![node("b")]));
    assert_eq!(harness.summary().await.counts.failed, 1);
    harness.check().await;
}

pub(super) async fn a_final_failure_is_tried_again_once_its_node_is_refunded(
    ledger: Arc<dyn Ledger>,
) {
    let harness = Harness::of(&ledger, 5).await;
    let opened = harness.open(2, 2).await;
    for (message, by) in opened.iter().zip(["a", "b"]) {
        harness.hold_on(message, by).await;
        let answer = harness.try_commit(
            message.chunk.0,
            message.chunk.0,
            message.from,
            vec![failed("hole"), failed("hole")],
        );
        assert!(matches!(answer.await, Ok(Committed::Settled { .. })));
    }
    assert_eq!(ledger.refund_attempts(harness.job, &[node("a")]).await.unwrap(), 2);
    assert_eq!(ledger.refund_attempts(harness.job, &[node("a")]).await.unwrap(), 0, "a repeat");
    let counts = harness.summary().await.counts;
    assert_eq!((counts.failed, counts.retrying), (2, 2));
    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!(errors.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 3]);
    harness.check().await;
    let opened = harness.open(9, 9).await;
    assert_eq!(shape(&opened), [(0, 2, 1), (4, 5, 1)]);
    assert_eq!(harness.hold_on(&opened[0], "b").await.attempt, 1);
    harness.succeed(&opened[0]).await;
    harness.hold_on(&opened[1], "b").await;
    harness.succeed(&opened[1]).await;
    assert_eq!(
        ledger.refund_attempts(harness.job, &[node("b")]).await.unwrap(),
        0,
        "the job has ended"
    );
    assert_eq!(ledger.refund_attempts(super::harness::job_id(9), &[node("b")]).await.unwrap(), 0);
    harness.check().await;
}

pub(super) async fn a_node_is_out_of_rotation_until_it_is_readmitted(ledger: Arc<dyn Ledger>) {
    let at = Timestamp::from_millis;
    let (since, until) = (at(1_700_000_000_123), at(1_700_000_010_123));
    let task = "noop".to_owned();
    let isolation = Isolation { task, since, until, cleared: 9, done: 1, times: 2 };
    let isolated = [isolation];
    assert!(
        !ledger.isolate(&IsolateParams::new(node("a"), isolated.clone())).await.unwrap(),
        "there is no such node"
    );
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    let known = ledger.nodes_since(&NodeSnapshot::default()).await.unwrap();
    assert_eq!(known.nodes[0].isolated, []);
    assert!(ledger.isolate(&IsolateParams::new(node("a"), isolated.clone())).await.unwrap());
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    assert_eq!(ledger.nodes().await.unwrap()[0].isolated, isolated, "a beat does not undo it");
    let known = ledger.nodes_since(&known).await.unwrap();
    assert_eq!(known.nodes[0].isolated, isolated);
    assert!(ledger.isolate(&IsolateParams::new(node("a"), [])).await.unwrap());
    assert_eq!(ledger.nodes_since(&known).await.unwrap().nodes[0].isolated, []);
}
