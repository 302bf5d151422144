//! Commands, served commands and endpoints that misbehave: how the job of each ends.
//!
//! Each job ends as expected, reports the reason, and leaves no process behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use longshore_test_servers::wait_until;
use serde_json::{Value, json};

use super::{LONG, Site, each, expect};

/// The name of each task and its table in the worker's `longshore.toml`. `HERE` stands for the
/// test's folder, `PORT` for the port of the bad endpoint.
const TASKS: [(&str, &str); 34] = [
    // The task of the healthy job: slow until the file `full-speed` exists.
    (
        "steady",
        r#"serve = ["sh", "-c", "while read x; do [ -e HERE/full-speed ] || sleep 0.2; echo '{\"ok\":1}'; done"]"#,
    ),
    ("exits", r#"command = ["sh", "-c", "echo no crane >&2; exit 1"]"#),
    ("dies", r#"command = ["sh", "-c", "echo mayday >&2; kill -SEGV $$"]"#),
    ("words", r#"command = ["echo", "not", "JSON"]"#),
    ("nearly", r#"command = ["echo", "{'a': 1}"]"#),
    ("bytes", r#"command = ["printf", "\\377"]"#),
    ("quiet", r#"command = ["true"]"#),
    ("deaf", r#"command = ["sh", "-c", "exec <&-; echo 1"]"#),
    ("two-mib", r#"command = ["sh", "-c", "head -c 2097152 /dev/zero | tr '\\0' x"]"#),
    ("endless", r#"command = ["yes"]"#),
    (
        "shouts",
        r#"command = ["sh", "-c", "yes 'all hands' | head -c 1000000 >&2; echo sunk >&2; exit 9"]"#,
    ),
    ("busy", r#"command = ["sh", "-c", "echo berth taken >&2; exit 75"]"#),
    ("slow", "command = [\"sleep\", \"1000.HERE_ID\"]\ntimeout = \"300ms\""),
    (
        "stubborn",
        "command = [\"sh\", \"-c\", \"trap '' TERM; while :; do sleep 1; done # HERE\"]\ntimeout = \"300ms\"",
    ),
    (
        "litters",
        r#"command = ["sh", "-c", "(trap '' TERM; while :; do sleep 1; done) >&- 2>&- <&- & # HERE"]"#,
    ),
    ("removed", r#"command = ["HERE/removed"]"#),
    ("not-executable", r#"command = ["HERE/not-executable"]"#),
    ("no-program", r#"command = ["HERE/no-program"]"#),
    ("serves-words", r#"serve = ["sh", "-c", "while read x; do echo hello; done"]"#),
    ("serves-bytes", r#"serve = ["sh", "-c", "while read x; do printf '\\377\\n'; done"]"#),
    ("serves-nothing", r#"serve = ["sh", "-c", "read x; exec >&-; sleep 0.1"]"#),
    ("serves-exit", r#"serve = ["sh", "-c", "read x; echo rope broke >&2; exit 4"]"#),
    ("serves-at-once", r#"serve = ["true"]"#),
    ("serves-half", r#"serve = ["sh", "-c", "read x; printf '{\"ok\": 1'"]"#),
    (
        "serves-more",
        r#"serve = ["python3", "-u", "-c", "import json, sys\nfor line in sys.stdin:\n n = json.loads(line)['input']\n print(json.dumps({'ok': n}) + '\\n' + json.dumps({'ok': 'extra'}))"]"#,
    ),
    (
        "serves-no",
        r#"serve = ["sh", "-c", "while read x; do echo '{\"error\": \"no berth\", \"retry\": false}'; done"]"#,
    ),
    (
        "serves-both",
        r#"serve = ["sh", "-c", "while read x; do echo '{\"ok\": 1, \"error\": \"e\"}'; done"]"#,
    ),
    ("serves-other", r#"serve = ["sh", "-c", "while read x; do echo '{\"result\": 1}'; done"]"#),
    (
        "serves-retry",
        r#"serve = ["sh", "-c", "while read x; do echo '{\"error\": \"e\", \"retry\": \"no\"}'; done"]"#,
    ),
    (
        "serves-2-mib",
        r#"serve = ["python3", "-u", "-c", "import sys\nfor line in sys.stdin: print('{\"ok\": \"' + 'x' * (2 << 20) + '\"}')"]"#,
    ),
    (
        "serves-forever",
        "serve = [\"sh\", \"-c\", \"while read x; do sleep 1000; done # HERE\"]\ntimeout = \"300ms\"",
    ),
    ("refused", r#"http = "http://127.0.0.1:1/""#),
    ("silent", "http = \"http://127.0.0.1:PORT/silent\"\ntimeout = \"300ms\""),
    ("elsewhere", r#"http = "http://127.0.0.1:PORT/elsewhere""#),
];

/// Paths of the endpoint, each of which is a task named after it.
const ENDPOINTS: [&str; 7] = ["broken", "gone", "bytes", "text", "long", "garbage", "short"];

/// Writes the worker's configuration and returns its path.
pub(crate) fn declare(folder: &Path, port: u64) -> String {
    let here = folder.to_str().expect("a plain name");
    let mut toml = String::new();
    for (name, table) in TASKS {
        toml += &format!("[task.{name}]\n{table}\n");
    }
    for path in ENDPOINTS {
        toml += &format!("[task.http-{path}]\nhttp = \"http://127.0.0.1:PORT/{path}\"\n");
    }
    let toml = toml
        .replace("HERE_ID", &std::process::id().to_string())
        .replace("HERE", here)
        .replace("PORT", &port.to_string());
    for program in ["removed", "not-executable", "no-program"] {
        std::fs::write(folder.join(program), "\u{1}no program\n").expect("room for it");
    }
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("no-program"), executable).expect("it is ours");
    let config = folder.join("longshore.toml");
    std::fs::write(&config, toml).expect("room for it");
    config.to_str().expect("a plain name").to_owned()
}

/// How the job of a row ends. Texts that end in `…` are prefixes.
enum End {
    /// A subtask fails for good after this number of attempts, with this error.
    Fails(&'static str, u32),
    /// The job as a whole fails for this reason.
    JobFails(&'static str),
    /// The job succeeds, with these results.
    Prints(&'static str),
    /// No subtask runs or fails, and `status` shows this reason.
    Waits(&'static str),
}

use End::{Fails, JobFails, Prints, Waits};

/// A name, fields of the document that differ from the default, and the end.
type Row = (&'static str, &'static str, End);

fn rows() -> Vec<Row> {
    vec![
        ("exits", "", Fails("exit code 1: no crane", 2)),
        ("dies", "", Fails("killed by SIGSEGV: mayday", 2)),
        ("words", "", Prints("\"not JSON\"\n")),
        ("nearly", "", Fails("the output …", 2)),
        ("quiet", "", Prints("\"\"\n")),
        ("deaf", "", Prints("1\n")),
        ("bytes", "", Fails("the output is neither JSON nor UTF-8: …", 1)),
        (
            "two-mib",
            "",
            Fails(
                "the result is 2097154 bytes long; at most 1048576 are allowed (max_result); …",
                1,
            ),
        ),
        ("endless", "", Fails("stdout is longer than 1048576 bytes (max_result)", 1)),
        ("shouts", "", Fails("exit code 9: …", 2)),
        ("busy", r#""deadline":"1500ms""#, JobFails("the deadline has passed")),
        ("slow", "", Fails("timed out after 300ms", 2)),
        ("stubborn", r#""retry":{"attempts":1}"#, Fails("timed out after 300ms", 1)),
        ("litters", "", Prints("\"\"\n")),
        ("removed", "", Waits("/removed`")),
        ("not-executable", "", Waits("is not executable")),
        ("no-program", "", Waits("can't start the command `")),
        (
            "serves-words",
            "",
            Fails(
                "the served command answered \"hello\": not a line of JSON with `ok` or `error` …",
                2,
            ),
        ),
        (
            "serves-bytes",
            "",
            Fails("the served command answered \"\u{fffd}\": not a line of JSON …", 2),
        ),
        ("serves-nothing", "", Fails("the served command ended without an answer: …", 2)),
        (
            "serves-exit",
            "",
            Fails("the served command ended without an answer: exit code 4: rope broke", 2),
        ),
        ("serves-at-once", "", Fails("the served command ended without an answer: exit code 0", 2)),
        ("serves-half", "", Fails("the served command ended without an answer: exit code 0", 2)),
        (
            "serves-more",
            r#""split":{"by":"range","start":0,"end":4},"chunk":4"#,
            Prints("0\n1\n2\n3\n"),
        ),
        ("serves-no", "", Fails("no berth", 1)),
        (
            "serves-both",
            "",
            Fails(
                "the served command answered \"{\\\"ok\\\": 1, \\\"error\\\": \\\"e\\\"}\": exactly one of …",
                2,
            ),
        ),
        (
            "serves-other",
            "",
            Fails(
                "the served command answered \"{\\\"result\\\": 1}\": unknown field `result`; use `ok`, …",
                2,
            ),
        ),
        (
            "serves-retry",
            "",
            Fails(
                "the served command answered \"{\\\"error\\\": \\\"e\\\", \\\"retry\\\": \\\"no\\\"}\": `retry` must be true or false",
                2,
            ),
        ),
        ("serves-2-mib", "", Fails("the answer is longer than 1048576 bytes (max_result)", 1)),
        ("serves-forever", "", Fails("timed out after 300ms", 2)),
        ("refused", "", Waits("says: POST http://127.0.0.1:1/: ")),
        ("silent", "", Fails("timed out after 300ms", 2)),
        ("elsewhere", "", Fails("HTTP 302 Found: redirects to /login; give the task that URL", 1)),
        ("http-broken", "", Fails("HTTP 500 Internal Server Error: out of rope", 2)),
        ("http-gone", "", Fails("HTTP 404 Not Found: no such berth", 1)),
        ("http-bytes", "", Fails("the output is neither JSON nor UTF-8: …", 1)),
        ("http-text", "", Prints("\"two words\"\n")),
        ("http-long", "", Fails("the answer is longer than 1048576 bytes (max_result)", 1)),
        ("http-garbage", "", Fails("POST …", 2)),
        ("http-short", "", Fails("POST …", 2)),
        ("nobody-knows-it", "", Waits("can't run task `nobody-knows-it`, because the task is not")),
        ("noop", r#""reduce":{"task":"sum"}"#, Fails("sum: inputs[0] is null, not a number", 1)),
        (
            "noop",
            r#""reduce":{"task":"nobody-knows-it"}"#,
            Waits("can't run task `nobody-knows-it`"),
        ),
        ("wordcount", "", Fails("wordcount needs a job that is split by `lines` or `files`", 1)),
        (
            "sleep",
            r#""split":{"by":"items","items":["long"]}"#,
            Fails("sleep needs `params.ms`, …", 1),
        ),
        (
            "sleep",
            r#""split":{"by":"items","items":[1e300]}"#,
            Fails("sleep needs `params.ms`, …", 1),
        ),
        (
            "noop",
            r#""results":"file:///proc/nowhere""#,
            Waits("can't go on: results can't be written: /proc/nowhere/"),
        ),
    ]
}

/// Runs a job for each row, several at the same time; returns their number.
pub(crate) fn table(site: &Site) -> usize {
    // The program existed when the worker started, and is missing when it is to run.
    std::fs::remove_file(site.folder.path().join("removed")).expect("it was written");
    let numbered: Vec<(usize, Row)> = rows().into_iter().enumerate().collect();
    let count = each("tasks", &numbered, |row| check(site, row));
    let here = site.folder.path().to_str().expect("a plain name");
    wait_until("nothing that a task started is left", LONG, || left_over(here).is_empty());
    count
}

/// The command lines of processes that contain the test's folder or number, except the worker and
/// the healthy task.
fn left_over(here: &str) -> Vec<String> {
    let number = format!("1000.{}", std::process::id());
    let entries = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(here) || line.contains(&number))
        .filter(|line| !line.contains("longshore.toml") && !line.contains("full-speed"))
        .collect()
}

fn document(task: &str, fields: &str) -> Value {
    let mut document = json!({
        "task": task, "split": {"by": "range", "start": 0, "end": 1},
        "retry": {"attempts": 2, "backoff": "10ms"},
    });
    let fields: Value = serde_json::from_str(&format!("{{{fields}}}")).expect("a row is JSON");
    for (name, value) in fields.as_object().expect("it has braces") {
        document[name] = value.clone();
    }
    document
}

fn waits(site: &Site, row: &str, path: &str, id: &str, why: &str) -> Result<(), String> {
    site.fleet.longshore(&["submit", path]).ok();
    let text = || {
        let status = site.fleet.status(id);
        status["reasons"][0]["text"].as_str().unwrap_or_default().to_owned()
    };
    wait_until(&format!("{row}: {why}"), LONG, || text().contains(why));
    let status = site.fleet.status(id);
    let found = format!("{} failed, {} cancelled", status["failed"], status["cancelled"]);
    expect(row, "what has ended", &found, "0 failed, 0 cancelled")?;
    site.fleet.audit(id);
    site.fleet.longshore(&["cancel", id]).ok();
    Ok(())
}

fn check(site: &Site, (number, (task, fields, end)): &(usize, Row)) -> Result<(), String> {
    let row = format!("{task} {fields}");
    let file = tempfile::NamedTempFile::new().expect("a folder for it");
    let mut document = document(task, fields);
    let id = &format!("0193a0c5-7e1c-7000-8001-{number:012}");
    document["id"] = json!(id);
    std::fs::write(file.path(), document.to_string()).expect("room for it");
    let path = file.path().to_str().expect("a plain name");
    if let Waits(why) = end {
        return waits(site, &row, path, id, why);
    }
    let run = site.fleet.longshore(&["submit", "--wait", path]);
    let status = site.fleet.status(id);
    let (state, code) = if let Prints(_) = end { ("succeeded", 0) } else { ("failed", 1) };
    expect(&row, "the job's state", status["state"].as_str().unwrap_or_default(), state)?;
    expect(&row, "the exit code", &format!("{:?}", run.code), &format!("Some({code})"))?;
    site.fleet.audit(id);
    let last = run.stderr.lines().last().unwrap_or_default();
    match end {
        Waits(_) => unreachable!("it has been seen to"),
        Prints(text) => expect(&row, "its results", &run.stdout, text),
        JobFails(why) => {
            expect(&row, "the last line", last, &format!("error: the job failed: {why}"))
        }
        Fails(why, attempts) => {
            let is_reduce = !status["reduce"].is_null();
            let (what, of) = if is_reduce {
                ("reduce node 1", "…")
            } else {
                ("subtask 0", "1 of 1 subtasks failed")
            };
            expect(&row, "the last line", last, &format!("error: the job failed: {of}"))?;
            let errors = site.fleet.longshore(&["errors", id]).ok();
            let Some(error) = errors.strip_prefix(&format!("{what}: ")) else {
                return Err(format!("{row}: found {errors:?}, expected an error of {what}"));
            };
            let (error, tried) = error.rsplit_once(" (").unwrap_or((error, ""));
            expect(&row, "its error", error, why)?;
            let expected = if *attempts == 1 { "1 attempt)\n" } else { "2 attempts)\n" };
            expect(&row, "its attempts", tried, expected)
        }
    }
}
