//! Bad job documents of foreign clients go to the dead queue with the reason, and harm no job.
//!
//! They are published directly. The job is shown as rejected if its id can be read, and a job that
//! has the id already is not affected.

use std::cell::Cell;

use longshore_test_servers::wait_until;
use serde_json::{Value, json};

use super::foreign::Message;
use super::{LONG, Site, each, expect};

/// The expected outcome of a row.
enum Fate {
    /// The dead queue holds it, with this reason.
    Dead(&'static str),
    /// The ledger shows its id as rejected, too.
    Rejected(&'static str),
    /// All its messages make one job, which succeeds.
    OneJob,
    /// RabbitMQ returns it, because no queue takes it.
    Answered(&'static str),
}

use Fate::{Answered, Dead, OneJob, Rejected};

struct Row {
    name: &'static str,
    /// The messages, published once each, in order.
    bodies: Vec<Vec<u8>>,
    /// The exchange and the key, unless they are those of applications.
    address: Option<(&'static str, &'static str)>,
    properties: Value,
    fate: Fate,
    /// The id of the job. In bodies it is written `ID`.
    id: String,
}

impl Row {
    fn to(mut self, exchange: &'static str, key: &'static str) -> Self {
        self.address = Some((exchange, key));
        self
    }

    fn with(mut self, properties: Value) -> Self {
        self.properties = properties;
        self
    }

    /// The message id that the publisher has set.
    fn message_id(&self) -> Option<&str> {
        self.properties["message_id"].as_str()
    }

    fn is_of(&self, message: &Message) -> bool {
        self.bodies.contains(&message.body) && self.message_id() == message.message_id.as_deref()
    }
}

const VALID: &str = r#"{"id":"ID","task":"noop","split":{"by":"range","start":0,"end":3}}"#;
const NAMELESS: &str = r#"{"task":"noop","tenant":"ID","split":{"by":"range","start":0,"end":3}}"#;
const TAKEN: &str = "id: another job with other content has this id; choose a new one";

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(null), |inner, _| json!({ "t": inner }))
}

/// All rows; `healthy` is the id of a running job.
fn rows(healthy: &str) -> Vec<Row> {
    let number = Cell::new(0);
    let several = |name, bodies: &[Vec<u8>], fate| {
        number.set(number.get() + 1);
        let id = format!("0193a0c5-7e1c-7000-8000-{:012}", number.get());
        let fill = |body: &Vec<u8>| match std::str::from_utf8(body) {
            Ok(text) => text.replace("ID", &id).replace("HEALTHY", healthy).into_bytes(),
            Err(_) => body.clone(),
        };
        let bodies = bodies.iter().map(fill).collect();
        Row { name, bodies, address: None, properties: json!({"message_id": id}), fate, id }
    };
    let bytes = |name, body: Vec<u8>, fate| several(name, &[body], fate);
    let row = |name, body: &str, fate| bytes(name, body.as_bytes().to_vec(), fate);
    let split = |name, split: &str, fate| {
        let body = format!(r#"{{"id":"ID","task":"noop","split":{split}}}"#);
        bytes(name, body.into_bytes(), fate)
    };
    let mib = |byte: u8| vec![byte; 1 << 20];
    vec![
        // Bodies that are not a document.
        row(
            "empty",
            "",
            Dead("document: not JSON: EOF while parsing a value at line 1 column 0; …"),
        ),
        bytes(
            "not UTF-8",
            vec![0xff, 0xfe, 0x7b],
            Dead("document: not UTF-8 at line 1 column 1; …"),
        ),
        bytes(
            "compressed",
            vec![0x1f, 0x8b, 8, 0],
            Dead("document: not UTF-8 at line 1 column 2; …"),
        )
        .with(json!({"message_id": "gz", "content_encoding": "gzip"})),
        row(
            "byte order mark",
            &format!("\u{feff}{VALID}"),
            Dead("document: starts with a byte order mark; write UTF-8 without one"),
        ),
        row("not JSON", "hello", Dead("document: not JSON: expected value at line 1 column 1; …")),
        row("YAML", "task: noop\n", Dead("document: not JSON: …")),
        row("a list", &format!("[{VALID}]"), Dead("document: a list; write one JSON object")),
        row(
            "two documents",
            &format!("{VALID}\n{VALID}"),
            Rejected("document: not JSON: trailing …"),
        ),
        row("cut short", &VALID[..60], Rejected("document: not JSON: EOF while parsing …")),
        bytes("1 MiB of garbage", mib(b'x'), Dead("document: not JSON: expected value …")),
        bytes("1 MiB of zeros", mib(0), Dead("document: not JSON: expected value …")),
        bytes("1 MiB not UTF-8", mib(0xfe), Dead("document: not UTF-8 at line 1 column 1; …")),
        bytes("100,000 brackets", vec![b'['; 100_000], Dead("document: …")),
        row(
            "a chunk message",
            r#"{"v":1,"job":"ID","chunk":1,"from":0,"to":1,"epoch":1}"#,
            Dead("document: unknown field `v`; …"),
        ),
        // Documents with a readable id that can't be accepted.
        row(
            "unknown field",
            r#"{"id":"ID","task":"noop","split":{"by":"range","end":3},"timeOut":"1s"}"#,
            Rejected("document: unknown field `timeOut`; did you mean `timeout`?"),
        ),
        row(
            "a field of 100 kB",
            &format!(r#"{{"id":"ID","{}":1}}"#, "é".repeat(50_000)),
            Rejected("document: unknown field `é…"),
        ),
        row(
            "no task",
            r#"{"id":"ID","split":{"by":"range","start":0,"end":3}}"#,
            Rejected("task: missing; name the task that workers run"),
        ),
        row(
            "a task twice",
            r#"{"id":"ID","task":"a","task":"b"}"#,
            Rejected("document: the field `task` stands twice; write it once"),
        ),
        split(
            "no items",
            r#"{"by":"items","items":[]}"#,
            Rejected("split.items: an empty list; list at least one item"),
        ),
        split(
            "2^41 subtasks",
            r#"{"by":"range","start":0,"end":2199023255552}"#,
            Rejected("split: 2199023255552 subtasks; …"),
        ),
        split(
            "a relative glob",
            r#"{"by":"files","files":["/etc/hosts","data/*.txt"]}"#,
            Rejected(
                "split.files[1]: `data/*.txt` is relative; write an absolute path or a URL; …",
            ),
        ),
        split(
            "a home",
            r#"{"by":"files","files":["~/*.txt"]}"#,
            Rejected("split.files[0]: `~/*.txt` is relative; …"),
        ),
        split(
            "a glob without files",
            r#"{"by":"lines","files":["/nowhere/*.txt"],"bytes":"1MiB"}"#,
            Rejected("split.files: no file matches `/nowhere/*.txt`"),
        ),
        split(
            "a folder",
            r#"{"by":"files","files":["/etc"]}"#,
            Rejected("split.files: `/etc` is a directory; write `/etc/*` for the files in it"),
        ),
        split(
            "a path through a file",
            r#"{"by":"files","files":["/etc/hosts/x"]}"#,
            Rejected("split.files: no file matches `/etc/hosts/x`"),
        ),
        row(
            "results below a file",
            r#"{"id":"ID","task":"noop","split":{"by":"range","start":0,"end":3},"results":"file:///etc/hosts/x"}"#,
            Rejected("results: file:///etc/hosts/x: /etc/hosts is no folder; …"),
        ),
        split(
            "a device",
            r#"{"by":"lines","files":["/dev/zero"],"bytes":"1MiB"}"#,
            Rejected("split.files: `/dev/zero` is no regular file"),
        ),
        split(
            "no glob",
            r#"{"by":"files","files":["/etc/[x"]}"#,
            Rejected("split.files[0]: `/etc/[x` is no glob: invalid range pattern; …"),
        ),
        split(
            "a strange URL",
            r#"{"by":"files","files":["gs://b/k"]}"#,
            Rejected("split.files[0]: `gs://b/k` is no glob: unknown scheme; …"),
        ),
        // Ids.
        row(
            "an id that is no UUID",
            &VALID.replace("ID", "job-7"),
            Dead("id: `job-7`; write a UUID …"),
        ),
        row(
            "a nil id",
            &VALID.replace("ID", "00000000-0000-0000-0000-000000000000"),
            Dead("id: `0000…"),
        ),
        row(
            "two ids",
            &VALID.replacen('{', r#"{"id":"HEALTHY","#, 1),
            Dead("document: the field `id` …"),
        ),
        row("the id of a running job", &VALID.replace("ID", "HEALTHY"), Dead(TAKEN)),
        row(
            "the id of a running job, and nonsense",
            r#"{"id":"HEALTHY","task":7}"#,
            Dead("task: `7`; write a string"),
        ),
        several("the same twice", &[VALID.into(), VALID.into()], OneJob),
        several(
            "the same, written otherwise",
            &[VALID.into(), VALID.replace(',', " ,\r\n\t").into()],
            OneJob,
        ),
        several("nameless, twice under one name", &[NAMELESS.into(), NAMELESS.into()], OneJob),
        row("nameless", NAMELESS, OneJob).with(json!({})),
        row("nameless, under an empty name", NAMELESS, OneJob).with(json!({"message_id": ""})),
        row("nameless, under a name that is no UUID", NAMELESS, OneJob)
            .with(json!({"message_id": "17; DROP TABLE {jobs}\r\n"})),
        // Properties and addresses.
        row("odd properties", VALID, OneJob).with(json!({
            "content_type": "text/plain", "priority": 255, "correlation_id": "c".repeat(255),
            "headers": {"reason": "a lie", "x-death": [{"count": 9, "nested": {"a": null}}]},
        })),
        row("a name that is not UTF-8", NAMELESS, OneJob).with(json!({"message_id": "caf\u{e9}"})),
        row("properties that are not UTF-8", "hello", Dead("document: not JSON: …")).with(json!({
            "message_id": "latin-1", "correlation_id": "\u{ff}", "app_id": "\u{e9}t\u{e9}",
            "headers": {"cl\u{e9}": 1},
        })),
        row("headers nested 100 deep", VALID, OneJob)
            .with(json!({"headers": {"deep": nested(100)}})),
        row("headers longer than a frame of ours", VALID, OneJob)
            .with(json!({"headers": {"long": "x".repeat(100_000)}})),
        row("straight to the queue", VALID, OneJob).to("", "NS.jobs"),
        row("unknown routing key", VALID, Answered("returned")).to("NS", "job"),
        row("no routing key", VALID, Answered("returned")).to("NS", ""),
        row("a pool without workers", VALID, Answered("returned")).to("", "NS.work.nowhere"),
        row("no such exchange", VALID, Answered("refused: NOT_FOUND…")).to("NS.jobs", "jobs"),
    ]
}

/// Publishes all messages and checks the outcome of each row; returns the number of rows.
pub(crate) fn table(site: &Site) -> usize {
    let rows = rows(&site.healthy);
    let namespace = site.fleet.namespace();
    for row in &rows {
        let (exchange, key) = row.address.unwrap_or(("NS", "jobs"));
        let [exchange, key] = [exchange, key].map(|name| name.replace("NS", namespace));
        let expected = if let Answered(answer) = row.fate { answer } else { "kept" };
        for body in &row.bodies {
            let answer = site.client.publish(&exchange, &key, body, &row.properties);
            expect(row.name, "RabbitMQ's answer", &answer, expected)
                .unwrap_or_else(|e| panic!("{e}"));
        }
    }
    let refused = rows.iter().filter(|row| matches!(row.fate, Dead(_) | Rejected(_))).count();
    let mut dead = Vec::new();
    let queue = format!("{namespace}.dead");
    wait_until(&format!("{refused} documents are in the dead queue"), LONG, || {
        dead.extend(std::iter::from_fn(|| site.client.take(&queue)));
        dead.len() >= refused
    });
    let looked_at = each("documents", &rows, |row| match row.fate {
        Dead(reason) => is_dead(&dead, row, reason, false),
        Rejected(reason) => {
            is_dead(&dead, row, reason, true)?;
            is_shown(site, row, reason)
        }
        OneJob => succeeds_once(site, row),
        Answered(_) => Ok(()),
    });
    // Every other job was accepted above.
    dead.extend(std::iter::from_fn(|| site.client.take(&queue)));
    assert_eq!(dead.len(), refused, "nothing else died");
    looked_at
}

fn is_dead(dead: &[Message], row: &Row, reason: &str, is_named: bool) -> Result<(), String> {
    let found: Vec<&Message> = dead.iter().filter(|message| row.is_of(message)).collect();
    let [message] = found[..] else {
        return Err(format!("{}: stands {} times in the dead queue", row.name, found.len()));
    };
    expect(row.name, "the header `reason`", &message.reason, reason)?;
    if message.reason.len() > 4_000 {
        return Err(format!("{}: a reason of {} bytes", row.name, message.reason.len()));
    }
    match message.id.as_deref() {
        Some(id) if is_named => expect(row.name, "the header `id`", id, &row.id),
        None if is_named => Err(format!("{}: no header `id`", row.name)),
        _ => Ok(()),
    }
}

/// Checks that every command shows the id as rejected.
fn is_shown(site: &Site, row: &Row, reason: &str) -> Result<(), String> {
    let status = site.fleet.status(&row.id);
    expect(row.name, "its state", status["state"].as_str().unwrap_or_default(), "rejected")?;
    expect(row.name, "its error", status["error"].as_str().unwrap_or_default(), reason)?;
    let results = site.fleet.longshore(&["results", &row.id]);
    expect(
        row.name,
        "results",
        &results.stderr,
        &format!("error: the job was rejected: {}…", reason.trim_end_matches('…')),
    )?;
    expect(row.name, "the exit code of results", &format!("{:?}", results.code), "Some(1)")
}

fn jobs(site: &Site) -> Vec<Value> {
    let list = site.fleet.longshore(&["status", "--finished", "1000", "--json"]).json();
    list.as_array().expect("a list").clone()
}

/// Checks that the messages of a row made one job, found by its id or its tenant.
fn succeeds_once(site: &Site, row: &Row) -> Result<(), String> {
    let mut found = Vec::new();
    wait_until(row.name, LONG, || {
        found = jobs(site);
        found.retain(|job| job["id"] == row.id.as_str() || job["tenant"] == row.id.as_str());
        found.iter().any(|job| job["state"] == "succeeded")
    });
    if found.len() != 1 || found[0]["done"] != 3 || found[0]["attempts"] != 3 {
        return Err(format!("{}: expected one job of three subtasks: {found:?}", row.name));
    }
    Ok(())
}
