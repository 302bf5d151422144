//! Which workers get the chunks of a job: those that have its task, and are in rotation for it.

use super::ends;
use super::world::World;

#[test]
fn a_job_whose_task_some_workers_lack_runs_on_the_others_only() {
    let mut world = World::new(3, 2);
    world.give_tasks(1, &["other"]);
    world.run_for(100);
    let job = world.submit(400, 20_000, "");
    ends(&mut world, 3_000, job);
    let summary = world.summary(job);
    assert_eq!((world.refused(1), summary.attempts), (0, 400));
}

#[test]
fn a_job_whose_task_no_worker_has_waits_and_blocks_no_other() {
    let mut world = World::new(2, 2);
    world.run_for(100);
    let waits = world.submit_task("other", 40, 1_000, r#","priority":9"#);
    let goes = world.submit(400, 1_000, "");
    ends(&mut world, 3_000, goes);
    let summary = world.summary(waits);
    assert_eq!((summary.counts.waiting, world.refused(0) + world.refused(1)), (40, 0));
    world.give_tasks(0, &["noop", "other"]);
    ends(&mut world, 3_000, waits);
    assert_eq!(world.refused(1), 0);
}

#[test]
fn a_chunk_that_waits_for_a_node_that_lost_the_task_goes_to_another() {
    let mut world = World::new(2, 2);
    world.run_for(100);
    let job = world.submit(40, 100_000, "");
    world.run_for(300);
    world.give_tasks(1, &[]);
    ends(&mut world, 5_000, job);
    // Until its next heartbeat the node releases what it gets, which is sent again 50 ms later.
    assert!(world.refused(1) <= 200, "{} times", world.refused(1));
    assert_eq!(world.summary(job).attempts, 40);
}

#[test]
fn a_chunk_that_was_sent_to_a_busy_node_goes_to_an_idle_one() {
    let mut world = World::new(3, 1);
    world.give_tasks(2, &[]);
    world.slow_down(0, 10_000);
    world.non_speculative = vec!["noop".into()];
    world.run_for(100);
    let job = world.submit(21, 50_000, r#","chunk":1"#);
    world.run_until(4_000, "all but the chunk of the slow node", |world| {
        world.summary(job).counts.done == 20
    });
}

#[test]
fn a_job_ends_whose_reduce_only_some_workers_can_run() {
    let mut world = World::new(2, 2);
    world.give_tasks(1, &["noop", "sum"]);
    world.run_for(100);
    let job = world.submit(40, 1_000, r#","reduce":{"task":"sum","fan_in":4}"#);
    ends(&mut world, 5_000, job);
    assert_eq!(world.refused(0), 0);
}

#[test]
fn nodes_where_all_attempts_fail_are_isolated_and_fail_no_subtask() {
    for holes in 1..=3 {
        let mut world = World::new(5, 2);
        (0..holes).for_each(|node| world.make_hole(node, true));
        world.run_for(100);
        let job = world.submit(1_500, 20_000, "");
        ends(&mut world, 30_000, job);
        assert_eq!(world.summary(job).counts.failed, 0);
        let isolated = world.isolated();
        assert_eq!(isolated.len(), holes, "{isolated:?}");
        // No attempt fails there any more, but for those with which the nodes are tried again.
        let before = isolated;
        let next = world.submit(1_500, 20_000, "");
        ends(&mut world, 8_000, next);
        for ((_, before), (node, after)) in before.iter().zip(world.isolated()) {
            assert!(after - before <= 200, "{} failed on {node}", after - before);
        }
    }
}

#[test]
fn a_subtask_that_fails_everywhere_uses_up_its_attempts_and_isolates_no_node() {
    let mut world = World::new(4, 2);
    (0..4).for_each(|node| world.make_hole(node, true));
    world.run_for(100);
    let job = world.submit(200, 20_000, "");
    world.run_until(20_000, "the job's end", |world| world.summary(job).state.is_terminal());
    let summary = world.summary(job);
    assert_eq!((summary.counts.failed, summary.attempts), (200, 600));
    assert_eq!(world.isolated(), []);
}

#[test]
fn an_isolated_node_where_attempts_succeed_again_is_readmitted() {
    let mut world = World::new(3, 2);
    world.make_hole(0, true);
    world.run_for(100);
    let job = world.submit(1_000_000, 20_000, "");
    world.run_until(20_000, "the verdict", |world| world.isolated().len() == 1);
    world.make_hole(0, false);
    world.run_until(20_000, "the readmission", |world| world.isolated().is_empty());
    assert_eq!(world.summary(job).counts.failed, 0);
}

#[test]
fn a_retry_goes_to_another_node_than_the_one_that_failed() {
    let mut world = World::new(2, 1);
    world.make_hole(0, true);
    world.run_for(100);
    // Too few to be evidence.
    for _ in 0..20 {
        let job = world.submit(2, 1_000, r#","chunk":1"#);
        ends(&mut world, 2_000, job);
        let summary = world.summary(job);
        assert!(summary.attempts <= 4, "{} attempts", summary.attempts);
    }
}
