//! Chunk messages that no scheduler sent, in the work queue: nothing runs that should not.
//!
//! The worker drops them with a line in the log, or the ledger refuses the claim. Nothing runs
//! twice.

use longshore_test_servers::{Rabbit, wait_until};
use serde_json::{Value, json};

use super::{LONG, Site};

/// The text in the worker's log for a message that it drops; empty if it asks the ledger.
type LogText = &'static str;

const NO_CHUNK: &str = "unreadable chunk message dropped";
const UNKNOWN: &str = "0193a0c5-7e1c-7000-8000-00000000dead";

/// Name, message and log text. `ENDED`, `PAUSED` and `RUNNING` stand for the ids of such jobs.
const ROWS: [(&str, &str, LogText); 22] = [
    ("empty", "", "EOF while parsing a value at line 1 column 0"),
    ("not JSON", "go!", "expected value at line 1 column 1"),
    ("a list", "[1]", "bytes"),
    ("null", "null", "bytes"),
    ("a document", r#"{"id":"UNKNOWN","task":"noop"}"#, "unknown field `id`"),
    (
        "unknown field",
        r#"{"v":1,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1,"x":1}"#,
        "unknown field `x`",
    ),
    ("no epoch", r#"{"v":1,"job":"ENDED","chunk":1,"from":0,"to":1}"#, "missing field `epoch`"),
    (
        "a field twice",
        r#"{"v":1,"v":1,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1}"#,
        "duplicate field `v`",
    ),
    ("version 2", r#"{"v":2,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1}"#, "version=2"),
    (
        "version 256",
        r#"{"v":256,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1}"#,
        "integer `256`",
    ),
    (
        "version in words",
        r#"{"v":"1","job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1}"#,
        "string \"1\"",
    ),
    ("no UUID", r#"{"v":1,"job":"seven","chunk":1,"from":0,"to":1,"epoch":1}"#, "UUID"),
    ("below zero", r#"{"v":1,"job":"ENDED","chunk":1,"from":-1,"to":1,"epoch":1}"#, "integer `-1`"),
    (
        "a broken number",
        r#"{"v":1,"job":"ENDED","chunk":1,"from":0.5,"to":1,"epoch":1}"#,
        "floating point `0.5`",
    ),
    (
        "2^64",
        r#"{"v":1,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":18446744073709551616}"#,
        "expected u64",
    ),
    ("unknown job", r#"{"v":1,"job":"UNKNOWN","chunk":1,"from":0,"to":1,"epoch":1}"#, ""),
    ("ended job", r#"{"v":1,"job":"ENDED","chunk":1,"from":0,"to":1,"epoch":1}"#, ""),
    ("backwards", r#"{"v":1,"job":"ENDED","chunk":1,"from":9,"to":1,"epoch":1}"#, ""),
    (
        "huge numbers",
        r#"{"v":1,"job":"RUNNING","chunk":18446744073709551615,"from":0,"to":18446744073709551615,"epoch":18446744073709551615}"#,
        "",
    ),
    ("wrong epoch", r#"{"v":1,"job":"RUNNING","chunk":CHUNK,"from":0,"to":1000,"epoch":7}"#, ""),
    (
        "a chunk that runs already",
        r#"{"v":1,"job":"RUNNING","chunk":CHUNK,"from":0,"to":1000,"epoch":1}"#,
        "",
    ),
    ("paused job", r#"{"v":1,"job":"PAUSED","chunk":1,"from":0,"to":1000,"epoch":1}"#, ""),
];

/// Publishes all messages and checks the effect of each; returns their number.
pub(crate) fn table(site: &Site) -> usize {
    let fleet = &site.fleet;
    let three = json!({"task": "noop", "split": {"by": "range", "start": 0, "end": 3}});
    let ended = fleet.submit(&three);
    let counts = fleet.await_end(&ended, LONG);
    let paused = fleet.submit(&json!({
        "task": "sleep", "params": {"ms": 1}, "chunk": 1, "queue": "nobody",
        "split": {"by": "range", "start": 0, "end": 3},
    }));
    fleet.longshore(&["pause", &paused]).ok();

    let queue = format!("{}.work.default", fleet.namespace());
    let publish = |name: &str, body: &[u8], properties: &Value| {
        assert_eq!(site.client.publish("", &queue, body, properties), "kept", "{name}");
    };
    for (name, body, text) in ROWS {
        let body = body
            .replace("UNKNOWN", UNKNOWN)
            .replace("ENDED", &ended)
            .replace("PAUSED", &paused)
            .replace("RUNNING", &site.healthy)
            .replace("CHUNK", &open_chunk(site));
        publish(name, body.as_bytes(), &json!({}));
        logged(site, name, text, body.len());
    }
    publish("not UTF-8", b"\xff\xfe", &json!({}));
    logged(site, "not UTF-8", "bytes", 2);
    publish("1 MiB of garbage", &vec![b'{'; 1 << 20], &json!({"headers": {"v": 1}}));
    logged(site, "1 MiB of garbage", "bytes", 1 << 20);

    wait_until("the queue is empty", LONG, || {
        let list = Rabbit::shared().ctl(&["list_queues", "--silent", "name", "messages"]);
        list.lines().any(|line| line.split_whitespace().eq([queue.as_str(), "0"]))
    });
    assert_eq!(fleet.status(&ended), counts, "a job that has ended stays as it was");
    assert_eq!(
        fleet.longshore(&["status", UNKNOWN]).code,
        Some(4),
        "a chunk message creates no job"
    );
    assert_eq!(fleet.status(&paused)["attempts"], 0, "a paused job does not run");
    for job in [&ended, &paused] {
        fleet.audit(job);
    }
    fleet.longshore(&["cancel", &paused]).ok();
    ROWS.len() + 2
}

/// An open chunk of the healthy job.
fn open_chunk(site: &Site) -> String {
    let key = format!("{}:{{{}}}:chunks", site.fleet.namespace(), site.healthy);
    let mut chunk = None;
    wait_until("the healthy job has a chunk", LONG, || {
        // The first of its fields is the number of a chunk.
        let random = longshore_test_servers::Redis::shared().call(&["HRANDFIELD", &key]).text();
        chunk = random.filter(|field| field.bytes().all(|b| b.is_ascii_digit()));
        chunk.is_some()
    });
    chunk.expect("just seen")
}

#[track_caller]
fn logged(site: &Site, row: &str, text: LogText, length: usize) {
    if text.is_empty() {
        return;
    }
    let worker = &site.fleet.workers[0];
    let wanted = format!("bytes={length}");
    let is_logged = || {
        worker.tail().lines().any(|line| {
            let is_ours = line.contains(NO_CHUNK) && line.contains(&wanted);
            line.contains(text) && (is_ours || line.contains("another version"))
        })
    };
    let deadline = std::time::Instant::now() + LONG;
    while !is_logged() {
        let is_late = std::time::Instant::now() > deadline;
        assert!(!is_late, "{row}: no line with `{text}` and `{wanted}` in {}", worker.tail());
    }
}
