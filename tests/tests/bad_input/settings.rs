//! Wrong settings and unreachable services get one clear line and an exit code, within seconds.

use std::process::Command;
use std::time::{Duration, Instant};

use longshore_test_servers::{Rabbit, Redis, RedisOptions, free_port};
use longshore_tests::{binary, finish};

use super::{each, expect};

/// The time limit of a refused command on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

/// A `longshore.toml`, environment variables that override the right URLs, the arguments, the exit
/// code, and the line on standard error. `RABBIT`, `REDIS` and `LOCKED` (a Redis with a password)
/// stand for the ports of servers, `NOBODY` for a port without a listener.
struct Row {
    toml: &'static str,
    environment: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    code: i32,
    error: &'static str,
}

const WORKER: &[&str] = &["worker"];
const SCHEDULER: &[&str] = &["scheduler"];
const SUBMIT: &[&str] = &["submit", "--task", "noop", "--items", "1"];
const AMQP: &str = "LONGSHORE_AMQP_URL";
const REDIS: &str = "LONGSHORE_REDIS_URL";

const fn file(toml: &'static str, error: &'static str) -> Row {
    Row { toml, environment: &[], arguments: WORKER, code: 2, error }
}

const fn variable(
    environment: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    code: i32,
    error: &'static str,
) -> Row {
    Row { toml: "", environment, arguments, code, error }
}

const ROWS: [Row; 46] = [
    file("slot = 4", "FILE:1:1: unknown field `slot`, expected one of …"),
    file("\nslots = \"4\"", "FILE:2:9: invalid type: string \"4\", expected u32"),
    file("slots = -1", "FILE:1:9: invalid value: integer `-1`, expected u32"),
    file("slots = 0", "slots: 0; use 1 to 4096"),
    file("slots = 5000", "slots: 5000; use 1 to 4096"),
    file("slots = ", "FILE:1:9: …"),
    file("slots = 1\nslots = 2", "FILE:2:1: duplicate key"),
    file("queues = []", "queues: a name is missing; name at least one queue"),
    file("queues = [\"a\", \"a\"]", "queues: a queue is named twice"),
    file("grace = 5", "FILE:1:9: invalid type: integer `5`, expected a string"),
    file(
        "grace = \"5\"",
        "FILE:1:9: `5` is no duration; write one like \"30s\", \"5m\" or \"1h 30m\"",
    ),
    file("heartbeat = \"1 parsec\"", "FILE:1:13: `1 parsec` is no duration; …"),
    file("heartbeat = \"1ms\"", "heartbeat: 1ms; use at least 50ms"),
    file("dead_after = \"1s\"", "dead_after: 1s; use at least twice the heartbeat, 2s"),
    file("ack_after = \"0s\"", "ack_after: 0s; use a duration above zero"),
    file("work_queues = \"streams\"", "FILE:1:15: unknown kind `streams`; use classic or quorum"),
    file(
        "http_listen = \"7700\"",
        "FILE:1:15: `7700` is no address to listen on; write one like \"127.0.0.1:7700\"",
    ),
    file(
        "namespace = \"a b\"",
        "namespace: `a b` with the character ` `; use 1 to 64 characters out of A-Z a-z 0-9 . _ -",
    ),
    file("labels = [\"gpu\"]", "FILE:1:10: invalid type: sequence, expected a map"),
    file(
        "allow_roots = [\"/data\", \"in\"]",
        "allow_roots[1]: `in` is relative; use an absolute folder without `..`, such as /data, …",
    ),
    file(
        "allow_roots = \"/data\"",
        "FILE:1:15: invalid type: string \"/data\", expected a sequence",
    ),
    file(
        "builtin_tasks = [\"noop\", \"wordcont\"]",
        "builtin_tasks: no task `wordcont`; use true, false, or names out of concat, fail, …",
    ),
    file(
        "pass_env = [\"LONGSHORE_AMQP_URL\"]",
        "pass_env[0]: `LONGSHORE_AMQP_URL` is a setting of the worker; give a command what it \
         needs by `env` in its [task.NAME]",
    ),
    file(
        "http_allow_addresses = [\"169.254.0.0/99\"]",
        "http_allow_addresses[0]: `169.254.0.0/99` is no address and no network; …",
    ),
    variable(
        &[("LONGSHORE_ALLOW_ROOTS", "/data/../etc")],
        SCHEDULER,
        2,
        "allow_roots[0]: `/data/../etc` with `..`; …",
    ),
    file("[task.t]", "FILE:1:1: use exactly one of `command`, `serve` and `http`"),
    file(
        "[task.t]\ncommand = \"ls\"",
        "FILE:2:11: invalid type: string \"ls\", expected a sequence",
    ),
    file(
        "[task.t]\ncommand = []",
        "FILE:1:1: name a program, as in command = [\"python3\", \"thumbnail.py\"]",
    ),
    file(
        "[task.t]\ncommand = [\"ls\"]\nshell = true",
        "FILE:3:1: unknown field `shell`, expected one of …",
    ),
    file(
        "[task.t]\ncommand = [\"ls\"]\ntimeout = \"1\"",
        "FILE:1:1: timeout: `1` is no duration; write it like \"30s\"",
    ),
    file(
        "[task.t]\nhttp = \"ftp://h/\"",
        "task.t: http: `ftp://h/`: use an http:// or https:// URL",
    ),
    file("[task.t]\nhttp = \"http://\"", "task.t: http: `http://` is no URL: empty host"),
    file(
        "[task.\"\"]\ncommand = [\"ls\"]",
        "task: an empty name; use 1 to 100 characters out of A-Z a-z 0-9 . _ -",
    ),
    variable(
        &[(AMQP, "http://127.0.0.1/")],
        WORKER,
        2,
        "amqp_url: Invalid AMQP scheme: http; expected amqp://user:password@host:5672/vhost, or amqps://…",
    ),
    variable(
        &[(AMQP, "127.0.0.1:5672")],
        SCHEDULER,
        2,
        "amqp_url: relative URL without a base; expected amqp://…",
    ),
    variable(
        &[(REDIS, "postgres://127.0.0.1/")],
        SCHEDULER,
        2,
        "redis_url: unknown scheme `postgres`; use redis://, rediss://, …",
    ),
    variable(
        &[(REDIS, "redis://127.0.0.1:port")],
        SUBMIT,
        2,
        "redis_url: Redis URL did not parse…",
    ),
    variable(
        &[("LONGSHORE_HTTP_LISTEN", "127.0.0.1:RABBIT")],
        SCHEDULER,
        2,
        "http_listen: 127.0.0.1:…",
    ),
    variable(&[(REDIS, "redis://:wrong@127.0.0.1:LOCKED")], WORKER, 3, "Redis at …"),
    variable(&[(REDIS, "redis://127.0.0.1:LOCKED")], SUBMIT, 3, "Redis at …"),
    variable(&[(REDIS, "redis://127.0.0.1:NOBODY")], &["nodes"], 3, "Redis at …"),
    variable(&[(REDIS, "redis://127.0.0.1:RABBIT")], &["status"], 3, "Redis at …"),
    variable(&[(AMQP, "amqp://guest:wrong@127.0.0.1:RABBIT/%2f")], WORKER, 3, "RabbitMQ at …"),
    variable(
        &[(AMQP, "amqp://guest:guest@127.0.0.1:RABBIT/nowhere")],
        SCHEDULER,
        3,
        "RabbitMQ at …",
    ),
    variable(&[(AMQP, "amqp://guest:guest@127.0.0.1:NOBODY/%2f")], SUBMIT, 3, "RabbitMQ at …"),
    variable(&[(AMQP, "amqp://guest:guest@127.0.0.1:REDIS/%2f")], SUBMIT, 3, "RabbitMQ at …"),
];

#[test]
fn each_bad_setting_gets_one_line_and_its_exit_code_within_seconds() {
    let locked = Redis::start_with(&RedisOptions::default());
    locked.call(&["CONFIG", "SET", "requirepass", "secret"]);
    // A Redis of its own, so that commands that stop at a bad setting find nothing of other tests.
    let unused = Redis::start_with(&RedisOptions::default());
    let ports = [
        ("RABBIT", Rabbit::shared().port()),
        ("REDIS", unused.port()),
        ("LOCKED", locked.port()),
        ("NOBODY", free_port().expect("a port is free")),
    ];
    let rows = each("settings", &ROWS, |row| check(row, &unused, &ports));
    assert_eq!(rows, ROWS.len());
}

fn check(row: &Row, redis: &Redis, ports: &[(&str, u16)]) -> Result<(), String> {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a folder for it");
    std::fs::write(file.path(), row.toml).expect("room for it");
    let path = file.path().to_str().expect("a plain name");
    let filled = |text: &str| {
        ports
            .iter()
            .fold(text.to_owned(), |text, (name, port)| text.replace(name, &port.to_string()))
    };
    let mut command = Command::new(binary());
    command.args(row.arguments).args(["--config", path]);
    command.env(AMQP, Rabbit::shared().url()).env(REDIS, redis.url());
    command.envs(row.environment.iter().map(|(name, value)| (name, filled(value))));
    let name = format!("{:?} {:?} {:?}", row.toml, row.environment, row.arguments);
    let begun = Instant::now();
    let run = finish(command);
    if begun.elapsed() > SECONDS {
        return Err(format!("{name}: took {:?}", begun.elapsed()));
    }
    // A scheduler or a worker may have logged its attempts to connect before.
    let error = run.stderr.rfind("error: ").map_or("", |at| &run.stderr[at + "error: ".len()..]);
    expect(&name, "standard error", error.replace(path, "FILE").trim_end(), row.error)?;
    if row.code == 2 && run.stderr.lines().count() != 1 || !run.stdout.is_empty() {
        return Err(format!("{name}: expected one line, found {run:?}"));
    }
    if run.stderr.contains("wrong@") {
        return Err(format!("{name}: shows the password: {run:?}"));
    }
    expect(&name, "the exit code", &format!("{:?}", run.code), &format!("Some({})", row.code))
}
