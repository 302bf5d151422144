//! Fleets of real processes: same results as embedded, many jobs, drains, and lost processes.

use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, wait_until};
use longshore_tests::{Fleet, binary, finish, repository};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);

#[test]
fn the_same_job_gives_the_same_bytes_embedded_and_over_the_services() {
    let fleet = Fleet::start(1, 3);
    for job in [
        vec!["examples/wordcount.json"],
        vec!["--task", "noop", "--range", "0..1000"],
        vec!["--task", "sum", "--items", "[1,2]", "[3]", "[4,5]", "--reduce", "sum"],
    ] {
        let mut run = std::process::Command::new(binary());
        run.arg("run").args(&job).current_dir(repository());
        let embedded = finish(run).ok();
        let arguments: Vec<&str> = ["submit", "--wait"].iter().chain(&job).copied().collect();
        let remote = fleet.longshore(&arguments).ok();
        assert!(!embedded.is_empty(), "{job:?} prints something");
        assert_eq!(embedded, remote, "{job:?}");
    }
}

/// Fifty jobs of different kinds, with what `longshore results` must print for each.
fn fifty_jobs() -> Vec<(Value, Vec<String>)> {
    let job = |i: u64| -> (Value, Vec<String>) {
        let n = 20 + i * 7;
        match i % 5 {
            0 => {
                let split = json!({"by": "range", "start": 0, "end": n});
                (json!({"task": "noop", "split": split}), vec!["null".to_owned(); n as usize])
            }
            1 => {
                let items: Vec<Value> = (0..n).map(|k| json!([k, 1])).collect();
                let lines = (0..n).map(|k| (k + 1).to_string()).collect();
                (json!({"task": "sum", "split": {"by": "items", "items": items}}), lines)
            }
            2 => {
                let items: Vec<Value> = (0..n).map(|k| json!([k])).collect();
                let job = json!({"task": "sum", "split": {"by": "items", "items": items},
                    "reduce": {"task": "sum", "fan_in": 4}, "priority": 9});
                (job, vec![(n * (n - 1) / 2).to_string()])
            }
            3 => {
                let split = json!({"by": "range", "start": 1, "end": 31});
                let job =
                    json!({"task": "sleep", "split": split, "tenant": "sleepers", "chunk": 1});
                (job, Vec::new())
            }
            _ => {
                let split =
                    json!({"by": "grid", "axes": {"a": [1, 2], "b": {"start": 0, "end": n}}});
                (
                    json!({"task": "noop", "split": split, "max_parallel": 2, "chunk": 7}),
                    vec!["null".to_owned(); 2 * n as usize],
                )
            }
        }
    };
    (0..50).map(job).collect()
}

#[test]
fn fifty_jobs_on_two_schedulers_and_three_workers_end_correctly_and_balance() {
    let fleet = Fleet::start(2, 3);
    let submitted: Vec<(String, Vec<String>)> =
        fifty_jobs().into_iter().map(|(job, lines)| (fleet.submit(&job), lines)).collect();
    for (job, lines) in &submitted {
        let status = fleet.await_end(job, LONG);
        assert_eq!(status["state"], "succeeded", "{status}");
        assert_eq!(status["done"], status["total"], "{status}");
        let printed = fleet.longshore(&["results", job]).ok();
        if !lines.is_empty() {
            assert_eq!(printed.lines().collect::<Vec<_>>(), *lines, "{status}");
        }
        fleet.audit(job);
    }
}

#[test]
fn a_draining_worker_releases_its_chunks_and_nothing_runs_twice() {
    let mut fleet = Fleet::start(1, 2);
    let job = fleet.submit(&json!({
        "task": "sleep",
        "params": {"ms": 20},
        "split": {"by": "range", "start": 0, "end": 300},
    }));
    wait_until("the job is running", LONG, || fleet.status(&job)["done"].as_u64() >= Some(20));
    fleet.workers[0].signal("TERM");
    wait_until("the worker has left", LONG, || !fleet.workers[0].is_running());
    let status = fleet.await_end(&job, LONG);
    assert_eq!(status["state"], "succeeded", "{status}");
    assert_eq!(
        (&status["done"], &status["attempts"], &status["lost"]),
        (&json!(300), &json!(300), &json!(0))
    );
    fleet.audit(&job);
}

#[test]
fn the_subtasks_of_a_killed_worker_run_elsewhere() {
    let mut fleet = Fleet::start(1, 2);
    let job = fleet.submit(&json!({
        "task": "sleep",
        "params": {"ms": 50},
        "split": {"by": "range", "start": 0, "end": 200},
    }));
    wait_until("the job is running", LONG, || fleet.status(&job)["done"].as_u64() >= Some(10));
    fleet.workers[0].kill9();
    let status = fleet.await_end(&job, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(200)), "{status}");
    fleet.audit(&job);
}

#[test]
fn a_second_scheduler_takes_over_from_a_killed_one() {
    let rabbit = Rabbit::shared();
    let redis = Redis::shared();
    let mut fleet = Fleet::on(rabbit, redis);
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let job = fleet.submit(&json!({
        "task": "sleep",
        "params": {"ms": 10},
        "split": {"by": "range", "start": 0, "end": 400},
    }));
    wait_until("the job is running", LONG, || fleet.status(&job)["done"].as_u64() >= Some(20));
    fleet.schedulers[0].kill9();
    fleet.add_scheduler();
    let status = fleet.await_end(&job, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(400)), "{status}");
    fleet.audit(&job);
}

#[test]
fn the_hash_of_a_job_in_redis_has_readable_fields() {
    let fleet = Fleet::start(1, 1);
    let job =
        fleet.submit(&json!({"task": "noop", "split": {"by": "range", "start": 0, "end": 100}}));
    fleet.await_end(&job, LONG);
    let key = format!("{}:{{{job}}}", fleet.namespace());
    let field = |name: &str| Redis::shared().call(&["HGET", &key, name]).text().unwrap_or_default();
    let facts =
        ["state", "task", "queue", "tenant", "priority", "total", "done", "failed", "cancelled"];
    let read: Vec<String> = facts.iter().map(|name| field(name)).collect();
    assert_eq!(read, ["succeeded", "noop", "default", "default", "5", "100", "100", "0", "0"]);
    assert!(
        field("finished_at") >= field("started_at") && field("started_at") >= field("submitted_at")
    );
}
