//! The work of nodes and schedulers that are lost runs elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{
    BeatParams, DeclareLostParams, Ledger as _, LossCause, LossEvidence, OpenParams, ReleaseParams,
};
use longshore_protocol::{NodeId, SchedulerId, Timestamp, rendezvous};

use super::super::fleet::tests::{holder, record as worker};
use super::super::jobs::Ownership;
use super::super::peers::tests::record;
use super::super::{Action, Event};
use super::ends;
use super::world::{LEDGER_AHEAD_MS, World, at_once};

/// For tests in which an idle node would else run a chunk speculatively, long before it is revoked.
const NON_SPECULATIVE: [&str; 1] = ["noop"];

#[test]
fn the_chunks_of_a_dead_node_run_elsewhere() {
    let mut world = World::new(3, 2);
    let job = world.submit(60, 500_000, "");
    world.run_for(2_000);
    world.kill(1);
    let killed = world.now_ms();
    world.run_until(7_000, "the revoke", |world| world.summary(job).lost > 0);
    let after = world.now_ms() - killed;
    assert!((4_000..=6_000).contains(&after), "revoked after {after} ms");
    ends(&mut world, 30_000, job);
    assert_eq!(at_once(world.ledger.nodes()).unwrap().len(), 2, "it is off the list");
}

#[test]
fn only_jobs_of_which_a_lost_node_may_hold_chunks_are_asked_about() {
    let mut world = World::new(1, 2);
    let running = world.submit(1, 60_000_000, "");
    let named = world.submit(1, 60_000_000, r#","queue":"other""#);
    for _ in 0..10_000 {
        world.submit(1, 1_000, r#","queue":"empty""#);
    }
    world.run_for(30_000);
    assert_eq!(world.summary(running).running_chunks, 1);
    let mut info = Arc::unwrap_or_clone(worker("n9", "default", 1, 1).info);
    info.jobs = Some([named].into());
    at_once(world.ledger.beat(&BeatParams::new(info, []))).unwrap();
    world.run_for(501);
    let node = NodeId::new("n9");
    let by = Timestamp::from_millis(LEDGER_AHEAD_MS + world.now_ms() + 100);
    let mut at = |ms: u64| {
        let now = Timestamp::from_millis(world.now_ms() + ms);
        let (workers, schedulers) = (BTreeSet::from([node.clone()]), BTreeSet::new());
        world.engine.step(now, Event::ConnectionsLost { workers, schedulers })
    };
    assert_eq!(at(0), []);
    let (evidence, cause) = (LossEvidence::SilentSince(by), LossCause::Vanished);
    let lose = Action::DeclareLost { node: node.clone(), evidence, cause: cause.clone() };
    assert_eq!(at(100), [lose]);
    let verdict = {
        let params = DeclareLostParams::new(node.clone(), evidence, cause.clone());
        at_once(world.ledger.declare_lost(&params)).unwrap().verdict()
    };
    let mut then =
        |ms: u64, event| world.engine.step(Timestamp::from_millis(world.now_ms() + ms), event);
    let declared = Event::LossVerdict { node: node.clone(), verdict };
    let revoke = |job| Action::RevokeNode { job, node: node.clone(), cause: cause.clone() };
    // No call is made for the ten thousand jobs without open chunks.
    let first = [revoke(named), Action::ReadHolders { job: running }];
    assert_eq!(then(110, declared.clone()), first);
    assert_eq!(then(110, declared), [], "the verdict is known");
    let holders = vec![holder("n9", 5, 5)];
    assert_eq!(then(120, Event::HoldersRead { job: running, holders }), [revoke(running)]);
    let revoked = |job, is_done, is_queued_again| {
        let node = node.clone();
        Event::Revoked { job, node, is_done, is_queued_again }
    };
    let swept = then(130, revoked(running, true, true));
    assert!(matches!(&swept[..], [Action::Sweep { suspect_lost: true, .. }]), "{swept:?}");
    assert_eq!(then(140, revoked(named, false, false)), [], "the ledger did not answer");
    let again = then(400, Event::Tick);
    assert!(again.contains(&revoke(named)), "{again:?}");
}

/// Retries are sent to one node, whose queue ends with it.
#[test]
fn a_retry_that_waits_for_a_killed_node_is_published_again_at_once() {
    for has_failed in [false, true] {
        let mut world = World::new(3, 1);
        world.make_hole(1, has_failed);
        let job = world.submit(60, 100_000, r#","chunk":1"#);
        world.run_for(1_501);
        assert_eq!(world.summary(job).last_error.is_some(), has_failed);
        let suspects = |action: &Action| matches!(action, Action::Sweep { suspect_lost: true, .. });
        let is_suspected = (0..40).step_by(2).any(|ms| {
            let now = Timestamp::from_millis(world.now_ms() + 10 * ms);
            let (workers, schedulers) = ([NodeId::new("n2")].into(), BTreeSet::new());
            world
                .engine
                .step(now, Event::ConnectionsLost { workers, schedulers })
                .iter()
                .any(suspects)
        });
        assert_eq!(is_suspected, has_failed);
    }
}

/// The verdict may be that of another scheduler: this one reads it from the ledger.
#[test]
fn a_scheduler_that_discovers_a_job_takes_back_what_lost_nodes_hold_of_it() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let open = OpenParams::new(1, 1, Duration::from_secs(5));
    let message = at_once(world.ledger.open(job, &open)).unwrap().remove(0);
    world.claim_as("stranger", message);
    let stranger = NodeId::new("stranger");
    let params = DeclareLostParams::new(stranger, LossEvidence::Absent, LossCause::Vanished);
    let lose = world.ledger.declare_lost(&params);
    assert!(at_once(lose).unwrap().verdict().is_some());
    world.run_until(50, "the revoke", |world| world.summary(job).lost > 0);
    ends(&mut world, 5_000, job);
}

#[test]
fn a_claim_after_the_loss_of_its_node_is_revoked_at_the_next_read_of_the_holders() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let ghost = NodeId::new("ghost");
    let params = DeclareLostParams::new(ghost, LossEvidence::Absent, LossCause::Vanished);
    let lose = world.ledger.declare_lost(&params);
    assert!(at_once(lose).unwrap().verdict().is_some());
    world.run_for(100);
    world.haunt("ghost");
    world.run_until(5_100, "the revoke", |world| world.summary(job).lost > 0);
    ends(&mut world, 5_000, job);
}

#[test]
fn a_node_that_was_declared_lost_and_sends_heartbeats_again_keeps_its_chunks() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let node = NodeId::new("late");
    let params = DeclareLostParams::new(node, LossEvidence::Absent, LossCause::Vanished);
    let lose = world.ledger.declare_lost(&params);
    assert!(at_once(lose).unwrap().verdict().is_some());
    world.run_for(100);
    world.beat("late");
    world.run_for(600);
    world.haunt("late");
    for _ in 0..20 {
        world.beat("late");
        world.run_for(1_000);
    }
    assert_eq!(world.summary(job).lost, 0);
}

#[test]
fn a_chunk_that_a_silent_node_fetched_and_never_claimed_runs_elsewhere_once_it_is_dead() {
    let mut world = World::new(3, 1);
    world.submit(3, 5_000_000, r#","chunk":1"#);
    world.run_for(2_000);
    world.kill(1);
    world.run_for(1_500);
    let job = world.submit(1, 1_000, "");
    world.run_for(100);
    world.swallow();
    world.run_until(6_000 - 1_600, "its beginning", |world| world.began_ms.contains_key(&job));
}

#[test]
fn a_chunk_that_another_silent_node_fetches_is_published_once_more() {
    let mut world = World::new(2, 1);
    let job = world.submit(2, 6_200_000, r#","chunk":1"#);
    world.run_for(2_000);
    world.kill(1);
    world.run_until(5_100, "the revoke", |world| world.summary(job).lost > 0);
    assert!(world.now_ms() < 6_150, "the other is still busy");
    world.run_for(20);
    world.swallow();
    world.run_until(600, "its beginning", |world| world.sizes[&job].len() == 3);
}

#[test]
fn a_chunk_that_a_scheduler_opened_and_did_not_publish_is_published_by_the_next() {
    let mut world = World::new(2, 2);
    let job = world.submit(4, 10_000, "");
    let open = OpenParams::new(4, 1, Duration::from_secs(5));
    assert_eq!(at_once(world.ledger.open(job, &open)).unwrap().len(), 4);
    ends(&mut world, 600, job);
}

#[test]
fn a_chunk_of_an_unlisted_holder_runs_elsewhere() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    world.run_for(100);
    world.haunt("ghost");
    let haunted = world.now_ms();
    world.run_until(20_000, "the revoke", |world| world.summary(job).lost > 0);
    let after = world.now_ms() - haunted;
    // The holders are read after 5 s, and the holder is lost after 5 s more.
    assert!((9_900..=10_600).contains(&after), "revoked after {after} ms");
    ends(&mut world, 5_000, job);
}

#[test]
fn a_holder_that_comes_on_the_list_in_time_keeps_its_chunk() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    world.run_for(100);
    world.haunt("late");
    world.run_for(7_000);
    for _ in 0..30 {
        world.beat("late");
        world.run_for(1_000);
    }
    let summary = world.summary(job);
    assert_eq!((summary.lost, summary.running_chunks), (0, 1));
}

#[test]
fn an_orphaned_chunk_runs_elsewhere_after_some_heartbeats_of_its_holder() {
    let mut world = World::new(1, 2);
    world.non_speculative = NON_SPECULATIVE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    world.run_for(100);
    world.haunt("unaware");
    let haunted = world.now_ms();
    let mut unaware = Arc::unwrap_or_clone(worker("unaware", "other", 1, 0).info);
    unaware.jobs = Some(BTreeSet::new());
    for _ in 0..20 {
        at_once(world.ledger.beat(&BeatParams::new(unaware.clone(), []))).unwrap();
        world.run_until(1_000, "", |world| world.summary(job).lost > 0);
    }
    let summary = world.summary(job);
    assert_eq!((summary.orphaned, summary.crashes), (1, 0), "{summary:?}");
    let recovery = at_once(world.ledger.recoveries(job, 1)).unwrap().remove(0);
    let after = recovery.at.as_millis() - LEDGER_AHEAD_MS - haunted;
    // The holders are read after 5 s, and again after three heartbeats and the next read of the
    // list.
    assert!((7_000..=9_000).contains(&after), "revoked after {after} ms");
    ends(&mut world, 5_000, job);
}

#[test]
fn a_chunk_claimed_between_the_heartbeat_and_the_second_read_is_kept() {
    let mut world = World::new(1, 2);
    let job = world.submit(40, 10_000_000, r#","chunk":1"#);
    world.run_for(100);
    let first = world.haunt("idle");
    let mut idle = Arc::unwrap_or_clone(worker("idle", "other", 1, 0).info);
    idle.jobs = Some(BTreeSet::new());
    let beat = |world: &World| {
        drop(at_once(world.ledger.beat(&BeatParams::new(idle.clone(), []))).unwrap());
    };
    for _ in 0..6 {
        beat(&world);
        world.run_for(1_000);
    }
    // The node is a suspect by now. It names the job while it holds a chunk, but that heartbeat is
    // missed.
    at_once(world.ledger.release(job, &ReleaseParams::new(first.chunk, first.token))).unwrap();
    world.run_for(100);
    world.haunt("idle");
    let claimed = world.now_ms();
    for _ in 0..20 {
        beat(&world);
        world.run_until(1_000, "", |world| world.summary(job).lost > 0);
    }
    assert_eq!(world.summary(job).orphaned, 1, "of this claim it really does not know");
    let recovery = at_once(world.ledger.recoveries(job, 1)).unwrap().remove(0);
    let after = recovery.at.as_millis() - LEDGER_AHEAD_MS - claimed;
    assert!(after >= 3_000, "revoked after {after} ms, on the proof of another claim");
}

#[test]
fn a_node_that_comes_back_keeps_what_it_takes_on() {
    let mut world = World::new(2, 2);
    let job = world.submit(1_000, 20_000_000, "");
    world.run_for(1_000);
    world.kill(1);
    world.run_until(7_000, "its work to run on other nodes", |world| world.summary(job).lost == 2);
    world.thaw(1);
    world.run_until(2_000, "it to work again", |w| w.summary(job).running_chunks == 4);
    world.run_for(15_000);
    assert_eq!(world.summary(job).lost, 2, "nothing is taken from it once it is alive");
}

#[test]
fn a_chunk_that_was_placed_on_a_dead_node_is_placed_again() {
    for placement in [r#""round_robin""#, r#"{"hash":""}"#] {
        let mut world = World::new(4, 2);
        let job = world.submit(400, 20_000, &format!(r#","placement":{placement}"#));
        world.run_for(300);
        world.kill(2);
        ends(&mut world, 60_000, job);
    }
}

#[test]
fn a_queue_of_another_scheduler_is_left_alone_until_it_is_gone() {
    let other = SchedulerId::new("other");
    let me = SchedulerId::new("me");
    let peers = [me, other.clone()];
    let theirs = (0..)
        .map(|i| format!("queue{i}"))
        .find(|queue| rendezvous::owner(queue, &peers) == Some(&other))
        .unwrap();
    let mut world = World::new(1, 4);
    let registered = |names: &[&str]| Event::Peers(names.iter().map(|it| record(it, 1)).collect());
    world.engine.step(Timestamp::default(), registered(&["me", "other"]));
    world.schedulers = vec!["me", "other"];
    let job = world.submit(10, 1_000, &format!(r#","queue":"{theirs}""#));
    world.run_for(2_000);
    assert!(matches!(ownership(&world, job), Some(Ownership::Elsewhere(_))));
    let now = Timestamp::from_millis(world.now_ms());
    let actions = world.engine.step(now, registered(&["me"]));
    assert_eq!(actions, [Action::ListJobs, Action::ReadJob { job }]);
}

#[test]
fn a_queue_of_a_scheduler_that_died_is_taken_over() {
    let [me, other] = ["me", "other"].map(SchedulerId::new);
    let both = [me, other.clone()];
    let is_theirs = |name: &String| rendezvous::owner(name, &both) == Some(&other);
    let queue = (0..).map(|i| format!("queue{i}")).find(is_theirs).expect("some are");
    let mut world = World::new(1, 4);
    world
        .engine
        .step(Timestamp::default(), Event::Peers(vec![record("me", 1), record("other", 1)]));
    world.schedulers = vec!["me", "other"];
    let job = world.submit(10, 1_000, &format!(r#","queue":"{queue}""#));
    world.run_for(8_000);
    assert!(matches!(ownership(&world, job), Some(Ownership::Elsewhere(_))));
    let mut at = |ms: u64| {
        let now = Timestamp::from_millis(world.now_ms() + ms);
        let (workers, schedulers) = (BTreeSet::new(), BTreeSet::from([other.clone()]));
        world.engine.step(now, Event::ConnectionsLost { workers, schedulers })
    };
    assert_eq!((at(0), at(50)), (vec![], vec![]));
    let actions = at(100);
    let deregister = Action::DeregisterScheduler { scheduler: other.clone() };
    assert_eq!(actions, [Action::ListJobs, deregister, Action::ReadJob { job }]);
    assert_eq!(at(150), []);
}

#[test]
fn the_chunks_of_a_dead_node_are_published_at_once_though_no_hint_comes() {
    // Whenever the next sweep is due, which comes once a second.
    for wait in (0..1_000).step_by(125) {
        let mut world = World::new(2, 1);
        world.loses_hints = true;
        world.run_for(wait);
        let job = world.submit(20, 20_000_000, r#","chunk":1,"max_parallel":1"#);
        let runs = |world: &World| world.summary(job).running_chunks == 1;
        world.run_until(5_000, "a chunk to run", runs);
        world.run_for(2_000);
        let holder = at_once(world.ledger.holders(job)).unwrap();
        world.kill(usize::from(holder[0].node == NodeId::new("n1")));
        world.run_until(7_000, "the revoke", |world| world.summary(job).lost > 0);
        let revoked = world.now_ms();
        world.run_until(2_000, "it to run elsewhere", runs);
        let after = world.now_ms() - revoked;
        assert!(after <= 5, "it began after {after} ms, the job {wait} ms after the scheduler");
    }
}

fn ownership(world: &World, job: longshore_protocol::JobId) -> Option<&Ownership> {
    world.engine.jobs.get(job).map(|entry| &entry.ownership)
}
