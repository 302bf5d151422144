//! What jobs may touch: files and results below roots, built-in tasks, the environment of commands.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis};
use longshore_tests::Fleet;
use serde_json::{Value, json};

/// A folder with `in/a.txt`, `out/b.txt`, and the link `in/away` to `out`.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().canonicalize().expect("it exists");
    for (file, text) in [("in/a.txt", "one two\n"), ("out/b.txt", "secret\n")] {
        let path = here.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    std::os::unix::fs::symlink("../out", here.join("in/away")).expect("linked");
    (folder, here)
}

fn fleet() -> Fleet {
    Fleet::on(Rabbit::shared(), Redis::shared())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn wordcount(files: &str) -> Value {
    json!({"task": "wordcount", "split": {"by": "files", "files": [files]}})
}

#[track_caller]
fn ends(fleet: &Fleet, document: &Value) -> Value {
    let job = fleet.submit(document);
    fleet.await_end(&job, Duration::from_secs(60))
}

#[test]
fn a_scheduler_refuses_files_and_results_outside_of_the_roots() {
    let (_folder, here) = tree();
    let mut fleet = fleet();
    fleet.set("LONGSHORE_ALLOW_ROOTS", text(&here.join("in")));
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let here = text(&here);
    let allowed = format!("allowed are places below {here}/in (setting allow_roots)");
    let refused = |document: &Value, place: &str| {
        let mut file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
        file.write_all(document.to_string().as_bytes()).expect("room for it");
        let run = fleet.longshore(&["submit", text(file.path())]);
        assert_eq!(run.code, Some(2), "{document}: {run:?}");
        assert!(run.stderr.contains(place) && run.stderr.contains(&allowed), "{run:?}");
    };
    for files in ["out/*", "out/b.txt", "in/../out/b.txt", "in/away/b.txt", "in/a*/*", "nowhere"] {
        refused(&wordcount(&format!("{here}/{files}")), "split.files: ");
    }
    for results in ["out", "in/../out/new", "in/away/new"] {
        let mut document = wordcount(&format!("{here}/in/a.txt"));
        document["results"] = json!(format!("file://{here}/{results}"));
        refused(&document, "results: ");
    }
    let mut document = wordcount(&format!("{here}/in/*.txt"));
    document["results"] = json!(format!("file://{here}/in/results"));
    let status = ends(&fleet, &document);
    assert_eq!(status["state"], "succeeded", "{status}");
    let job = status["id"].as_str().expect("an id");
    assert_eq!(fleet.longshore(&["results", job]).ok(), "{\"one\":1,\"two\":1}\n");
}

#[test]
fn a_worker_that_may_touch_less_than_the_scheduler_opens_nothing() {
    let (_folder, here) = tree();
    let mut fleet = fleet();
    fleet.add_scheduler();
    fleet.set("LONGSHORE_ALLOW_ROOTS", text(&here.join("in")));
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let here = text(&here);
    let fails = |mut document: Value, place: &str| {
        document["retry"] = json!({"attempts": 1});
        let status = ends(&fleet, &document);
        assert_eq!(status["state"], "failed", "{document}: {status}");
        let job = status["id"].as_str().expect("an id");
        let errors = fleet.longshore(&["errors", job]).ok();
        assert!(errors.contains(place), "{errors}");
        assert!(errors.contains("outside of what jobs may touch"), "{errors}");
    };
    fails(wordcount(&format!("{here}/out/b.txt")), "input: ");
    fails(wordcount(&format!("{here}/in/away/b.txt")), &format!("leads to {here}/out/b.txt"));
    let lines = json!({"by": "lines", "files": [format!("{here}/out/b.txt")], "bytes": "1KiB"});
    fails(json!({"task": "wordcount", "split": lines, "changed": "read"}), "input: ");
    let range = json!({"by": "range", "start": 0, "end": 3});
    let results = format!("file://{here}/out/results");
    fails(json!({"task": "noop", "split": range, "results": results}), "results: ");
    assert!(!Path::new(here).join("out/results").exists(), "nothing was written");
    let status = ends(&fleet, &wordcount(&format!("{here}/in/a.txt")));
    assert_eq!(status["state"], "succeeded", "{status}");
}

/// The result of a task that is this command.
#[track_caller]
fn result_of(task: &str, settings: &[(&'static str, &str)]) -> String {
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile().expect("room for it");
    config.write_all(task.as_bytes()).expect("room for it");
    let mut fleet = fleet();
    fleet.add_scheduler();
    fleet.set("SECRET_OF_ANOTHER_PROGRAM", "passed");
    fleet.set("LONGSHORE_PASSWORD", "withheld");
    for &(name, value) in settings {
        fleet.set(name, value);
    }
    fleet.add_worker(&["--slots", "1", "--config", text(config.path())]);
    fleet.await_workers(1);
    let document = json!({"task": "shows", "split": {"by": "range", "start": 0, "end": 1}});
    let status = ends(&fleet, &document);
    assert_eq!(status["state"], "succeeded", "{status}");
    let job = status["id"].as_str().expect("an id");
    fleet.longshore(&["results", job]).ok()
}

/// Prints the environment of the command and of its parent, which is a shim.
const SHOW: &str =
    "env; tr '\\\\0' '\\\\n' </proc/self/environ; tr '\\\\0' '\\\\n' </proc/$PPID/environ";

#[track_caller]
fn holds_no_settings(shown: &str) {
    for name in ["LONGSHORE_AMQP_URL", "LONGSHORE_REDIS_URL", "LONGSHORE_PASSWORD", "withheld"] {
        assert!(!shown.contains(name), "{name} in {shown}");
    }
    for name in ["LONGSHORE_JOB=", "LONGSHORE_INDEX=0", "LONGSHORE_NODE=", "PATH=", "OWN=set"] {
        assert!(shown.contains(name), "no {name} in {shown}");
    }
}

#[test]
fn a_command_gets_its_environment_without_the_settings_of_the_worker() {
    let task = format!(
        "[task.shows]\ncommand = [\"sh\", \"-c\", \"{SHOW}\"]\noutput = \"text\"\n\
         env = {{ OWN = \"set\" }}\n"
    );
    let shown = result_of(&task, &[]);
    holds_no_settings(&shown);
    assert!(shown.contains("SECRET_OF_ANOTHER_PROGRAM=passed"), "{shown}");
    let shown = result_of(&task, &[("LONGSHORE_PASS_ENV", "OTHER_*,NOTHING")]);
    holds_no_settings(&shown);
    assert!(!shown.contains("SECRET_OF_ANOTHER_PROGRAM"), "{shown}");
}

#[test]
fn a_worker_announces_the_built_in_tasks_that_it_offers() {
    for (setting, tasks) in [("false", json!([])), ("noop,sum", json!(["noop", "sum"]))] {
        let mut fleet = fleet();
        fleet.set("LONGSHORE_BUILTIN_TASKS", setting);
        fleet.add_worker(&["--slots", "1"]);
        fleet.await_workers(1);
        let nodes = fleet.longshore(&["nodes", "--json"]).json();
        assert_eq!(nodes[0]["tasks"], tasks, "{nodes}");
    }
}
