//! Which chunks run speculatively: slow ones at the end of a job, on another node.

use super::ends;
use super::world::World;

/// Two nodes with two slots each, of which one takes a hundred times as long as the other.
fn uneven() -> World {
    let mut world = World::new(2, 2);
    world.slow_down(1, 100);
    world
}

#[test]
fn a_chunk_of_a_slow_node_at_the_end_is_run_by_an_idle_one_too() {
    let mut world = uneven();
    let job = world.submit(40, 500_000, "");
    // The slow node takes 50 s for a subtask, and holds two chunks.
    ends(&mut world, 25_000, job);
    assert_eq!(world.summary(job).speculative_chunks, 2);
    assert_eq!(world.summary(job).attempts, 40, "each counted once");
}

#[test]
fn no_chunk_runs_speculatively_that_takes_as_long_as_the_others() {
    let mut world = World::new(2, 2);
    let jobs = [
        world.submit(5, 60_000_000, ""),
        world.submit(40, 700_000, r#","chunk":10"#),
        world.submit(1, 300_000_000, ""),
    ];
    for job in jobs {
        ends(&mut world, 600_000, job);
        assert_eq!(world.summary(job).speculative_chunks, 0);
    }
}

#[test]
fn no_chunk_is_offered_to_its_holder() {
    let mut world = World::new(1, 2);
    let job = world.submit(21, 500_000, "");
    world.run_until(9_000, "the last to come", |world| world.summary(job).counts.done == 18);
    world.slow_down(0, 1_000);
    world.run_for(30_000);
    assert_eq!(world.summary(job).counts.done, 20, "one slot is idle, and the other hangs");
    assert_eq!(world.offered, 0);
}

#[test]
fn no_chunk_runs_speculatively_while_other_jobs_have_work() {
    let mut world = uneven();
    let job = world.submit(8, 500_000, "");
    world.run_for(1_000);
    world.submit(10_000, 500_000, "");
    world.run_for(20_000);
    assert_eq!(world.summary(job).speculative_chunks, 0);
}

#[test]
fn no_chunk_runs_speculatively_that_must_not_run_twice() {
    let mut world = uneven();
    world.non_speculative = vec!["noop".into()];
    let jobs = [world.submit(8, 500_000, ""), world.submit(8, 500_000, r#","max_parallel":3"#)];
    world.run_for(30_000);
    world.non_speculative.clear();
    let speculative = jobs.map(|job| world.summary(job).speculative_chunks);
    assert_eq!(speculative, [0, 0]);
    world.run_for(5_000);
    let speculative = jobs.map(|job| world.summary(job).speculative_chunks > 0);
    assert_eq!(speculative, [true, false], "the first job's task may run twice now");
}
