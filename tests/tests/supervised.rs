//! A supervisor reports a crash of its worker and its signal, restarts it, and drains it on a stop.

use std::process::Command;
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, is_running, wait_until};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

fn nodes(fleet: &Fleet) -> Vec<Value> {
    let nodes = fleet.longshore(&["nodes", "--json"]).json();
    nodes.as_array().expect("a list").clone()
}

/// The process id that a worker reports.
fn pid(node: &Value) -> u32 {
    node["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

fn fleet(workers: usize) -> Fleet {
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    fleet.add_scheduler();
    for _ in 0..workers {
        fleet.add_worker(&["--slots", "2"]);
    }
    fleet.await_workers(workers);
    fleet
}

fn sleeps(fleet: &Fleet, count: u64, ms: u64) -> String {
    let job = fleet.submit(&json!({
        "task": "sleep", "params": {"ms": ms}, "chunk": 1,
        "split": {"by": "range", "start": 0, "end": count},
    }));
    wait_until("the job runs", LONG, || fleet.status(&job)["running"].as_u64() >= Some(2));
    job
}

#[test]
fn a_crash_is_reported_with_its_signal_and_the_worker_is_restarted() {
    let fleet = fleet(1);
    let before = nodes(&fleet).remove(0);
    assert_ne!(pid(&before), fleet.workers[0].pid(), "the worker is a child");
    let job = sleeps(&fleet, 20, 300);
    signal(pid(&before), "ABRT");
    wait_until("the scheduler logs the cause", LONG, || {
        fleet.schedulers[0].tail().contains("killed by SIGABRT")
    });
    wait_until("another worker takes its place", LONG, || {
        let now = nodes(&fleet);
        now.len() == 1 && now[0]["id"] != before["id"]
    });
    let status = fleet.await_end(&job, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(20)), "{status}");
    assert!(status["lost"].as_u64() >= Some(1), "{status}");
    assert!(fleet.workers[0].is_running());
}

#[test]
fn a_stop_of_the_supervisor_drains_the_worker() {
    drains("TERM");
}

#[test]
fn a_terminal_that_closes_drains_the_worker() {
    drains("HUP");
}

#[track_caller]
fn drains(name: &str) {
    let mut fleet = fleet(2);
    let job = sleeps(&fleet, 12, 400);
    let leaving = fleet.workers[0].pid();
    fleet.workers[0].signal(name);
    wait_until("it leaves", LONG, || !is_running(leaving));
    assert_eq!(nodes(&fleet).len(), 1);
    let status = fleet.await_end(&job, LONG);
    assert_eq!((&status["state"], &status["attempts"]), (&json!("succeeded"), &json!(12)));
    assert_eq!(status["lost"], 0, "{status}");
}

#[test]
fn a_signal_to_both_is_one_request() {
    let mut fleet = fleet(2);
    let job = sleeps(&fleet, 12, 400);
    let supervisor = fleet.workers[0].pid();
    let node = nodes(&fleet).into_iter().find(|node| parent(pid(node)) == supervisor);
    let worker = pid(&node.expect("its worker"));
    signal(worker, "TERM");
    fleet.workers[0].signal("TERM");
    wait_until("both leave", LONG, || !is_running(worker) && !is_running(supervisor));
    let status = fleet.await_end(&job, LONG);
    assert_eq!((&status["attempts"], &status["lost"]), (&json!(12), &json!(0)), "{status}");
}

#[test]
fn a_second_request_stops_the_worker_at_once() {
    let mut fleet = fleet(1);
    sleeps(&fleet, 2, 60_000);
    let (supervisor, worker) = (fleet.workers[0].pid(), pid(&nodes(&fleet)[0]));
    fleet.workers[0].signal("TERM");
    wait_until("it drains", LONG, || nodes(&fleet).iter().any(|node| node["state"] == "draining"));
    fleet.workers[0].signal("TERM");
    wait_until("both end", Duration::from_secs(10), || {
        !is_running(worker) && !is_running(supervisor)
    });
}

#[test]
fn a_supervisor_that_is_killed_takes_its_worker_along() {
    let fleet = fleet(1);
    let worker = pid(&nodes(&fleet)[0]);
    signal(fleet.workers[0].pid(), "KILL");
    wait_until("the worker is gone", LONG, || !is_running(worker));
}

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_default()
}
