//! `longshore dev` with jobs from standard input and from a folder; also the verbs that only print.

use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::given::{self, Given};

const JOB: &str = r#"{"task":"noop","split":{"by":"range","start":0,"end":5}}"#;

#[test]
fn jobs_from_standard_input_end_with_a_line_each() {
    let input = format!("{JOB}\n\nnonsense\n{}\n{}\n", JOB.replace("noop", "nope"), JOB);
    let left = Given::nothing().stdin(input).longshore(&["dev"]);
    assert_eq!(left.code, Some(1), "two were refused: {left:?}");
    let mut lines: Vec<&str> = left.stdout.lines().collect();
    lines.sort_unstable_by_key(|line| line.rsplit('(').next());
    assert_eq!(lines.len(), 2, "{left:?}");
    for (line, from) in lines.iter().zip(["(line 1)", "(line 5)"]) {
        assert!(line.contains(" succeeded: 5 of 5 done in "), "{line}");
        assert!(line.ends_with(from), "{line}");
    }
    let mut errors: Vec<&str> = left.stderr.lines().collect();
    errors.sort_unstable();
    assert_eq!(errors[0], "error: 2 of 4 jobs have not succeeded");
    assert!(errors[1].starts_with("line 3: document: not JSON: "), "{left:?}");
    assert!(errors[2].starts_with("line 4: task: unknown task `nope`; use "), "{left:?}");
}

#[test]
fn a_line_that_is_not_utf_8_is_refused_and_the_others_run() {
    let mut input = JOB.as_bytes().to_vec();
    input.extend_from_slice(b"\ncaf\xe9\n");
    input.extend_from_slice(JOB.as_bytes());
    let left = Given::nothing().stdin(input).longshore(&["dev"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert_eq!(left.stdout.matches(" succeeded: 5 of 5 done in ").count(), 2, "{left:?}");
    assert!(left.stderr.contains("line 2: document: not UTF-8 at line 1 column 4"), "{left:?}");
}

#[test]
fn a_failed_job_is_reported_by_the_exit_code() {
    let failing =
        JOB.replace("noop", "fail").replace("\"split\"", "\"retry\":{\"attempts\":1},\"split\"");
    let left = Given::nothing().stdin(format!("{JOB}\n{failing}\n")).longshore(&["dev"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(left.stderr.ends_with("error: 1 of 2 jobs have not succeeded\n"), "{left:?}");
    let left = Given::nothing().stdin(format!("{JOB}\n")).longshore(&["dev"]);
    assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
}

#[test]
fn each_file_of_a_folder_is_submitted_once() {
    let given = Given::nothing().file("jobs/a.json", JOB).file("jobs/readme.txt", "no job");
    let mut child = given.start(&["dev", "--jobs", "jobs", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || -> serde_json::Value {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
    };
    let first = next();
    assert_eq!((&first["state"], &first["done"]), (&"succeeded".into(), &5.into()));
    let given = given.file("jobs/b.json", JOB);
    assert_ne!(next()["id"], first["id"]);
    let given = given.file("jobs/c.json", "{");
    let given = given.file("jobs/d.json", JOB);
    assert_eq!(next()["done"], 5);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    let left = given::finish(child);
    assert_eq!(left.code, Some(1), "one was refused: {left:?}");
    assert!(left.stderr.starts_with("serving the HTTP API at http://127.0.0.1:"), "{left:?}");
    assert!(left.stderr.contains("\njobs/c.json: document: not JSON: "), "{left:?}");
    assert!(lines.next().is_none(), "nothing ran twice");
    drop(given);
}

#[test]
fn other_commands_find_a_running_dev_by_themselves() {
    let given = Given::nothing();
    let runtime = given.folder().to_str().expect("a plain name").to_owned();
    let files = given.folder().join("longshore");
    let count = || std::fs::read_dir(&files).map_or(0, |entries| entries.count());
    let given = given
        .variable("XDG_RUNTIME_DIR", &runtime)
        .file("longshore.toml", "http_listen = \"127.0.0.1:0\"");
    let start = || {
        let mut dev = given.start(&["dev", "--serve"]);
        let mut lines = BufReader::new(dev.stderr.take().expect("a pipe")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        let url = line();
        let url = url.strip_prefix("serving the HTTP API at ").expect("the address").to_owned();
        assert!(line().starts_with("ready: "), "it can be used");
        (dev, url)
    };
    let kill = |signal: &str, dev: &std::process::Child| {
        let pid = dev.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    };

    let (dev, url) = start();
    let job = ["submit", "--task", "noop", "--range", "0..3", "--name", "first", "--wait"];
    let left = given.longshore(&job);
    assert_eq!((left.code, left.stdout.lines().count()), (Some(0), 3), "{left:?}");
    assert_eq!(left.stderr, format!("using `longshore dev` at {url}\n"));
    let results = given.longshore(&["results", "--name", "first"]);
    assert_eq!((results.code, &results.stdout), (Some(0), &left.stdout), "{results:?}");
    let listed = given.longshore(&["list", "--json"]);
    assert!(listed.stdout.contains("\"name\":\"first\""), "{listed:?}");
    // Settings that name services are meant.
    let named = given.longshore(&["list", "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(named.code, Some(3), "{named:?}");
    assert!(!named.stderr.contains("longshore dev"), "{named:?}");
    // The one that was started last is found, and the other one when that is gone.
    let (second, other) = start();
    assert_ne!(url, other);
    assert!(given.longshore(&["list"]).stderr.contains(&other));
    kill("-KILL", &second);
    given::finish(second);
    assert_eq!(count(), 2, "nobody could remove the file");
    assert!(given.longshore(&["list"]).stderr.contains(&url));
    assert_eq!(count(), 1, "a file that was left over is removed");
    kill("-TERM", &dev);
    assert_eq!(given::finish(dev).code, Some(0));
    assert_eq!(count(), 0, "it is gone with the process");
}

#[test]
fn the_printed_settings_are_the_defaults_and_a_valid_file() {
    let printed = Given::nothing().longshore(&["config"]);
    assert_eq!(printed.code, Some(0));
    assert!(printed.stdout.contains("\namqp_url = \"amqp://guest:guest@127.0.0.1:5672/%2f\"\n"));
    let given = Given::nothing().file("longshore.toml", &printed.stdout);
    let left = given.longshore(&["run", "--task", "noop", "--items", "1"]);
    assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
    let json = Given::nothing().longshore(&["config", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["namespace"], "longshore");
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let left = Given::nothing().longshore(&["completions", shell]);
        assert_eq!(left.code, Some(0));
        assert!(left.stdout.contains("doctor") && left.stdout.contains("amqp-url"), "{shell}");
    }
}
