//! A subtask that hangs on one worker runs speculatively on an idle one, if its task allows that.

use std::path::Path;
use std::time::Duration;

use longshore_test_servers::wait_until;
use longshore_tests::Fleet;
use serde_json::json;

/// A fleet whose subtask 7 hangs in its first attempt and writes its process id. `more` holds
/// further settings of the task.
fn configured(folder: &Path, more: &str) -> Fleet {
    let script = r#"
        if [ "$LONGSHORE_INDEX" = 7 ] && mkdir hangs 2>/dev/null; then echo $$ > hangs/pid; exec sleep 1000; fi
        echo '"done"'
    "#;
    std::fs::write(folder.join("task.sh"), script).expect("room for it");
    let config = folder.join("longshore.toml");
    let task = format!(
        "[task.step]\ncommand = [\"sh\", \"task.sh\"]\ncwd = \"{}\"\n{more}\n",
        folder.display()
    );
    std::fs::write(&config, task).expect("room for it");
    let mut fleet = Fleet::start(0, 0);
    fleet.set("LONGSHORE_CONFIG", config.to_str().expect("a plain name"));
    fleet.add_scheduler();
    for _ in 0..2 {
        fleet.add_worker(&["--slots", "2"]);
    }
    fleet.await_workers(2);
    fleet
}

fn submit(fleet: &Fleet) -> String {
    fleet.submit(&json!({"task": "step", "split": {"by": "range", "start": 0, "end": 20}}))
}

#[test]
fn a_subtask_that_hangs_runs_on_an_idle_worker_and_the_first_attempt_is_stopped() {
    let folder = tempfile::tempdir().expect("room for it");
    let fleet = configured(folder.path(), "");
    let job = submit(&fleet);
    let status = fleet.await_end(&job, Duration::from_secs(30));
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(20)), "{status}");
    assert_eq!(status["speculative_chunks"], 1, "{status}");
    assert_eq!(status["recoveries"], 0, "no worker was lost: {status}");
    assert_eq!(status["attempts"], 20, "one of the two attempts counts: {status}");
    fleet.audit(&job);
    assert_eq!(fleet.longshore(&["results", &job]).ok(), "\"done\"\n".repeat(20));
    let status = fleet.longshore(&["status", &job]).ok();
    assert!(status.contains("twice     1 chunk that took long"), "{status}");

    let pid = std::fs::read_to_string(folder.path().join("hangs/pid")).expect("it hung");
    let process = format!("/proc/{}", pid.trim());
    wait_until("the process that hangs is stopped", Duration::from_secs(20), || {
        !Path::new(&process).exists()
    });
}

#[test]
fn a_task_without_speculative_execution_runs_once() {
    let folder = tempfile::tempdir().expect("room for it");
    let fleet = configured(folder.path(), "speculative = false");
    let job = submit(&fleet);
    wait_until("all but one are done", Duration::from_secs(30), || {
        fleet.status(&job)["done"] == 19
    });
    // More than twice the time until the speculative attempt of the other test begins.
    std::thread::sleep(Duration::from_secs(6));
    let status = fleet.status(&job);
    assert_eq!(
        (&status["done"], &status["speculative_chunks"]),
        (&json!(19), &json!(0)),
        "{status}"
    );
    fleet.longshore(&["cancel", &job]).ok();
}
