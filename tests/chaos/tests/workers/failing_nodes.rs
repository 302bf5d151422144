//! Workers that lack a task or fail everything do not change the outcome of jobs.
//!
//! Other workers are killed meanwhile.

use std::thread;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::tasks::{FLAKY, MARK};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};

/// The time from a submission to the kill of a worker.
const EARLY: Duration = Duration::from_millis(100);

#[test]
fn workers_that_can_not_run_a_task_do_not_change_the_outcome_of_jobs() {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 2);
    cluster.add(Role::Worker, 3);
    cluster.add(Role::Server, 1);
    cluster.add(Role::FailsAll, 1);
    let (params, more) = (json!({"ms": 10}), json!({"retry": {"backoff": "200ms"}}));
    let mut jobs = Vec::new();
    for round in 0..3 {
        jobs.push(cluster.submit(MARK, 500, &params, &more));
        // Only the Rust workers have this task.
        jobs.push(cluster.submit(FLAKY, 200, &params, &more));
        thread::sleep(EARLY);
        let worker =
            cluster.members.iter_mut().filter(|member| member.role == Role::Worker).nth(round);
        let worker = worker.expect("there are three");
        worker.kill();
        worker.restart();
    }
    jobs.iter().for_each(|job| cluster.await_end(*job));
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    wait_until("the failing node is out of rotation", LONG, || {
        let nodes: Value = cluster.longshore(&["nodes", "--json"]).json();
        let nodes = nodes.as_array().expect("a list").iter();
        nodes.filter(|node| node["isolated"][0]["task"] == MARK).count() == 1
    });
}
