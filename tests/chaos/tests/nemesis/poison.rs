//! A poison subtask, which aborts each worker that runs it, fails alone and kills few workers.

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::tasks::{POISON, POISONED};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};

/// The maximum number of workers that a poisoned subtask may kill: two until its chunk is split,
/// one for each further split of it, and three with the subtask alone.
const MOST_DEATHS: usize = 8;

#[test]
fn a_poisoned_subtask_fails_alone_and_kills_few_workers() {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, 4);
    let job = cluster.submit(POISON, 100_000, &json!({}), &json!({}));
    let mut deaths = 0;
    wait_until("the poisoned job ends", LONG, || {
        let dead = cluster.members.iter_mut().filter(|member| !member.is_running());
        for member in dead {
            member.restart();
            deaths += 1;
        }
        cluster.field(job, "state") == "failed"
    });
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    assert!((1..=MOST_DEATHS).contains(&deaths), "it killed {deaths} workers");
    let errors = cluster.longshore(&["errors", &job.to_string(), "--json"]).ok();
    let errors: Vec<Value> =
        errors.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["index"], POISONED);
}
