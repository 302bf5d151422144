//! Outages of the ledger: no subtask begins twice because of them.

use super::ends;
use super::world::{Condition, World};

/// Two nodes with two slots each, which run a subtask of 20 s when the ledger fails for a minute.
#[track_caller]
fn begins_nothing_twice(ledger_is: Condition) {
    let mut world = World::new(2, 2);
    let job = world.submit(5, 20_000_000, r#","chunk":1"#);
    world.run_until(30_000, "the last one", |world| world.summary(job).counts.done == 4);
    world.outage(ledger_is, 60_000);
    world.run_for(900);
    let summary = world.summary(job);
    assert_eq!((summary.lost, summary.recoveries), (0, 0), "no node is taken for dead");
    assert_eq!(world.offered, 0, "no chunk counts as slow");
    ends(&mut world, 30_000, job);
    let summary = world.summary(job);
    assert_eq!((summary.lost, summary.speculative_chunks, summary.attempts), (0, 0, 5));
}

#[test]
fn no_subtask_begins_twice_because_the_ledger_was_away() {
    begins_nothing_twice(Condition::Away);
}

#[test]
fn no_subtask_begins_twice_because_the_ledger_refused_writes() {
    begins_nothing_twice(Condition::Full);
}

#[test]
fn a_node_that_died_in_an_outage_is_found_dead_by_its_silence_afterwards() {
    let mut world = World::new(2, 1);
    let job = world.submit(2, 30_000_000, r#","chunk":1"#);
    world.run_for(1_000);
    world.kill(1);
    world.outage(Condition::Full, 20_000);
    let back = world.now_ms();
    world.run_until(7_000, "the revoke", |world| world.summary(job).lost > 0);
    let after = world.now_ms() - back;
    assert!((5_000..=6_000).contains(&after), "revoked after {after} ms");
}
