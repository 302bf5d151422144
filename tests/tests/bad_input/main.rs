//! One fleet gets all bad input: each gets an error, and other jobs are not affected.
//!
//! One fleet gets all bad input, in groups: messages of foreign clients, tasks that misbehave,
//! files that change. A healthy job runs at the same time from the first row to the last, and after
//! each group a small job must succeed. Deliberately absent: the validation of documents and flags,
//! which `protocol` and `cli` test.

mod chunks;
mod documents;
mod files;
mod foreign;
mod settings;
mod tasks;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis};
use longshore_tests::Fleet;
use serde_json::json;
use tempfile::TempDir;

/// The time limit of all waits.
const LONG: Duration = Duration::from_secs(20);

/// How many rows are checked at the same time; they mostly wait for processes.
const AT_ONCE: usize = 8;

/// The fleet and the other fixtures of the rows.
struct Site {
    fleet: Fleet,
    client: foreign::Client,
    _endpoint: foreign::Endpoint,
    folder: TempDir,
    /// The job that must not be affected.
    healthy: String,
}

/// The number of subtasks of the healthy job. Each takes 0.2 s until the file `full-speed` exists,
/// at the end of the table.
const STEADY: u64 = 1_000;

impl Site {
    fn start() -> Self {
        let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let endpoint = foreign::Endpoint::start();
        let config = tasks::declare(folder.path(), endpoint.port);
        fleet.add_scheduler();
        // The healthy job has its own queue, so that a test can wait until the other one is empty.
        let flags = ["--slots", "8", "--queues", "default,steady", "--config", &config];
        fleet.add_worker(&flags);
        fleet.await_workers(1);
        let healthy = fleet.submit(&json!({
            "task": "steady", "queue": "steady", "max_parallel": 1,
            "split": {"by": "range", "start": 0, "end": STEADY},
        }));
        let client = foreign::Client::start(&fleet);
        Self { fleet, client, _endpoint: endpoint, folder, healthy }
    }

    /// Checks that another small job succeeds, that the healthy one progresses, and that all
    /// processes run.
    #[track_caller]
    fn check_others(&self, after: &str) {
        let before = self.fleet.status(&self.healthy);
        let sum =
            ["submit", "--wait", "--task", "sum", "--items", "[1,2]", "[3]", "--reduce", "sum"];
        assert_eq!(self.fleet.longshore(&sum).ok(), "6\n", "after {after}");
        longshore_test_servers::wait_until("the healthy job moves", LONG, || {
            self.fleet.status(&self.healthy)["done"].as_u64() > before["done"].as_u64()
        });
        for process in self.fleet.schedulers.iter().chain(&self.fleet.workers) {
            assert!(process.is_running(), "after {after}: {}", process.tail());
        }
        self.fleet.audit(&self.healthy);
    }
}

/// Checks all rows, several at the same time, and reports all failures at once. Returns the number
/// of rows.
#[track_caller]
fn each<R: Sync>(what: &str, rows: &[R], check: impl Fn(&R) -> Result<(), String> + Sync) -> usize {
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(complaint) = check(row) {
                        complaints.lock().expect("no panic while it was locked").push(complaint);
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("no panic while it was locked");
    assert!(complaints.is_empty(), "{what}:\n\n{}", complaints.join("\n\n"));
    rows.len()
}

/// Compares one value of a row. An expectation that ends in `…` is a prefix.
fn expect(row: &str, what: &str, found: &str, expected: &str) -> Result<(), String> {
    let holds = match expected.strip_suffix('…') {
        Some(beginning) => found.starts_with(beginning),
        None => found == expected,
    };
    if holds {
        Ok(())
    } else {
        Err(format!("{row}: {what}\n  found    {found}\n  expected {expected}"))
    }
}

#[test]
fn bad_input_gets_an_error_and_does_not_affect_other_jobs() {
    let mut site = Site::start();
    let mut rows = documents::table(&site);
    site.check_others("bad documents");
    rows += chunks::table(&site);
    site.check_others("bad chunk messages");
    rows += tasks::table(&site);
    site.check_others("bad tasks");
    rows += files::table(&mut site);
    site.check_others("bad files");
    assert!(rows >= 60, "only {rows} rows");

    std::fs::write(site.folder.path().join("full-speed"), "").expect("room for it");
    let status = site.fleet.await_end(&site.healthy, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(STEADY)));
    assert_eq!(status["attempts"], STEADY, "each subtask ran once: {status}");
    assert_eq!(status["lost"], 0, "{status}");
    site.fleet.audit(&site.healthy);
}
