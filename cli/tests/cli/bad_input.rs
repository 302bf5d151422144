//! User mistakes get one line on standard error and an exit code; standard output stays empty.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::given::Given;

#[track_caller]
fn refused(given: &Given, arguments: &[&str], code: i32, error: &str) {
    let left = given.longshore(arguments);
    let first = left.stderr.lines().next().unwrap_or_default();
    let folder = given.folder().canonicalize().expect("it is there");
    let first = first.replace(folder.to_str().expect("UTF-8"), "FOLDER");
    assert_eq!(first, error, "{arguments:?}");
    assert_eq!(left.code, Some(code), "{arguments:?}: {error}");
    assert_eq!(left.stdout, "", "{arguments:?}: {error}");
}

#[track_caller]
fn flags(arguments: &[&str], error: &str) {
    refused(&Given::nothing(), arguments, 2, error);
}

/// Checks the error of `longshore run --task noop --items 1` with these arguments.
#[track_caller]
fn quick(more: &[&str], error: &str) {
    let arguments: Vec<&str> =
        ["run", "--task", "noop", "--items", "1"].iter().chain(more).copied().collect();
    flags(&arguments, error);
}

#[track_caller]
fn document(text: &str, error: &str) {
    let given = Given::nothing().file("job.json", text);
    refused(&given, &["run", "job.json"], 2, &format!("error: job.json: {error}"));
}

#[track_caller]
fn settings(toml: &str, error: &str) {
    let given = Given::nothing().file("longshore.toml", toml);
    refused(&given, &["run", "--task", "noop", "--items", "1"], 2, error);
}

#[track_caller]
fn variable(name: &str, value: &str, error: &str) {
    let given = Given::nothing().variable(name, value);
    refused(&given, &["run", "--task", "noop", "--items", "1"], 2, error);
}

const JOB: &str = "01900000-0000-7000-8000-000000000000";
const NOWHERE: &str = "redis://127.0.0.1:1";

#[test]
fn jobs_that_are_not_chosen_clearly() {
    let nothing = |verb: &str| {
        format!(
            "error: nothing says which jobs to {verb}; give a JOB, or --state, --task, --queue, \
             --tenant, --label, --name or --older-than"
        )
    };
    for verb in ["pause", "resume", "cancel", "retry", "delete"] {
        flags(&[verb], &nothing(verb));
        flags(&[verb, "--yes"], &nothing(verb));
        flags(&[verb, "--dry-run"], &nothing(verb));
        let both = "error: JOB and a filter exclude each other; give one of them";
        flags(&[verb, JOB, "--task", "noop"], both);
        flags(&[verb, JOB, "--name", "nightly"], both);
        flags(&[verb, JOB, "--older-than", "1h", "--yes"], both);
        let dry = "error: --dry-run is for a filter; leave it out, or leave out JOB";
        flags(&[verb, JOB, "--dry-run"], dry);
        let unsure = format!(
            "error: this would {verb} every job that the filter shows; add --dry-run to see how \
             many, or --yes to do it"
        );
        flags(&[verb, "--state", "paused"], &unsure);
        flags(&[verb, "--name", "nightly", "--queue", "gpu"], &unsure);
    }
    let both = "error: the argument '--dry-run' cannot be used with '--yes'";
    flags(&["pause", "--task", "noop", "--dry-run", "--yes"], both);
    let index = "error: --index is for one job; leave out the filter";
    flags(&["retry", "--state", "failed", "--yes", "--index", "7"], index);
    let force = "error: --force is for one job; cancel those that the filter shows, then delete \
                 them";
    flags(&["delete", "--task", "noop", "--yes", "--force"], force);
    let state = "error: invalid value 'asleep' for '--state <STATE>': unknown state `asleep`";
    flags(&["cancel", "--state", "asleep", "--yes"], state);
    let age = "error: invalid value '5' for '--older-than <DURATION>': `5` is no duration; write \
               one like \"30s\", \"5m\" or \"1h 30m\"";
    flags(&["cancel", "--older-than", "5", "--yes"], age);
    for short in ["0190000", "0190000g", "01900000-0000-7000-8000-0000000000000", "0190-0000"] {
        let error = format!(
            "error: invalid value '{short}' for '[JOB]': a job's id is a UUID, as `longshore list` \
             shows them; write the id or its first 8 characters or more"
        );
        flags(&["pause", short], &error);
    }
    let name = "error: the argument '[JOB]' cannot be used with '--name <NAME>'";
    flags(&["errors", JOB, "--name", "nightly"], name);
}

#[test]
fn dead_letters_that_are_not_chosen_clearly() {
    let unsure = "error: this would delete every dead letter; add --yes, or give the ids of some";
    flags(&["dead", "purge"], unsure);
    flags(&["dead", "requeue"], "error: the following required arguments were not provided:");
    let both = "error: the argument '--all' cannot be used with '[ID]...'";
    flags(&["dead", "requeue", "--all", JOB], both);
    let both = "error: the argument '--yes' cannot be used with '[ID]...'";
    flags(&["dead", "purge", "--yes", JOB], both);
    flags(&["dead", "show"], "error: the following required arguments were not provided:");
    let limit = "error: invalid value '0' for '--limit <N>': 0 is not in 1..=1000";
    flags(&["dead", "list", "--limit", "0"], limit);
}

#[test]
fn invalid_flags() {
    flags(&["fly"], "error: unrecognized subcommand 'fly'");
    flags(&["run"], "error: the following required arguments were not provided:");
    flags(&["run", "a.json", "b.json"], "error: unexpected argument 'b.json' found");
    flags(&["run", "--task", "noop"], "error: the following required arguments were not provided:");
    flags(&["run", "--items", "1"], "error: the following required arguments were not provided:");
    flags(
        &["run", "job.json", "--task", "noop", "--items", "1"],
        "error: the argument '[JOB.json]' cannot be used with '--task <TASK>'",
    );
    flags(
        &["run", "--task", "noop", "--items"],
        "error: a value is required for '--items <VALUE>...' but none was supplied",
    );
    quick(
        &["--range", "0..5"],
        "error: the argument '--items <VALUE>...' cannot be used with '--range <A..B[..STEP]>'",
    );
    quick(
        &["--bytes", "1MiB"],
        "error: the argument '--items <VALUE>...' cannot be used with '--bytes <SIZE>'",
    );
    quick(&["--slots", "0"], "error: slots: 0; use 1 to 4096");
    quick(
        &["--slots", "many"],
        "error: invalid value 'many' for '--slots <N>': invalid digit found in string",
    );
    quick(
        &["--grace", "5"],
        "error: --grace: `5` is no duration; write one like \"30s\", \"5m\" or \"1h 30m\"",
    );
    quick(
        &["--json=yes"],
        "error: unexpected value 'yes' for '--json' found; no more were expected",
    );
    flags(
        &["submit", "--wait", "--detach", "--task", "noop", "--items", "1"],
        "error: the argument '--wait' cannot be used with '--detach'",
    );
    flags(
        &["submit", "--task", "noop", "--items", "1", "--within", "soon"],
        "error: invalid value 'soon' for '--within <DURATION>': `soon` is no duration; write one \
         like \"30s\", \"5m\" or \"1h 30m\"",
    );
    flags(
        &["status", "seven"],
        "error: invalid value 'seven' for '[JOB]': a job's id is a UUID, as `longshore list` shows \
         them; write the id or its first 8 characters or more",
    );
    flags(
        &["status", "--watch"],
        "error: --watch without a job needs a terminal on standard error; name a job",
    );
    flags(&["errors"], "error: the following required arguments were not provided:");
    flags(
        &["retry", JOB, "--index", "x"],
        "error: invalid value 'x' for '--index <INDEX>...': invalid digit found in string",
    );
    flags(&["completions", "tcsh"], "error: invalid value 'tcsh' for '<SHELL>'");
    flags(
        &["config", "--log-format", "xml"],
        "error: invalid value 'xml' for '--log-format <FORMAT>'",
    );
    flags(&["worker", "--labels", "gpu"], "error: --labels: `gpu` is no label; write name=value");
    flags(
        &["worker", "--queues", ","],
        "error: queues: a name is missing; name at least one queue",
    );
    flags(&["dev", "--jobs", "nowhere"], "error: nowhere: no such file");
}

#[test]
fn flags_that_make_no_job() {
    let range = |range: &str, error: &str| {
        flags(&["run", "--task", "noop", "--range", range], error);
    };
    range(
        "0-5",
        "error: --range: `0-5` is no range; write START..END or START..END..STEP, like 0..1000",
    );
    range(
        "5..0",
        "error: flags: split: no numbers from 5 to before 0 in steps of 1; use an end above the \
         start",
    );
    range("0..9..0", "error: flags: split.step: `0`; use a step that leads from start to end");
    range(
        "0..9223372036854775807",
        "error: flags: split: 9223372036854775807 subtasks; use at most 1099511627776 (2^40)",
    );
    quick(
        &["--params", "{a"],
        "error: --params: not JSON: key must be a string at line 1 column 2",
    );
    quick(&["--priority", "11"], "error: flags: priority: `11`; use a whole number from 0 to 9");
    quick(&["--priority", "-1"], "error: flags: priority: `-1`; use a whole number from 0 to 9");
    quick(
        &["--id", "seven"],
        "error: --id: `seven`; write a UUID like 01890a5d-ac96-774b-bcce-b302099a8057, or \
         leave it out",
    );
    quick(
        &["--queue", ""],
        "error: flags: queue: an empty name; use 1 to 100 characters out of A-Z a-z 0-9 . _ -",
    );
    quick(
        &["--reduce", "nope"],
        "error: reduce.task: unknown task `nope`; use concat, fail, merge_counts, noop, sleep, \
         sum, wordcount, or declare [task.nope] in longshore.toml",
    );
    flags(
        &["run", "--task", "nope", "--items", "1"],
        "error: task: unknown task `nope`; use concat, fail, merge_counts, noop, sleep, sum, \
         wordcount, or declare [task.nope] in longshore.toml",
    );
}

#[test]
fn globs_without_files() {
    let lines = |glob: &str, error: &str| {
        flags(&["run", "--task", "wordcount", "--lines", glob], error);
    };
    lines("*.txt", "error: flags: split.files: no file matches `FOLDER/*.txt`");
    lines("/nowhere/a.txt", "error: flags: split.files: no file matches `/nowhere/a.txt`");
    let allowed = "write paths with * ? [abc] or **, or URLs that start with file:// or s3://";
    lines(
        "[x",
        &format!("error: flags: split.files[0]: `[x` is no glob: invalid range pattern; {allowed}"),
    );
    lines(
        "gs://b/k",
        &format!("error: flags: split.files[0]: `gs://b/k` is no glob: unknown scheme; {allowed}"),
    );
    flags(
        &["run", "--task", "wordcount", "--lines", "x", "--bytes", "1000"],
        "error: flags: split.bytes: `1000` is no size; write a whole number with B, KiB, MiB, GiB \
         or TiB, like \"1MiB\"",
    );
}

#[test]
fn invalid_documents() {
    document(
        "",
        "document: not JSON: EOF while parsing a value at line 1 column 0; write one JSON object",
    );
    document("[]", "document: a list; write one JSON object");
    document(
        "{\"task\":\"noop\"",
        "document: not JSON: EOF while parsing an object at line 1 column 14; write one JSON object",
    );
    document(
        r#"{"task":"noop","split":{"by":"ranges"}}"#,
        "split.by: unknown kind `ranges`; use items, range, lines, files or grid",
    );
    document(
        r#"{"task":"noop","split":{"by":"items","items":[]}}"#,
        "split.items: an empty list; list at least one item",
    );
    document(
        r#"{"task":"noop","split":{"by":"items","items":[1]},"timeout":30}"#,
        "timeout: `30` has no unit; write \"30s\"",
    );
    document(
        r#"{"task":"noop","split":{"by":"items","items":[1]},"prority":3}"#,
        "document: unknown field `prority`; did you mean `priority`?",
    );
    let given = Given::nothing().file("latin.json", b"\xff\xfe");
    refused(
        &given,
        &["run", "latin.json"],
        2,
        "error: latin.json: document: not UTF-8 at line 1 column 1; write JSON in UTF-8",
    );
    let given = Given::nothing().stdin("{}");
    let left = given.longshore(&["run", "-"]);
    assert!(left.stderr.starts_with("error: <stdin>: task: missing; "), "{}", left.stderr);
    assert_eq!(left.code, Some(2));
}

#[test]
fn files_that_can_not_be_read() {
    flags(&["run", "nowhere.json"], "error: nowhere.json: no such file");
    flags(&["run", "."], "error: .: is a directory");
    flags(&["status", "--config", "nowhere.toml"], "error: nowhere.toml: no such file");
    let given = Given::nothing().variable("LONGSHORE_CONFIG", "elsewhere.toml");
    refused(&given, &["status"], 2, "error: elsewhere.toml: no such file");
    let given = Given::nothing().file("longshore.toml", b"\xff");
    refused(&given, &["status"], 2, "error: longshore.toml: is not UTF-8 text");
}

/// Runs `longshore` as a user without special permissions. Tests in containers often run as root,
/// who may read every file.
fn unprivileged(given: &Given, arguments: &[&str]) -> Command {
    let me = std::fs::metadata("/proc/self").expect("Linux has it").uid();
    if me != 0 {
        return given.command(arguments);
    }
    // Other users may not be able to read the build's folder, but they can read that of the test.
    let binary = given.folder().join("longshore");
    if !binary.exists() {
        // Copied by a separate process: if this process wrote the file, a child that another test
        // starts at that moment would inherit the open file, and a program that is open for writing
        // can't be started.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_longshore")).arg(&binary).status();
        assert!(copied.is_ok_and(|status| status.success()), "room for a copy");
    }
    std::fs::set_permissions(given.folder(), Permissions::from_mode(0o755)).expect("ours");
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(given.folder()).env_clear().uid(65534).gid(65534);
    command
}

#[test]
fn files_without_permission() {
    let given = Given::nothing()
        .file("job.json", "{}")
        .file("longshore.toml", "")
        .file("text/a.txt", "a")
        .file("closed/a.txt", "a");
    let close = |name: &str| {
        let path = given.folder().join(name);
        std::fs::set_permissions(path, Permissions::from_mode(0o000)).expect("ours");
    };
    let says = |arguments: &[&str], code: i32, error: &str| {
        let output = unprivileged(&given, arguments).output().expect("longshore starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let folder = given.folder().to_str().expect("UTF-8");
        assert_eq!(stderr.replace(folder, "FOLDER"), format!("{error}\n"), "{arguments:?}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    };
    let count = ["run", "--task", "wordcount", "--files"];
    close("job.json");
    says(&["run", "job.json"], 2, "error: job.json: permission denied");
    close("closed");
    let denied = "error: flags: split.files: FOLDER/closed: permission denied";
    says(&[&count[..], &["closed/*"]].concat(), 2, denied);
    close("text/a.txt");
    let left =
        unprivileged(&given, &[&count[..], &["text/*"]].concat()).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&left.stderr);
    assert!(stderr.contains("text/a.txt: permission denied (3 attempts)"), "{stderr}");
    assert_eq!(left.status.code(), Some(1));
    close("longshore.toml");
    says(&["status"], 2, "error: longshore.toml: permission denied");
}

#[test]
fn invalid_settings() {
    let run = "error: longshore.toml";
    settings(
        "slots = ",
        &format!("{run}:1:9: string values must be quoted, expected literal string"),
    );
    settings(
        "slot = 4",
        &format!(
            "{run}:1:1: unknown field `slot`, expected one of `amqp_url`, `amqp_url_file`, \
             `redis_url`, `redis_url_file`, `tls_ca`, `tls_cert`, `tls_key`, `namespace`, \
             `server`, `token_file`, `work_queues`, `dead_after`, `http_listen`, \
             `http_behind_proxy`, `http_tls_cert`, `http_tls_key`, `http_tls_client_ca`, `slots`, \
             `queues`, `labels`, `heartbeat`, `ack_after`, `grace`, `allow_roots`, \
             `builtin_tasks`, `pass_env`, `http_allow_addresses`, `task`"
        ),
    );
    settings("slots = \"4\"", &format!("{run}:1:9: invalid type: string \"4\", expected u32"));
    settings("slots = 0", "error: slots: 0; use 1 to 4096");
    settings("dead_after = \"1s\"", "error: dead_after: 1s; use at least twice the heartbeat, 2s");
    settings(
        "\ngrace = \"5\"",
        &format!("{run}:2:9: `5` is no duration; write one like \"30s\", \"5m\" or \"1h 30m\""),
    );
    settings(
        "work_queues = \"stream\"",
        &format!("{run}:1:15: unknown kind `stream`; use classic or quorum"),
    );
    settings(
        "[task.a]\ncommand = [\"sh\"]\nhttp = \"http://127.0.0.1/\"",
        &format!("{run}:1:1: use exactly one of `command`, `serve` and `http`"),
    );
    variable(
        "LONGSHORE_SLOTS",
        "four",
        "error: LONGSHORE_SLOTS: `four` is no whole number; use 1 to 4096",
    );
    variable("LONGSHORE_HEARTBEAT", "0s", "error: heartbeat: 0s; use at least 50ms");
    variable(
        "LONGSHORE_NAMESPACE",
        "a b",
        "error: namespace: `a b` with the character ` `; use 1 to 64 characters out of A-Z a-z 0-9 \
         . _ -",
    );
    variable(
        "LONGSHORE_WORK_QUEUES",
        "fast",
        "error: LONGSHORE_WORK_QUEUES: unknown kind `fast`; use classic or quorum",
    );
}

#[test]
fn missing_services() {
    let refusal = "error: Redis at 127.0.0.1:1: Connection refused (os error 111); start Redis, or \
                   correct redis_url";
    for verb in [
        &["status"][..],
        &["status", JOB],
        &["results", JOB],
        &["errors", JOB],
        &["audit", JOB],
        &["pause", JOB],
        &["resume", JOB],
        &["cancel", JOB],
        &["delete", JOB],
        &["delete", JOB, "--force"],
        &["retry", JOB],
        &["nodes"],
        &["drain", "node"],
        &["submit", "--task", "noop", "--items", "1"],
    ] {
        let given = Given::nothing().variable("LONGSHORE_REDIS_URL", NOWHERE);
        refused(&given, verb, 3, refusal);
    }
    let left = Given::nothing()
        .variable("LONGSHORE_REDIS_URL", NOWHERE)
        .variable("LONGSHORE_AMQP_URL", "amqp://127.0.0.1:1")
        .longshore(&["doctor"]);
    assert_eq!(left.code, Some(3));
    for line in [
        "error    redis.reachable: 127.0.0.1:1: Connection refused (os error 111)",
        "error    rabbitmq.reachable: 127.0.0.1:1: Connection refused (os error 111)",
    ] {
        assert!(left.stdout.lines().any(|printed| printed == line), "{}", left.stdout);
    }
}

#[test]
fn invalid_addresses() {
    flags(
        &["status", "--redis-url", "http://x"],
        "error: redis_url: unknown scheme `http`; use redis://, rediss://, unix://, \
         redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://",
    );
    let left = Given::nothing().longshore(&["scheduler", "--amqp-url", "http://x"]);
    assert_eq!(left.code, Some(2));
    assert_eq!(
        left.stderr,
        "error: amqp_url: Invalid AMQP scheme: http; expected \
         amqp://user:password@host:5672/vhost, or amqps://…\n"
    );
}

#[test]
fn with_json_a_mistake_is_an_object_with_kind_and_place() {
    let given = Given::nothing().file("job.json", r#"{"task": "noop"}"#);
    let text = given.longshore(&["run", "job.json"]);
    let left = given.longshore(&["run", "job.json", "--json"]);
    assert_eq!((left.code, left.stdout.as_str()), (Some(2), ""), "{left:?}");
    let problem: Value = serde_json::from_str(&left.stderr).expect("one line of JSON");
    assert_eq!(problem["kind"], "bad_input");
    let detail = problem["detail"].as_str().expect("a text");
    assert_eq!(text.stderr, format!("error: {detail}\n"));
    let [place, found, allowed] =
        ["place", "found", "allowed"].map(|name| problem["errors"][0][name].as_str());
    let [place, found, allowed] = [place, found, allowed].map(|it| it.expect("a text"));
    assert_eq!(detail, format!("job.json: {place}: {found}; {allowed}"));
    assert_eq!(place, "split");

    let run = ["run", "--task", "noop", "--items", "1", "--json", "--slots", "0"];
    let left = Given::nothing().longshore(&run);
    let problem: Value = serde_json::from_str(&left.stderr).expect("one line of JSON");
    assert_eq!((left.code, &problem["kind"]), (Some(2), &"bad_config".into()), "{left:?}");
    assert_eq!(problem["errors"][0]["place"], "slots");

    let left = given.longshore(&["results", JOB, "--redis-url", NOWHERE, "--json"]);
    let problem: Value = serde_json::from_str(&left.stderr).expect("one line of JSON");
    assert_eq!((left.code, &problem["kind"]), (Some(3), &"unreachable".into()), "{left:?}");
}
