//! Speculative execution of stragglers: two nodes run the same chunk, and each subtask counts once.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{
    ChunkId, ChunkMessage, Epoch, OutcomeRun, ResultBody, ResultRun, Timestamp,
};

use super::harness::{
    Harness, NEVER, again, failed, job_id, later, lost, node, ok, ok_lines, token,
};
use crate::Ledger;
use crate::op::{
    BeatParams, Claim, ClaimParams, Committed, ErrorsParams, Held, LossCause, Released,
    ResultsParams, RevokeParams, SpeculationRequest, StopReason,
};

cases! {
    a_chunk_held_for_long_is_offered_for_speculation
    speculation_never_exceeds_max_parallel
    an_offer_is_granted_to_one_other_node
    the_first_commit_of_two_holders_decides
    an_error_names_the_second_node_if_it_failed_there
    a_url_is_cut_where_the_second_node_overtook
    a_long_run_is_cut_where_the_second_node_overtook
    a_release_by_one_of_two_holders_leaves_the_chunk_to_the_other
    a_release_in_parts_takes_the_chunk_from_both_holders
    the_death_of_one_of_two_holders_counts_and_the_other_runs_on
    an_orphaned_speculative_hold_is_dropped
    a_second_holder_is_told_to_stop_like_any_holder
}

/// Offers every running chunk, however short it has run, even if it was offered before.
const ALL: SpeculationRequest = SpeculationRequest {
    held_for: Duration::ZERO,
    offer_for: Duration::ZERO,
    chunks: 99,
    only: None,
};

impl Harness {
    /// (chunk, from, to, epoch, holder) of the chunks that are offered now.
    async fn offer(&self, request: SpeculationRequest) -> Vec<(u64, u64, u64, u64, String)> {
        let offered = self.ledger.offer_speculative(self.job, &request).await.expect("an offer");
        let shape = offered.into_iter().map(|straggler| {
            let ChunkMessage { job, chunk, from, to, epoch, .. } = straggler.message;
            assert_eq!(job, self.job);
            (chunk.0, from, to, epoch.0, straggler.holder.as_str().to_owned())
        });
        shape.collect()
    }

    /// Chunk 1 of `size` subtasks, which `a` holds under token 1 and `b` under token 2.
    async fn doubled(&self, size: u64) {
        self.take(size).await;
        assert_eq!(self.offer(ALL).await, [(1, 0, size, 2, "a".into())]);
        let Claim::Granted(grant) = self.claim(1, 2, 2, "b").await else {
            panic!("the second claim is granted")
        };
        assert_eq!((grant.from, grant.to, grant.attempt, grant.crashes), (0, size, 1, 0));
    }

    async fn settled(&self, shown: u64, from: u64, runs: Vec<OutcomeRun>) {
        let answer = self.try_commit(1, shown, from, runs).await;
        assert!(matches!(answer, Ok(Committed::Settled { .. })), "{answer:?}");
        self.check().await;
    }

    async fn fenced(&self, shown: u64, from: u64, runs: Vec<OutcomeRun>) {
        let answer = self.try_commit(1, shown, from, runs).await;
        assert!(matches!(answer, Ok(Committed::Fenced)), "{answer:?}");
    }
}

pub(super) async fn a_chunk_held_for_long_is_offered_for_speculation(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 12).await;
    assert_eq!(harness.offer(ALL).await, [], "nothing runs");
    let opened = harness.open(4, 3).await;
    assert_eq!(harness.offer(ALL).await, [], "nothing runs yet");
    for message in &opened[..3] {
        harness.hold(message).await;
    }
    harness.commit(ChunkId(2), 3, vec![ok(1)]).await;
    assert_eq!(harness.offer(SpeculationRequest { held_for: NEVER, ..ALL }).await, []);
    assert_eq!(harness.offer(SpeculationRequest { chunks: 0, ..ALL }).await, []);
    assert_eq!(
        harness.offer(SpeculationRequest { only: Some(node("a")), ..ALL }).await,
        [],
        "it has them"
    );
    let mut offered = harness.offer(SpeculationRequest { only: Some(node("b")), ..ALL }).await;
    offered.sort();
    let a = || "a".to_owned();
    assert_eq!(offered, [(1, 0, 3, 2, a()), (2, 4, 6, 2, a()), (3, 6, 9, 2, a())]);
    assert_eq!(
        harness.offer(SpeculationRequest { offer_for: NEVER, ..ALL }).await,
        [],
        "they are on offer"
    );
    assert_eq!(
        harness.offer(SpeculationRequest { chunks: 2, ..ALL }).await.len(),
        2,
        "anew, as many as wanted"
    );
    let summary = harness.summary().await;
    assert_eq!(
        (summary.counts.running, summary.running_chunks, summary.speculative_chunks),
        (8, 3, 0)
    );
    let absent = ledger.offer_speculative(job_id(9), &ALL).await.unwrap();
    assert_eq!(absent, []);
    ledger.pause(harness.job).await.unwrap();
    assert_eq!(harness.offer(ALL).await, []);
    harness.check().await;
}

pub(super) async fn speculation_never_exceeds_max_parallel(ledger: Arc<dyn Ledger>) {
    let harness = Harness::with(&ledger, 4, |it| it.max_parallel = Some(9)).await;
    harness.take(2).await;
    assert_eq!(harness.offer(ALL).await, []);
    harness.check().await;
}

pub(super) async fn an_offer_is_granted_to_one_other_node(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.take(4).await;
    harness.offer(ALL).await;
    let holder = Claim::Stale { holder: Some(node("a")) };
    assert_eq!(harness.claim(1, 2, 5, "a").await, holder, "not to the one who has it");
    assert_eq!(harness.claim(1, 1, 5, "b").await, holder, "an old message");
    assert!(matches!(harness.claim(1, 2, 2, "b").await, Claim::Granted(_)));
    assert!(matches!(harness.claim(1, 2, 2, "b").await, Claim::Granted(_)), "a repeat");
    assert_eq!(harness.claim(1, 2, 3, "c").await, holder, "a third one");
    assert_eq!(harness.offer(ALL).await, [], "two are enough");
    let holders = ledger.holders(harness.job).await.unwrap();
    assert_eq!(holders.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let summary = harness.summary().await;
    assert_eq!(
        (summary.counts.running, summary.running_chunks, summary.speculative_chunks),
        (4, 1, 1)
    );
    harness.check().await;
}

pub(super) async fn the_first_commit_of_two_holders_decides(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    harness.doubled(8).await;
    harness.settled(1, 0, vec![ok_lines(0, 2), failed("no")]).await;
    let before = harness.summary().await;
    harness.settled(2, 0, vec![failed("no"), failed("no"), ok(1)]).await;
    assert_eq!(harness.summary().await, before, "all of it was settled");
    harness.settled(2, 3, vec![again(NEVER), ok_lines(4, 7)]).await;
    // The first holder commits the same later, and more.
    let late: String = (3..8).map(|index| format!("\"late {index}\"\n")).collect();
    harness.settled(1, 3, vec![OutcomeRun::Success { count: 5, results: Some(late.into()) }]).await;
    let summary = harness.summary().await;
    let counts = summary.counts;
    assert_eq!((counts.done, counts.failed, counts.retrying, counts.running), (6, 1, 1, 0));
    assert_eq!((summary.attempts, summary.running_chunks, summary.speculative_chunks), (8, 0, 1));
    let run = |from, lines: &str| ResultRun {
        from,
        count: lines.lines().count() as u64,
        body: lines.into(),
    };
    let kept = ledger.results(harness.job, &ResultsParams::new(0..8, 1 << 20)).await.unwrap().runs;
    assert_eq!(kept, [run(0, "0\n1\n"), run(4, "4\n5\n6\n"), run(7, "\"late 7\"\n")]);
    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!((errors[0].index, errors[0].node.as_str()), (2, "a"));
    harness.fenced(2, 7, vec![ok(1)]).await;
    assert_eq!(harness.summary().await.fenced, 1);
}

pub(super) async fn an_error_names_the_second_node_if_it_failed_there(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 1).await;
    harness.doubled(1).await;
    harness.settled(2, 0, vec![failed("no")]).await;
    let errors = ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!((errors[0].index, errors[0].node.as_str()), (0, "b"));
}

pub(super) async fn a_url_is_cut_where_the_second_node_overtook(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 6).await;
    harness.doubled(6).await;
    let object =
        |count, url: &str| OutcomeRun::Success { count, results: Some(ResultBody::object(url)) };
    harness.settled(2, 0, vec![object(2, "file:///two"), later(NEVER)]).await;
    harness.settled(1, 0, vec![object(6, "file:///six")]).await;
    let kept = ledger.results(harness.job, &ResultsParams::new(0..6, 1 << 20)).await.unwrap().runs;
    let told: Vec<_> = kept.iter().map(|run| (run.from, run.count, run.body.text())).collect();
    assert_eq!(told, [(0, 2, "@file:///two".into()), (3, 3, "@file:///six#3".into())]);
    assert_eq!(harness.summary().await.counts.retrying, 1, "what was put off is");
}

pub(super) async fn a_long_run_is_cut_where_the_second_node_overtook(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 100).await;
    harness.doubled(100).await;
    let lines = |from: u64, to: u64| -> String {
        (from..to).map(|n| format!("\"{}\"\n", n.to_string().repeat(50))).collect()
    };
    let run =
        |from, to| OutcomeRun::Success { count: to - from, results: Some(lines(from, to).into()) };
    harness.settled(2, 0, vec![run(0, 30), later(NEVER)]).await;
    harness.settled(1, 0, vec![run(0, 60)]).await;
    harness.settled(2, 31, vec![run(31, 100)]).await;
    let kept =
        ledger.results(harness.job, &ResultsParams::new(0..100, 1 << 20)).await.unwrap().runs;
    let expected = [(0, 30), (31, 60), (60, 100)].map(|(from, to)| ResultRun {
        from,
        count: to - from,
        body: lines(from, to).into(),
    });
    assert_eq!(kept, expected);
}

pub(super) async fn a_release_by_one_of_two_holders_leaves_the_chunk_to_the_other(
    ledger: Arc<dyn Ledger>,
) {
    for leaver in [1, 2] {
        let harness = Harness::of(&ledger, 4).await;
        harness.doubled(4).await;
        assert_eq!(harness.release(1, leaver).await, Released::Queued);
        assert_eq!(harness.release(1, leaver).await, Released::Fenced, "it was released already");
        harness.fenced(leaver, 0, vec![ok(1)]).await;
        assert_eq!(harness.sweep(9, NEVER).await, [], "the other has it");
        let summary = harness.summary().await;
        assert_eq!((summary.counts.running, summary.running_chunks, summary.lost), (4, 1, 0));
        harness.settled(3 - leaver, 0, vec![ok(1)]).await;
        let stays = if leaver == 1 { "b" } else { "a" };
        let holders = ledger.holders(harness.job).await.unwrap();
        assert_eq!(holders.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), [stays]);
        assert_eq!(harness.offer(ALL).await, [(1, 1, 4, 3, stays.into())], "there may be another");
        assert_eq!(harness.release(1, 3 - leaver).await, Released::Queued);
        assert_eq!(harness.sweep(9, NEVER).await, [(1, 4, 4)], "queued for anybody");
        let old = harness.claim(1, 3, 7, "c").await;
        assert_eq!(old, Claim::Stale { holder: None }, "a queued chunk is not speculated on");
        harness.check().await;
        ledger.cancel(harness.job).await.unwrap();
        ledger.archive(harness.job).await.unwrap();
        ledger.delete(harness.job).await.unwrap();
    }
}

pub(super) async fn a_release_in_parts_takes_the_chunk_from_both_holders(ledger: Arc<dyn Ledger>) {
    for leaver in [1, 2] {
        let harness = Harness::of(&ledger, 4).await;
        harness.doubled(4).await;
        assert_eq!(harness.release_in_parts(1, leaver, 3).await, Released::Queued);
        for shown in [1, 2] {
            harness.fenced(shown, 0, vec![ok(1)]).await;
        }
        assert_eq!(harness.sweep(9, NEVER).await, [(0, 3, 3), (3, 4, 3)]);
        let summary = harness.summary().await;
        assert_eq!((summary.queued_chunks, summary.running_chunks, summary.lost), (2, 0, 0));
        harness.check().await;
        ledger.cancel(harness.job).await.unwrap();
        ledger.archive(harness.job).await.unwrap();
        ledger.delete(harness.job).await.unwrap();
    }
}

pub(super) async fn the_death_of_one_of_two_holders_counts_and_the_other_runs_on(
    ledger: Arc<dyn Ledger>,
) {
    for first in ["a", "b"] {
        let harness = Harness::of(&ledger, 4).await;
        harness.doubled(4).await;
        assert_eq!(
            ledger.revoke(harness.job, &RevokeParams::new(node(first), lost(true))).await.unwrap(),
            []
        );
        let summary = harness.summary().await;
        assert_eq!((summary.counts.running, summary.lost, summary.reissued), (4, 0, 0));
        assert_eq!((summary.recoveries, summary.crashes), (1, 1));
        assert_eq!(harness.offer(ALL).await, [], "what killed a node is not run twice");
        let (gone, stays) = if first == "a" { (1, "b") } else { (2, "a") };
        harness.fenced(gone, 0, vec![ok(1)]).await;
        let revoked =
            ledger.revoke(harness.job, &RevokeParams::new(node(stays), lost(true))).await.unwrap();
        let shape: Vec<_> = revoked.iter().map(|it| (it.from, it.to, it.epoch.0)).collect();
        assert_eq!(shape, [(0, 1, 3), (1, 3, 3), (3, 4, 3)], "two deaths make a suspect");
        assert_eq!(harness.summary().await.crashes, 2);
        harness.check().await;
        ledger.cancel(harness.job).await.unwrap();
        ledger.archive(harness.job).await.unwrap();
        ledger.delete(harness.job).await.unwrap();
    }
}

pub(super) async fn an_orphaned_speculative_hold_is_dropped(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 4).await;
    harness.doubled(4).await;
    let holders = ledger.holders(harness.job).await.unwrap();
    let early = Timestamp::from_millis(holders[1].oldest.as_millis() - 1);
    let loss = |claimed_by| LossCause::Orphaned { claimed_by };
    ledger.revoke(harness.job, &RevokeParams::new(node("b"), loss(early))).await.unwrap();
    assert_eq!(harness.summary().await.orphaned, 0, "it was claimed later");
    ledger
        .revoke(harness.job, &RevokeParams::new(node("b"), loss(holders[1].newest)))
        .await
        .unwrap();
    assert_eq!(harness.summary().await.orphaned, 1);
    harness.fenced(2, 0, vec![ok(1)]).await;
    harness.settled(1, 0, vec![ok(4)]).await;
}

pub(super) async fn a_second_holder_is_told_to_stop_like_any_holder(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    harness.doubled(4).await;
    let beat = async || {
        let held = |shown| Held { job: harness.job, chunk: ChunkId(1), token: token(shown) };
        let info = super::fleet::info("n");
        let beat =
            ledger.beat(&BeatParams::new(info.clone(), [held(1), held(2), held(3)])).await.unwrap();
        let reasons = beat.stop.iter().map(|stop| (stop.held.token, stop.reason));
        reasons.collect::<Vec<_>>()
    };
    let revoked = |shown| (token(shown), StopReason::Revoked);
    assert_eq!(beat().await, [revoked(3)]);
    harness.settled(2, 0, vec![ok(4)]).await;
    assert_eq!(beat().await, [revoked(1), revoked(2), revoked(3)]);
    let offers = Epoch(2);
    let gone = ledger
        .claim(harness.job, &ClaimParams::new(ChunkId(1), offers, token(9), node("c")))
        .await
        .unwrap();
    assert_eq!(gone, Claim::Gone);
    harness.check().await;
}
