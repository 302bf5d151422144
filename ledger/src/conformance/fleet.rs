//! Heartbeats, drains and verdicts on workers, lists of schedulers, and hints with their topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, Hint, NodeInfo, NodeState, SchedulerId, Severity, Timestamp};

use super::harness::{Harness, NEVER, await_event, job_id, next_event, node, ok, token};
use crate::Ledger;
use crate::op::{
    Beat, BeatParams, Claim, DeclareLostParams, Event, Held, LossCause, LossEvidence, LossVerdict,
    LostNode, NodeSnapshot, RecordCrashParams, RegisterSchedulerParams, RetryParams, RevokeParams,
    StopReason, Topic,
};

cases! {
    a_heartbeat_returns_the_chunks_to_stop
    nodes_join_drain_and_leave
    a_verdict_on_a_lost_node_stands_until_its_next_heartbeat
    schedulers_see_each_other
    hints_announce_changes
    hints_are_sent_on_the_topics_that_they_concern
    a_separate_handle_is_the_same_ledger
}

pub(super) fn info(name: &str) -> NodeInfo {
    NodeInfo {
        host: "host".into(),
        pid: 42,
        version: "0.1.0".into(),
        queues: vec!["default".into(), "gpu".into()],
        tasks: vec!["noop".into()],
        labels: BTreeMap::from([("zone".into(), "north".into())]),
        slots: 4,
        busy: 1,
        jobs: Some([job_id(1), job_id(2)].into()),
        started_at: Timestamp::from_millis(1_700_000_000_000),
        cpu: 0.25,
        rss: 1 << 33,
        ..NodeInfo::new(node(name))
    }
}

pub(super) async fn a_heartbeat_returns_the_chunks_to_stop(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 8).await;
    harness.open(3, 2).await;
    for chunk in [1, 2] {
        assert!(matches!(harness.claim(chunk, 1, chunk, "a").await, Claim::Granted(_)));
    }
    let other = Harness::with(&ledger, 8, |a| a.job = job_id(2)).await;
    other.take(2).await;
    let held = |job: u64, chunk: u64, shown: u64| Held {
        job: job_id(job),
        chunk: ChunkId(chunk),
        token: token(shown),
    };
    let all = [
        held(9, 1, 1),  // there is no such job
        held(1, 1, 1),  // fine
        held(1, 2, 22), // under another token
        held(1, 3, 3),  // queued
        held(1, 4, 4),  // there is no such chunk
        held(2, 1, 1),  // fine
    ];
    let beat = async || -> Vec<(u64, u64, StopReason)> {
        let beat = ledger.beat(&BeatParams::new(info("a"), all.clone())).await.unwrap();
        assert!(!beat.drain);
        let told = beat.stop.into_iter().map(|stop| {
            let at = all.iter().position(|held| *held == stop.held).expect("one of ours");
            (at as u64, stop.held.chunk.0, stop.reason)
        });
        told.collect()
    };
    use StopReason::{Ended, Paused, Revoked};
    let always = [(0, 1, Ended), (2, 2, Revoked), (3, 3, Revoked), (4, 4, Revoked)];
    assert_eq!(beat().await, always);
    ledger.pause(job_id(2)).await.unwrap();
    assert_eq!(beat().await, [&always[..], &[(5, 1, Paused)]].concat());
    ledger.cancel(job_id(2)).await.unwrap();
    ledger.pause(job_id(1)).await.unwrap();
    let [first, rest @ ..] = always;
    let expected = [&[first, (1, 1, Paused)], &rest[..], &[(5, 1, Ended)]].concat();
    assert_eq!(beat().await, expected, "revoked weighs more than paused");
    let nothing = ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    assert_eq!(nothing, Beat::default());
    harness.check().await;
    other.check().await;
}

pub(super) async fn nodes_join_drain_and_leave(ledger: Arc<dyn Ledger>) {
    let mut known = NodeSnapshot::default();
    // A read with a snapshot returns the same as a first read.
    let listed = async |known: &mut NodeSnapshot| {
        *known = ledger.nodes_since(known).await.unwrap();
        assert_eq!(*known.nodes, ledger.nodes().await.unwrap());
        known.nodes.clone()
    };
    assert_eq!(*listed(&mut known).await, []);
    assert!(!ledger.drain(&node("a")).await.unwrap(), "there is no such node");
    let before = ledger.now().await.unwrap();
    ledger.beat(&BeatParams::new(info("b"), [])).await.unwrap();
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    let nodes = listed(&mut known).await;
    let told: Vec<_> = nodes.iter().map(|node| (*node.info).clone()).collect();
    assert_eq!(told, [info("a"), info("b")]);
    assert!(nodes.iter().all(|node| node.beat_at >= before));

    assert!(ledger.drain(&node("a")).await.unwrap());
    assert!(ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap().drain);
    let draining = NodeInfo { state: NodeState::Draining, cpu: 1.5, ..info("a") };
    assert!(
        ledger.beat(&BeatParams::new(draining.clone(), [])).await.unwrap().drain,
        "it is told again"
    );
    assert!(!ledger.beat(&BeatParams::new(info("b"), [])).await.unwrap().drain);
    let nodes = listed(&mut known).await;
    assert_eq!(*nodes[0].info, draining);
    assert!(!ledger.undrain(&node("c")).await.unwrap(), "there is no such node");
    let beat = async |info: &NodeInfo| {
        ledger.beat(&BeatParams::new(info.clone(), [])).await.unwrap().drain
    };
    for _ in 0..2 {
        assert!(ledger.undrain(&node("a")).await.unwrap());
        assert!(!beat(&draining).await, "the drain is withdrawn");
    }
    assert!(ledger.drain(&node("a")).await.unwrap());
    assert!(beat(&draining).await, "and asked for again");

    assert!(
        ledger.record_crash(&RecordCrashParams::new(node("a"), "killed by SIGKILL")).await.unwrap()
    );
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    let nodes = listed(&mut known).await;
    assert_eq!(
        nodes[0].death.as_deref(),
        Some("killed by SIGKILL"),
        "a heartbeat does not clear it"
    );
    assert_eq!(nodes[1].death, None);

    let leave = async || {
        ledger
            .declare_lost(&DeclareLostParams::new(
                node("a"),
                LossEvidence::Certain,
                LossCause::Left,
            ))
            .await
            .unwrap()
    };
    let LossVerdict::New(left) = leave().await else { panic!("it was there") };
    assert_eq!(leave().await, LossVerdict::Known(left));
    assert!(
        !ledger.record_crash(&RecordCrashParams::new(node("a"), "late")).await.unwrap(),
        "there is no such node any more"
    );
    let names: Vec<_> = listed(&mut known).await.iter().map(|node| node.info.id.clone()).collect();
    assert_eq!(names, [node("b")]);
    let fresh = ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    assert!(!fresh.drain, "a node that returns is not asked to drain");
    let forgotten = NodeInfo { state: NodeState::Drained, ..info("d") };
    for _ in 0..2 {
        let beat = ledger.beat(&BeatParams::new(forgotten.clone(), [])).await.unwrap();
        assert!(beat.drain, "a node that was drained when it was forgotten stays so");
    }
    ledger
        .declare_lost(&DeclareLostParams::new(node("d"), LossEvidence::Certain, LossCause::Left))
        .await
        .unwrap();
    assert_eq!(listed(&mut known).await.len(), 2);
}

pub(super) async fn a_verdict_on_a_lost_node_stands_until_its_next_heartbeat(
    ledger: Arc<dyn Ledger>,
) {
    let mut known = NodeSnapshot::default();
    // A read with a snapshot returns the same as a first read.
    let fleet = async |known: &mut NodeSnapshot| {
        *known = ledger.nodes_since(known).await.unwrap();
        let whole = ledger.nodes_since(&NodeSnapshot::default()).await.unwrap();
        assert_eq!((&known.nodes, &known.lost), (&whole.nodes, &whole.lost));
        let names: Vec<_> = known.nodes.iter().map(|node| node.info.id.to_string()).collect();
        (names, known.lost.to_vec())
    };
    let lose = async |name, evidence, loss: &LossCause| {
        ledger
            .declare_lost(&DeclareLostParams::new(node(name), evidence, loss.clone()))
            .await
            .unwrap()
            .verdict()
    };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    ledger.beat(&BeatParams::new(info("b"), [])).await.unwrap();
    assert_eq!(fleet(&mut known).await, (names(&["a", "b"]), vec![]));
    let beat_at = known.nodes[0].beat_at;
    let judged_by = |beat_at| LossEvidence::LastBeat(beat_at);

    // Evidence that a later heartbeat made void removes no node.
    let earlier = Timestamp::from_millis(beat_at.as_millis() - 1);
    assert_eq!(lose("a", judged_by(earlier), &LossCause::Vanished).await, None);
    assert_eq!(lose("a", LossEvidence::SilentSince(earlier), &LossCause::Vanished).await, None);
    assert_eq!(lose("a", LossEvidence::Absent, &LossCause::Vanished).await, None);
    assert_eq!(fleet(&mut known).await, (names(&["a", "b"]), vec![]));

    let before = ledger.now().await.unwrap();
    let lost = lose("a", judged_by(beat_at), &LossCause::Crashed("SIGKILL".into())).await.unwrap();
    let loss = LossCause::Crashed("SIGKILL".into());
    assert_eq!(lost, LostNode { node: node("a"), at: lost.at, beat_at, loss });
    assert!(lost.at >= before);
    assert_eq!(fleet(&mut known).await, (names(&["b"]), vec![lost.clone()]));
    let silent = LossEvidence::SilentSince(earlier);
    for again in [judged_by(earlier), silent, LossEvidence::Absent, LossEvidence::Certain] {
        let said = lose("a", again, &LossCause::Left).await;
        assert_eq!(said.as_ref(), Some(&lost), "the first verdict stands: {again:?}");
    }

    // A heartbeat lists the node again, whatever it wrote before. Two heartbeats within one
    // millisecond count as one.
    while ledger.now().await.unwrap() <= lost.beat_at {
        tokio::task::yield_now().await;
    }
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    assert_eq!(fleet(&mut known).await, (names(&["a", "b"]), vec![]));
    assert_eq!(lose("a", judged_by(lost.beat_at), &LossCause::Vanished).await, None);
    assert_eq!(*known.nodes[0].info, info("a"), "all of its fields are written again");

    let silent = LossEvidence::SilentSince(known.nodes[0].beat_at);
    assert!(lose("a", silent, &LossCause::Vanished).await.is_some(), "none came later");
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    let ghost = lose("ghost", LossEvidence::Absent, &LossCause::Vanished).await.unwrap();
    assert_eq!((ghost.beat_at, &ghost.loss), (Timestamp::default(), &LossCause::Vanished));
    let left = lose("b", LossEvidence::Certain, &LossCause::Left).await.unwrap();
    assert_eq!(left.loss, LossCause::Left);
    assert_eq!(fleet(&mut known).await, (names(&["a"]), vec![left, ghost]));
}

pub(super) async fn schedulers_see_each_other(ledger: Arc<dyn Ledger>) {
    let [one, two] = ["s-one", "s-two"].map(SchedulerId::new);
    let register = async |id: &SchedulerId, within| -> Vec<(SchedulerId, Timestamp)> {
        let present = ledger
            .register_scheduler(&RegisterSchedulerParams::new(id.clone(), within))
            .await
            .unwrap();
        present.into_iter().map(|record| (record.id, record.beat_at)).collect()
    };
    let names = |present: &[(SchedulerId, Timestamp)]| -> Vec<SchedulerId> {
        present.iter().map(|(id, _)| id.clone()).collect()
    };
    let before = ledger.now().await.unwrap();
    assert_eq!(names(&register(&two, NEVER).await), std::slice::from_ref(&two));
    let both = register(&one, NEVER).await;
    assert_eq!(names(&both), [one.clone(), two.clone()]);
    assert!(both.iter().all(|(_, beat_at)| *beat_at >= before), "{both:?}");
    assert!(names(&register(&two, Duration::ZERO).await).contains(&two));
    let listed = ledger.schedulers().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|record| record.id).collect();
    assert_eq!(listed, [one.clone(), two.clone()], "also those that have been silent since");
    let mut events = ledger.events(Topic::Schedulers).await.unwrap();
    ledger.deregister_scheduler(&one).await.unwrap();
    ledger.deregister_scheduler(&one).await.unwrap();
    await_event(&mut events, &Event::Hint(Hint::Scheduler { scheduler: one.clone() })).await;
    assert_eq!(names(&register(&two, NEVER).await), std::slice::from_ref(&two));
    assert_eq!(
        names(&register(&one, NEVER).await),
        [one, two],
        "a scheduler that deregistered registers again"
    );
}

pub(super) async fn hints_announce_changes(ledger: Arc<dyn Ledger>) {
    let mut events = ledger.events(Topic::Schedulers).await.unwrap();
    let job = job_id(1);
    let is = |state| Event::Hint(Hint::Job { job, state });
    let harness = Harness::with(&ledger, 8, |a| a.fan_in = Some(8)).await;
    await_event(&mut events, &is(JobState::Queued)).await;
    ledger.pause(job).await.unwrap();
    await_event(&mut events, &is(JobState::Paused)).await;
    ledger.resume(job).await.unwrap();
    await_event(&mut events, &is(JobState::Queued)).await;
    let held = harness.take(4).await;
    harness.release(held.chunk.0, held.chunk.0).await;
    await_event(&mut events, &Event::Hint(Hint::Room { job })).await;
    assert!(matches!(harness.claim(1, 2, 1, "a").await, Claim::Granted(_)));
    ledger.revoke(job, &RevokeParams::new(node("a"), LossCause::Left)).await.unwrap();
    await_event(&mut events, &Event::Hint(Hint::Room { job })).await;
    assert!(matches!(harness.claim(1, 3, 1, "a").await, Claim::Granted(_)));
    harness.commit(ChunkId(1), 0, vec![ok(4)]).await;
    await_event(&mut events, &Event::Hint(Hint::Room { job })).await;
    let held = harness.take(4).await;
    harness.succeed(&held).await;
    await_event(&mut events, &is(JobState::Reducing)).await;
    ledger.fail(job, "deadline").await.unwrap();
    await_event(&mut events, &is(JobState::Failed)).await;
    ledger.retry(job, &RetryParams::all()).await.unwrap();
    await_event(&mut events, &is(JobState::Running)).await;
    ledger.cancel(job).await.unwrap();
    await_event(&mut events, &is(JobState::Cancelled)).await;

    let came = Event::Hint(Hint::Node { node: node("a") });
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    await_event(&mut events, &came).await;
    ledger
        .beat(&BeatParams::new(NodeInfo { state: NodeState::Draining, ..info("a") }, []))
        .await
        .unwrap();
    await_event(&mut events, &came).await;
    ledger
        .declare_lost(&DeclareLostParams::new(node("a"), LossEvidence::Certain, LossCause::Left))
        .await
        .unwrap();
    await_event(&mut events, &came).await;
    harness.check().await;
}

/// Other hints may arrive, but none that wake the subscribers of a topic for nothing.
pub(super) async fn hints_are_sent_on_the_topics_that_they_concern(ledger: Arc<dyn Ledger>) {
    let [mut clients, mut workers] =
        [ledger.events(Topic::Clients).await, ledger.events(Topic::Workers).await]
            .map(Result::unwrap);
    let job = job_id(1);
    let is = |state| Event::Hint(Hint::Job { job, state });
    let harness = Harness::of(&ledger, 8).await;
    assert_eq!(next_event(&mut clients).await, is(JobState::Queued));
    let held = harness.take(4).await;
    harness.release(held.chunk.0, held.chunk.0).await;
    ledger.pause(job).await.unwrap();
    for events in [&mut clients, &mut workers] {
        assert_eq!(next_event(events).await, is(JobState::Paused), "it ran and had room");
    }
    ledger.cancel(job).await.unwrap();
    for events in [&mut clients, &mut workers] {
        assert_eq!(next_event(events).await, is(JobState::Cancelled));
    }
    ledger.beat(&BeatParams::new(info("a"), [])).await.unwrap();
    ledger.drain(&node("a")).await.unwrap();
    await_event(&mut workers, &Event::Hint(Hint::Node { node: node("a") })).await;
    ledger.reject(job_id(2), "no such task").await.unwrap();
    let rejected = Event::Hint(Hint::Job { job: job_id(2), state: JobState::Rejected });
    assert_eq!(next_event(&mut clients).await, rejected, "workers are nothing to them");
    harness.check().await;
}

pub(super) async fn a_separate_handle_is_the_same_ledger(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 2).await;
    let other = ledger.separate();
    assert_eq!(other.job(harness.job).await.unwrap(), Some(harness.summary().await));
    assert_eq!(other.describe(), ledger.describe());
    other.cancel(harness.job).await.unwrap();
    assert_eq!(harness.summary().await.state, JobState::Cancelled);
    let findings = other.examine().await;
    assert!(!findings.is_empty());
    let broken: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(broken.is_empty(), "{broken:?}");
    harness.check().await;
}
