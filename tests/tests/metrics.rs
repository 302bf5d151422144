//! Schedulers and workers serve every documented metric, and show an imbalance of counts.
//!
//! They serve them at `http_listen`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, free_port, wait_until};
use longshore_tests::{Fleet, repository};
use serde_json::json;

const LONG: Duration = Duration::from_secs(30);

/// The metrics of a process.
fn served(port: u16) -> Option<String> {
    asked(port, "GET /metrics")
}

/// The answer of a process to a request.
fn asked(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "{request} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The value of a metric, by its name and labels in the text.
fn metric(port: u16, name: &str) -> Option<f64> {
    let text = served(port)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[track_caller]
fn reads(port: u16, name: &str, expected: f64) {
    let mut found = None;
    wait_until(&format!("{name} reads {expected}"), LONG, || {
        found = metric(port, name);
        found == Some(expected)
    });
}

#[test]
fn metrics_count_work_and_show_an_imbalance_of_counts() {
    let [scheduler, worker] = [(); 2].map(|()| free_port().expect("a port is free"));
    let redis = Redis::shared();
    let mut fleet = Fleet::on(Rabbit::shared(), redis);
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{worker}"));
    fleet.add_worker(&["--slots", "2"]);
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{scheduler}"));
    fleet.add_scheduler();
    fleet.await_workers(1);

    let split = json!({"by": "range", "start": 0, "end": 40});
    let done = fleet.submit(&json!({"task": "noop", "split": split}));
    fleet.await_end(&done, LONG);
    reads(scheduler, r#"longshore_documents_total{outcome="accepted"}"#, 1.0);
    reads(scheduler, r#"longshore_nodes{state="active"}"#, 1.0);
    reads(worker, r#"longshore_attempts_total{outcome="done"}"#, 40.0);
    let once = json!({"attempts": 1});
    let failed = fleet.submit(&json!({"task": "fail", "split": split, "retry": once}));
    fleet.await_end(&failed, LONG);
    reads(worker, r#"longshore_attempts_total{outcome="failed"}"#, 40.0);
    is_documented(worker);

    let slow = fleet.submit(&json!({"task": "sleep", "params": {"ms": 60_000}, "split": split}));
    reads(scheduler, "longshore_active_jobs", 1.0);
    reads(scheduler, "longshore_ledger_imbalance", 0.0);
    let key = format!("{}:{{{slow}}}", fleet.namespace());
    redis.call(&["HINCRBY", &key, "done", "3"]);
    // The counter is 3 off from the bitmap, and the sum 3 off from the total.
    reads(scheduler, "longshore_ledger_imbalance", 6.0);
    redis.call(&["HINCRBY", &key, "done", "-3"]);
    reads(scheduler, "longshore_ledger_imbalance", 0.0);

    fleet.workers[0].kill9();
    reads(scheduler, r#"longshore_lost_nodes_total{how="vanished"}"#, 1.0);
    // The owner of the queue revokes the worker's chunks after the worker was declared lost, in a
    // second step. Both slots were busy.
    let revoked = || metric(scheduler, "longshore_revoked_subtasks_total");
    wait_until("at least two subtasks are revoked", LONG, || revoked() >= Some(2.0));
    fleet.longshore(&["cancel", &slow]).ok();
    is_documented(scheduler);
}

/// The names of metrics in a section of docs/metrics.md.
fn documented(section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let (_, rest) = page.split_once(&format!("## {section}\n")).expect("the section");
    let table = rest.split("\n## ").next().unwrap_or_default();
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(|name| name.split('{').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_documented_metric_is_served_from_the_start() {
    let [scheduler, worker] = [(); 2].map(|()| free_port().expect("a port is free"));
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{worker}"));
    fleet.add_worker(&["--slots", "2"]);
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{scheduler}"));
    fleet.add_scheduler();
    for (port, section, other) in
        [(scheduler, "Schedulers", "Workers"), (worker, "Workers", "Schedulers")]
    {
        wait_until("metrics are served", LONG, || served(port).is_some());
        let text = served(port).expect("something is served");
        let has = |name: &String| {
            let summed = [format!("{name} "), format!("{name}{{"), format!("{name}_count ")];
            text.lines().any(|line| summed.iter().any(|start| line.starts_with(start)))
        };
        let names = documented(section);
        assert!(names.len() >= 3, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !has(name)).collect();
        assert!(missing.is_empty(), "{section} lack {missing:?}: {text}");
        // A worker that reported 0 nodes would trigger the alert on nodes.
        assert!(!documented(other).iter().any(has), "{section} report metrics of {other}: {text}");
    }
    for (request, status) in [
        ("GET /", "404 Not Found"),
        ("POST /metrics", "405 Method Not Allowed"),
        ("GET /healthz", "200 OK"),
    ] {
        let answer = asked(scheduler, request).expect("an answer");
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.starts_with("HTTP/1.") && first.ends_with(status), "{request}: {answer}");
    }
}

/// Checks that each served metric is in docs/metrics.md with its kind.
#[track_caller]
fn is_documented(port: u16) {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let text = served(port).expect("something is served");
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(kinds.len() >= 2, "{text}");
    for (name, kind) in kinds.iter().filter_map(|line| line.split_once(' ')) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(row.contains(&format!("| {kind} |")), "{name} is a {kind}: {row}");
    }
}
