//! Workers that lack a task, and one on which everything fails, beside those that run it, while workers are killed early.

use std::thread;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::tasks::{FLAKY, MARK};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};

/// From a submission to the kill of a worker.
const EARLY: Duration = Duration::from_millis(100);

#[test]
fn jobs_end_as_they_would_without_the_workers_that_can_not_run_them() {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 2);
    crew.hire(Role::Worker, 3);
    crew.hire(Role::Server, 1);
    crew.hire(Role::Hole, 1);
    let (params, more) = (json!({"ms": 10}), json!({"retry": {"backoff": "200ms"}}));
    let mut jobs = Vec::new();
    for round in 0..3 {
        jobs.push(crew.submit(MARK, 500, &params, &more));
        // Neither the server nor the hole has this task.
        jobs.push(crew.submit(FLAKY, 200, &params, &more));
        thread::sleep(EARLY);
        let worker = crew.members.iter_mut().filter(|it| it.role == Role::Worker).nth(round);
        let worker = worker.expect("there are three");
        worker.kill();
        worker.start_again();
    }
    jobs.iter().for_each(|job| crew.await_end(*job));
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    wait_until("the hole is out of rotation", LONG, || {
        let nodes: Value = crew.longshore(&["nodes", "--json"]).json();
        let nodes = nodes.as_array().expect("a list").iter();
        nodes.filter(|node| node["isolated"][0]["task"] == MARK).count() == 1
    });
}
