//! A rolling restart of all processes under load runs nothing twice.
//!
//! They are stopped cleanly and started again, one after another.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;

/// Subtasks of 20 ms in a chunk of automatic size, which aims at a quarter of a second.
const MOST_A_CHUNK: u64 = 13;

#[test]
fn a_rolling_restart_of_everything_under_load_runs_nothing_twice() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut cluster = Cluster::on(&rabbit, &redis);
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 2);
    cluster.add(Role::Worker, 2);
    cluster.add(Role::Server, 2);
    let total = 4_000;
    let job = cluster.submit(MARK, total, &json!({"ms": 20}), &json!({}));
    cluster.await_done(job, 100);
    for number in 0..cluster.members.len() {
        let done = cluster.done(job);
        cluster.members[number].terminate();
        wait_until("it has left", LONG, || !cluster.members[number].is_running());
        cluster.members[number].restart();
        cluster.await_done(job, (done + 50).min(total));
    }
    redis.restart();
    rabbit.restart();
    cluster.await_end(job);
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    let twice = history.starts().values().filter(|count| **count > 1).count() as u64;
    // During a long restart an idle worker may run the last chunks of the job speculatively.
    let speculative = cluster.speculative_chunks(&history);
    assert!(
        twice <= MOST_A_CHUNK * speculative,
        "of {total} subtasks {twice} ran twice; {speculative} chunks ran speculatively"
    );
}
