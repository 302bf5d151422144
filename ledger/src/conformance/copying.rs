//! Copies of what lags: two nodes run the same chunk, and the books count it once.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{ChunkId, ChunkMessage, Epoch, ResultRun, Run, Timestamp};

use super::play::{NEVER, Play, again, failed, job_id, later, lost, node, ok, ok_lines, token};
use crate::Ledger;
use crate::op::{
    BeatParams, Claim, ClaimParams, Committed, ErrorsParams, Held, LossCause, Released,
    ResultsParams, RevokeParams, SpeculationRequest, StopReason,
};

/// Whatever runs, however short, and whatever was offered before.
const ALL: SpeculationRequest = SpeculationRequest {
    held_for: Duration::ZERO,
    offer_for: Duration::ZERO,
    chunks: 99,
    only: None,
};

impl Play {
    /// (chunk, from, to, epoch, holder) of the copies on offer now.
    async fn copy(&self, lagging: SpeculationRequest) -> Vec<(u64, u64, u64, u64, String)> {
        let offered = self.ledger.offer_speculative(self.job, &lagging).await.expect("copy");
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
        assert_eq!(self.copy(ALL).await, [(1, 0, size, 2, "a".into())]);
        let Claim::Granted(grant) = self.claim(1, 2, 2, "b").await else {
            panic!("the copy is granted")
        };
        assert_eq!((grant.from, grant.to, grant.attempt, grant.crashes), (0, size, 1, 0));
    }

    async fn settled(&self, shown: u64, from: u64, runs: Vec<Run>) {
        let answer = self.try_commit(1, shown, from, runs).await;
        assert!(matches!(answer, Ok(Committed::Settled { .. })), "{answer:?}");
        self.check().await;
    }

    async fn fenced(&self, shown: u64, from: u64, runs: Vec<Run>) {
        let answer = self.try_commit(1, shown, from, runs).await;
        assert!(matches!(answer, Ok(Committed::Fenced)), "{answer:?}");
    }
}

pub(super) async fn a_copy_is_offered_of_what_was_held_for_long(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 12).await;
    assert_eq!(play.copy(ALL).await, [], "nothing runs");
    let opened = play.open(4, 3).await;
    assert_eq!(play.copy(ALL).await, [], "nothing runs yet");
    for message in &opened[..3] {
        play.hold(message).await;
    }
    play.commit(ChunkId(2), 3, vec![ok(1)]).await;
    assert_eq!(play.copy(SpeculationRequest { held_for: NEVER, ..ALL }).await, []);
    assert_eq!(play.copy(SpeculationRequest { chunks: 0, ..ALL }).await, []);
    assert_eq!(
        play.copy(SpeculationRequest { only: Some(node("a")), ..ALL }).await,
        [],
        "it has them"
    );
    let mut offered = play.copy(SpeculationRequest { only: Some(node("b")), ..ALL }).await;
    offered.sort();
    let a = || "a".to_owned();
    assert_eq!(offered, [(1, 0, 3, 2, a()), (2, 4, 6, 2, a()), (3, 6, 9, 2, a())]);
    assert_eq!(
        play.copy(SpeculationRequest { offer_for: NEVER, ..ALL }).await,
        [],
        "they are on offer"
    );
    assert_eq!(
        play.copy(SpeculationRequest { chunks: 2, ..ALL }).await.len(),
        2,
        "anew, as many as wanted"
    );
    let summary = play.summary().await;
    assert_eq!((summary.counts.running, summary.running_chunks, summary.copies), (8, 3, 0));
    let absent = ledger.offer_speculative(job_id(9), &ALL).await.unwrap();
    assert_eq!(absent, []);
    ledger.pause(play.job).await.unwrap();
    assert_eq!(play.copy(ALL).await, []);
    play.check().await;
}

pub(super) async fn no_copies_break_max_parallel(ledger: Arc<dyn Ledger>) {
    let play = Play::with(&ledger, 4, |it| it.max_parallel = Some(9)).await;
    play.take(2).await;
    assert_eq!(play.copy(ALL).await, []);
    play.check().await;
}

pub(super) async fn a_copy_goes_to_another_node_once(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 4).await;
    play.take(4).await;
    play.copy(ALL).await;
    let holder = Claim::Stale { holder: Some(node("a")) };
    assert_eq!(play.claim(1, 2, 5, "a").await, holder, "not to the one who has it");
    assert_eq!(play.claim(1, 1, 5, "b").await, holder, "an old message");
    assert!(matches!(play.claim(1, 2, 2, "b").await, Claim::Granted(_)));
    assert!(matches!(play.claim(1, 2, 2, "b").await, Claim::Granted(_)), "a repeat");
    assert_eq!(play.claim(1, 2, 3, "c").await, holder, "a third one");
    assert_eq!(play.copy(ALL).await, [], "two are enough");
    let holders = ledger.holders(play.job).await.unwrap();
    assert_eq!(holders.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let summary = play.summary().await;
    assert_eq!((summary.counts.running, summary.running_chunks, summary.copies), (4, 1, 1));
    play.check().await;
}

pub(super) async fn whichever_commits_first_decides(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 8).await;
    play.doubled(8).await;
    play.settled(1, 0, vec![ok_lines(0, 2), failed("no")]).await;
    let before = play.summary().await;
    play.settled(2, 0, vec![failed("no"), failed("no"), ok(1)]).await;
    assert_eq!(play.summary().await, before, "all of it was settled");
    play.settled(2, 3, vec![again(NEVER), ok_lines(4, 7)]).await;
    // The first one comes late with the same, and goes further.
    let late = (3..8).map(|index| format!("\"late {index}\"\n")).collect();
    play.settled(1, 3, vec![Run::Success { count: 5, results: Some(late) }]).await;
    let summary = play.summary().await;
    let counts = summary.counts;
    assert_eq!((counts.done, counts.failed, counts.retrying, counts.running), (6, 1, 1, 0));
    assert_eq!((summary.attempts, summary.running_chunks, summary.copies), (8, 0, 1));
    let run = |from, lines: &str| ResultRun {
        from,
        count: lines.lines().count() as u64,
        lines: lines.into(),
    };
    let kept = ledger.results(play.job, &ResultsParams::new(0..8, 1 << 20)).await.unwrap().runs;
    assert_eq!(kept, [run(0, "0\n1\n"), run(4, "4\n5\n6\n"), run(7, "\"late 7\"\n")]);
    let errors = ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!((errors[0].index, errors[0].node.as_str()), (2, "a"));
    play.fenced(2, 7, vec![ok(1)]).await;
    assert_eq!(play.summary().await.fenced, 1);
}

pub(super) async fn an_error_names_the_node_that_ran_the_copy(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 1).await;
    play.doubled(1).await;
    play.settled(2, 0, vec![failed("no")]).await;
    let errors = ledger.errors(play.job, &ErrorsParams::new(0, 9)).await.unwrap();
    assert_eq!((errors[0].index, errors[0].node.as_str()), (0, "b"));
}

pub(super) async fn a_url_is_cut_where_the_copy_overtook(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 6).await;
    play.doubled(6).await;
    let object = |count, url: &str| Run::Success { count, results: Some(format!("@{url}")) };
    play.settled(2, 0, vec![object(2, "file:///two"), later(NEVER)]).await;
    play.settled(1, 0, vec![object(6, "file:///six")]).await;
    let kept = ledger.results(play.job, &ResultsParams::new(0..6, 1 << 20)).await.unwrap().runs;
    let told: Vec<_> = kept.iter().map(|run| (run.from, run.count, &*run.lines)).collect();
    assert_eq!(told, [(0, 2, "@file:///two"), (3, 3, "@file:///six#3")]);
    assert_eq!(play.summary().await.counts.retrying, 1, "what was put off is");
}

pub(super) async fn a_long_run_is_cut_where_the_copy_overtook(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 100).await;
    play.doubled(100).await;
    let lines = |from: u64, to: u64| -> String {
        (from..to).map(|n| format!("\"{}\"\n", n.to_string().repeat(50))).collect()
    };
    let run = |from, to| Run::Success { count: to - from, results: Some(lines(from, to)) };
    play.settled(2, 0, vec![run(0, 30), later(NEVER)]).await;
    play.settled(1, 0, vec![run(0, 60)]).await;
    play.settled(2, 31, vec![run(31, 100)]).await;
    let kept = ledger.results(play.job, &ResultsParams::new(0..100, 1 << 20)).await.unwrap().runs;
    let expected = [(0, 30), (31, 60), (60, 100)].map(|(from, to)| ResultRun {
        from,
        count: to - from,
        lines: lines(from, to),
    });
    assert_eq!(kept, expected);
}

pub(super) async fn whoever_of_two_lets_go_leaves_the_chunk_to_the_other(ledger: Arc<dyn Ledger>) {
    for leaver in [1, 2] {
        let play = Play::of(&ledger, 4).await;
        play.doubled(4).await;
        assert_eq!(play.release(1, leaver).await, Released::Queued);
        assert_eq!(play.release(1, leaver).await, Released::Fenced, "it let go already");
        play.fenced(leaver, 0, vec![ok(1)]).await;
        assert_eq!(play.sweep(9, NEVER).await, [], "the other has it");
        let summary = play.summary().await;
        assert_eq!((summary.counts.running, summary.running_chunks, summary.lost), (4, 1, 0));
        play.settled(3 - leaver, 0, vec![ok(1)]).await;
        let stays = if leaver == 1 { "b" } else { "a" };
        let holders = ledger.holders(play.job).await.unwrap();
        assert_eq!(holders.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), [stays]);
        assert_eq!(play.copy(ALL).await, [(1, 1, 4, 3, stays.into())], "there may be another");
        assert_eq!(play.release(1, 3 - leaver).await, Released::Queued);
        assert_eq!(play.sweep(9, NEVER).await, [(1, 4, 4)], "queued for anybody");
        let old = play.claim(1, 3, 7, "c").await;
        assert_eq!(old, Claim::Stale { holder: None }, "no copy of a chunk that waits");
        play.check().await;
        ledger.cancel(play.job).await.unwrap();
        ledger.archive(play.job).await.unwrap();
        ledger.delete(play.job).await.unwrap();
    }
}

pub(super) async fn whoever_of_two_lets_go_in_parts_takes_the_chunk_from_both(
    ledger: Arc<dyn Ledger>,
) {
    for leaver in [1, 2] {
        let play = Play::of(&ledger, 4).await;
        play.doubled(4).await;
        assert_eq!(play.release_in_parts(1, leaver, 3).await, Released::Queued);
        for shown in [1, 2] {
            play.fenced(shown, 0, vec![ok(1)]).await;
        }
        assert_eq!(play.sweep(9, NEVER).await, [(0, 3, 3), (3, 4, 3)]);
        let summary = play.summary().await;
        assert_eq!((summary.queued_chunks, summary.running_chunks, summary.lost), (2, 0, 0));
        play.check().await;
        ledger.cancel(play.job).await.unwrap();
        ledger.archive(play.job).await.unwrap();
        ledger.delete(play.job).await.unwrap();
    }
}

pub(super) async fn what_one_of_two_dies_of_is_charged_and_runs_on(ledger: Arc<dyn Ledger>) {
    for first in ["a", "b"] {
        let play = Play::of(&ledger, 4).await;
        play.doubled(4).await;
        assert_eq!(
            ledger.revoke(play.job, &RevokeParams::new(node(first), lost(true))).await.unwrap(),
            []
        );
        let summary = play.summary().await;
        assert_eq!((summary.counts.running, summary.lost, summary.reissued), (4, 0, 0));
        assert_eq!((summary.recoveries, summary.crashes), (1, 1));
        assert_eq!(play.copy(ALL).await, [], "what killed a node is not run twice");
        let (gone, stays) = if first == "a" { (1, "b") } else { (2, "a") };
        play.fenced(gone, 0, vec![ok(1)]).await;
        let revoked =
            ledger.revoke(play.job, &RevokeParams::new(node(stays), lost(true))).await.unwrap();
        let shape: Vec<_> = revoked.iter().map(|it| (it.from, it.to, it.epoch.0)).collect();
        assert_eq!(shape, [(0, 1, 3), (1, 3, 3), (3, 4, 3)], "two deaths make a suspect");
        assert_eq!(play.summary().await.crashes, 2);
        play.check().await;
        ledger.cancel(play.job).await.unwrap();
        ledger.archive(play.job).await.unwrap();
        ledger.delete(play.job).await.unwrap();
    }
}

pub(super) async fn an_orphaned_copy_is_dropped(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 4).await;
    play.doubled(4).await;
    let holders = ledger.holders(play.job).await.unwrap();
    let early = Timestamp::from_millis(holders[1].oldest.as_millis() - 1);
    let loss = |claimed_by| LossCause::Orphaned { claimed_by };
    ledger.revoke(play.job, &RevokeParams::new(node("b"), loss(early))).await.unwrap();
    assert_eq!(play.summary().await.orphaned, 0, "it was claimed later");
    ledger.revoke(play.job, &RevokeParams::new(node("b"), loss(holders[1].newest))).await.unwrap();
    assert_eq!(play.summary().await.orphaned, 1);
    play.fenced(2, 0, vec![ok(1)]).await;
    play.settled(1, 0, vec![ok(4)]).await;
}

pub(super) async fn who_runs_a_copy_is_told_to_stop_as_any_holder_is(ledger: Arc<dyn Ledger>) {
    let play = Play::of(&ledger, 8).await;
    play.doubled(4).await;
    let beat = async || {
        let held = |shown| Held { job: play.job, chunk: ChunkId(1), token: token(shown) };
        let info = super::fleet::info("n");
        let beat =
            ledger.beat(&BeatParams::new(info.clone(), [held(1), held(2), held(3)])).await.unwrap();
        let reasons = beat.stop.iter().map(|stop| (stop.held.token, stop.reason));
        reasons.collect::<Vec<_>>()
    };
    let revoked = |shown| (token(shown), StopReason::Revoked);
    assert_eq!(beat().await, [revoked(3)]);
    play.settled(2, 0, vec![ok(4)]).await;
    assert_eq!(beat().await, [revoked(1), revoked(2), revoked(3)]);
    let offers = Epoch(2);
    let gone = ledger
        .claim(play.job, &ClaimParams::new(ChunkId(1), offers, token(9), node("c")))
        .await
        .unwrap();
    assert_eq!(gone, Claim::Gone);
    play.check().await;
}
