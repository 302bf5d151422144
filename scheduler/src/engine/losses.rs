//! What becomes of the work of nodes and schedulers that are lost, on the world of `simulation`.

use std::sync::Arc;

use longshore_ledger::{BeatParams, DeclareLostParams, Ledger as _, OpenParams, ReleaseParams};

use super::fleet::tests::{holder, record as worker};
use super::peers::tests::record;
use super::simulation::{LEDGER_AHEAD_MS, World, at_once};
use super::tests::ends;
use super::*;

/// For those whose chunk an idle node would run as well, long before it is taken from its holder.
const NOT_TWICE: [&str; 1] = ["noop"];

#[test]
fn what_a_dead_node_held_runs_elsewhere() {
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
fn among_many_jobs_only_those_are_asked_about_of_which_a_lost_node_may_hold_something() {
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
    at_once(world.ledger.beat(&BeatParams::new(info.clone(), []))).unwrap();
    world.run_for(501);
    let node = NodeId::new("n9");
    let by = Timestamp::from_millis(LEDGER_AHEAD_MS + world.now_ms() + 100);
    let mut at = |ms: u64| {
        let now = Timestamp::from_millis(world.now_ms() + ms);
        let (workers, schedulers) = (BTreeSet::from([node.clone()]), BTreeSet::new());
        world.engine.step(now, Event::Severed { workers, schedulers })
    };
    assert_eq!(at(0), []);
    let (grounds, loss) = (LossEvidence::SilentSince(by), LossCause::Vanished);
    let lose = Action::Lose { node: node.clone(), grounds, loss: loss.clone() };
    assert_eq!(at(100), [lose]);
    let verdict = at_once(world.ledger.declare_lost(&DeclareLostParams::new(
        node.clone(),
        grounds,
        loss.clone(),
    )))
    .unwrap()
    .verdict();
    let mut then =
        |ms: u64, event| world.engine.step(Timestamp::from_millis(world.now_ms() + ms), event);
    let declared = Event::LossVerdict { node: node.clone(), verdict };
    let revoke = |job| Action::Revoke { job, node: node.clone(), loss: loss.clone() };
    // Nothing is asked of the ten thousand that have no chunk open.
    let first = [revoke(named), Action::AskHolders { job: running }];
    assert_eq!(then(110, declared.clone()), first);
    assert_eq!(then(110, declared), [], "it is known");
    let by = vec![holder("n9", 5, 5)];
    assert_eq!(then(120, Event::Held { job: running, by }), [revoke(running)]);
    let revoked = |job, is_done, is_queued_again| {
        let node = node.clone();
        Event::Revoked { job, node, is_done, is_queued_again }
    };
    let swept = then(130, revoked(running, true, true));
    assert!(matches!(&swept[..], [Action::Sweep { doubt: true, .. }]), "{swept:?}");
    assert_eq!(then(140, revoked(named, false, false)), [], "the ledger did not answer");
    let again = then(400, Event::Tick);
    assert!(again.contains(&revoke(named)), "{again:?}");
}

/// Retries are sent to one node, whose queue ends with it.
#[test]
fn what_failed_and_waits_for_a_node_that_is_killed_is_looked_for_at_once() {
    for has_failed in [false, true] {
        let mut world = World::new(3, 1);
        world.make_hole(1, has_failed);
        let job = world.submit(60, 100_000, r#","chunk":1"#);
        world.run_for(1_501);
        assert_eq!(world.summary(job).last_error.is_some(), has_failed);
        let doubts = |action: &Action| matches!(action, Action::Sweep { doubt: true, .. });
        let doubted = (0..40).step_by(2).any(|ms| {
            let now = Timestamp::from_millis(world.now_ms() + 10 * ms);
            let (workers, schedulers) = ([NodeId::new("n2")].into(), BTreeSet::new());
            world.engine.step(now, Event::Severed { workers, schedulers }).iter().any(doubts)
        });
        assert_eq!(doubted, has_failed);
    }
}

/// The verdict of another scheduler, say, of which this one knows nothing but what the ledger tells.
#[test]
fn whoever_begins_to_know_a_job_takes_back_what_lost_nodes_hold_of_it() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let open = OpenParams::new(1, 1, Duration::from_secs(5));
    let message = at_once(world.ledger.open(job, &open)).unwrap().remove(0);
    world.claim_as("stranger", message);
    let stranger = NodeId::new("stranger");
    let params =
        DeclareLostParams::new(stranger.clone(), LossEvidence::Absent, LossCause::Vanished);
    let lose = world.ledger.declare_lost(&params);
    assert!(at_once(lose).unwrap().verdict().is_some());
    world.run_until(50, "the revoke", |world| world.summary(job).lost > 0);
    ends(&mut world, 5_000, job);
}

#[test]
fn a_claim_that_comes_after_its_node_was_lost_is_taken_back_at_the_next_look_at_the_holders() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let ghost = NodeId::new("ghost");
    let params = DeclareLostParams::new(ghost.clone(), LossEvidence::Absent, LossCause::Vanished);
    let lose = world.ledger.declare_lost(&params);
    assert!(at_once(lose).unwrap().verdict().is_some());
    world.run_for(100);
    world.haunt("ghost");
    world.run_until(5_100, "the revoke", |world| world.summary(job).lost > 0);
    ends(&mut world, 5_000, job);
}

#[test]
fn who_was_declared_lost_and_beats_again_is_spared() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    let node = NodeId::new("late");
    let params = DeclareLostParams::new(node.clone(), LossEvidence::Absent, LossCause::Vanished);
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
fn what_a_silent_node_fetched_and_never_claimed_runs_elsewhere_once_it_is_dead() {
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
fn what_is_queued_again_and_fetched_by_another_silent_node_is_published_once_more() {
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
fn what_a_scheduler_opened_and_did_not_publish_is_published_by_the_next() {
    let mut world = World::new(2, 2);
    let job = world.submit(4, 10_000, "");
    let open = OpenParams::new(4, 1, Duration::from_secs(5));
    assert_eq!(at_once(world.ledger.open(job, &open)).unwrap().len(), 4);
    ends(&mut world, 600, job);
}

#[test]
fn a_chunk_of_somebody_on_no_list_runs_elsewhere() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
    let job = world.submit(40, 100_000, "");
    world.run_for(100);
    world.haunt("ghost");
    let haunted = world.now_ms();
    world.run_until(20_000, "the revoke", |world| world.summary(job).lost > 0);
    let after = world.now_ms() - haunted;
    // Asked after 5 s, believed after 5 more.
    assert!((9_900..=10_600).contains(&after), "revoked after {after} ms");
    ends(&mut world, 5_000, job);
}

#[test]
fn a_holder_that_comes_on_the_list_in_time_keeps_its_chunk() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
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
fn what_a_living_node_knows_nothing_of_runs_elsewhere_after_some_of_its_beats() {
    let mut world = World::new(1, 2);
    world.non_speculative = NOT_TWICE.map(String::from).to_vec();
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
    // Asked after 5 s, and once more after three beats and the next look at the list.
    assert!((7_000..=9_000).contains(&after), "revoked after {after} ms");
    ends(&mut world, 5_000, job);
}

#[test]
fn what_a_node_without_work_claims_between_its_beat_and_the_second_look_it_keeps() {
    let mut world = World::new(1, 2);
    let job = world.submit(40, 10_000_000, r#","chunk":1"#);
    world.run_for(100);
    let first = world.haunt("idle");
    let mut idle = Arc::unwrap_or_clone(worker("idle", "other", 1, 0).info);
    idle.jobs = Some(BTreeSet::new());
    let beat = |world: &World| {
        drop(at_once(world.ledger.beat(&BeatParams::new(idle.clone(), []))).unwrap())
    };
    for _ in 0..6 {
        beat(&world);
        world.run_for(1_000);
    }
    // It was under suspicion by now. It names the job while it has something of it, but nobody hears that.
    at_once(world.ledger.release(job, &ReleaseParams::new(first.chunk, first.token))).unwrap();
    world.run_for(100);
    world.haunt("idle");
    let claimed = world.now_ms();
    for _ in 0..20 {
        beat(&world);
        world.run_until(1_000, "", |world| world.summary(job).lost > 0);
    }
    assert_eq!(world.summary(job).orphaned, 1, "of this claim it really knows nothing");
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
    world.run_until(7_000, "its work to go to others", |world| world.summary(job).lost == 2);
    world.thaw(1);
    world.run_until(2_000, "it to work again", |w| w.summary(job).running_chunks == 4);
    world.run_for(15_000);
    assert_eq!(world.summary(job).lost, 2, "nothing is taken from it once it lives");
}

#[test]
fn what_was_placed_on_a_dead_node_is_placed_again() {
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
        .find(|queue| ring::owner(queue, &peers) == Some(&other))
        .unwrap();
    let mut world = World::new(1, 4);
    let signed_in = |names: &[&str]| Event::Peers(names.iter().map(|it| record(it, 1)).collect());
    world.engine.step(Timestamp::default(), signed_in(&["me", "other"]));
    world.schedulers = vec!["me", "other"];
    let job = world.submit(10, 1_000, &format!(r#","queue":"{theirs}""#));
    world.run_for(2_000);
    assert!(matches!(world.engine.jobs[&job].known, Known::Elsewhere(_)));
    let now = Timestamp::from_millis(world.now_ms());
    let actions = world.engine.step(now, signed_in(&["me"]));
    assert_eq!(actions, [Action::List, Action::Look { job }]);
}

#[test]
fn a_queue_of_a_scheduler_that_died_is_taken_over() {
    let [me, other] = ["me", "other"].map(SchedulerId::new);
    let both = [me, other.clone()];
    let is_theirs = |name: &String| ring::owner(name, &both) == Some(&other);
    let queue = (0..).map(|i| format!("queue{i}")).find(is_theirs).expect("some are");
    let mut world = World::new(1, 4);
    world
        .engine
        .step(Timestamp::default(), Event::Peers(vec![record("me", 1), record("other", 1)]));
    world.schedulers = vec!["me", "other"];
    let job = world.submit(10, 1_000, &format!(r#","queue":"{queue}""#));
    world.run_for(8_000);
    assert!(matches!(world.engine.jobs[&job].known, Known::Elsewhere(_)));
    let mut at = |ms: u64| {
        let now = Timestamp::from_millis(world.now_ms() + ms);
        let (workers, schedulers) = (BTreeSet::new(), BTreeSet::from([other.clone()]));
        world.engine.step(now, Event::Severed { workers, schedulers })
    };
    assert_eq!((at(0), at(50)), (vec![], vec![]));
    let actions = at(100);
    let withdraw = Action::Withdraw { scheduler: other.clone() };
    assert_eq!(actions, [Action::List, withdraw, Action::Look { job }]);
    assert_eq!(at(150), []);
}

#[test]
fn what_a_dead_node_held_is_published_at_once_though_no_hint_tells_of_it() {
    // Whatever the time of the next sweep by the clock, which comes once a second.
    for wait in (0..1_000).step_by(125) {
        let mut world = World::new(2, 1);
        world.deaf = true;
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
