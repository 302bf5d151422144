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
