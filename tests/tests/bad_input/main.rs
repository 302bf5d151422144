//! Whatever comes in is answered with its error, and the system goes on working for everybody else.
//!
//! One fleet gets it all, group by group: messages of foreign clients, tasks that misbehave, files that change. A
//! healthy job runs beside them from the first row to the last, and after each group a small job must succeed.
//! Deliberately absent: documents and flags in themselves; `protocol` and `cli` have tables of those.

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

/// More than anything here takes on a machine that is not stuck.
const LONG: Duration = Duration::from_secs(20);

/// How many rows are looked at side by side; they mostly wait for processes.
const AT_ONCE: usize = 8;

/// The fleet, and what the rows need beside it.
struct Site {
    fleet: Fleet,
    client: foreign::Client,
    _endpoint: foreign::Endpoint,
    folder: TempDir,
    /// The job that nothing may disturb.
    healthy: String,
}

/// Subtasks of the healthy job: 0.2 s each, until they are told to hurry at the end of the table.
const STEADY: u64 = 1_000;

impl Site {
    fn start() -> Self {
        let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let endpoint = foreign::Endpoint::start();
        let config = tasks::declare(folder.path(), endpoint.port);
        fleet.add_scheduler();
        // The healthy job has a queue of its own, so that the other can be seen to be empty.
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

    /// A small job of somebody else succeeds, the healthy one has moved on, and nobody has left.
    #[track_caller]
    fn the_others_are_fine(&self, after: &str) {
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

/// Looks at all rows, some side by side, and complains of all that are wrong at once.
#[track_caller]
fn each<R: Sync>(what: &str, rows: &[R], check: impl Fn(&R) -> Result<(), String> + Sync) -> usize {
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(complaint) = check(row) {
                        complaints.lock().expect("no panic with it").push(complaint);
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("no panic with it");
    assert!(complaints.is_empty(), "{what}:\n\n{}", complaints.join("\n\n"));
    rows.len()
}

/// Compares one thing of one row. An expectation that ends in `…` is the beginning of a longer text.
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
fn bad_input_gets_its_error_and_the_system_goes_on_for_everybody_else() {
    let mut site = Site::start();
    let mut rows = documents::table(&site);
    site.the_others_are_fine("bad documents");
    rows += chunks::table(&site);
    site.the_others_are_fine("bad chunk messages");
    rows += tasks::table(&site);
    site.the_others_are_fine("bad tasks");
    rows += files::table(&mut site);
    site.the_others_are_fine("bad files");
    assert!(rows >= 60, "only {rows} rows");

    std::fs::write(site.folder.path().join("hurry"), "").expect("room for it");
    let status = site.fleet.await_end(&site.healthy, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(STEADY)));
    assert_eq!(status["attempts"], STEADY, "each subtask ran once: {status}");
    assert_eq!(status["lost"], 0, "{status}");
    site.fleet.audit(&site.healthy);
}
