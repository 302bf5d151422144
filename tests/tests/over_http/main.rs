//! The commands of a client do the same through a server as straight on RabbitMQ and Redis.
//!
//! One table has every command of `longshore`, so that a new one has to say how it is.

mod no_server;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore_test_servers::{Process, Rabbit, Redis, free_port, wait_until};
use longshore_tests::{Fleet, Run, finish};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

/// A fleet, and a server of the API for it.
struct Stage {
    fleet: Fleet,
    server: Process,
    port: u16,
    url: String,
}

impl Stage {
    fn start(rabbit: &Rabbit, redis: &Redis) -> Self {
        let mut fleet = Fleet::on(rabbit, redis);
        fleet.add_scheduler();
        fleet.add_worker(&["--slots", "2"]);
        fleet.await_workers(1);
        let port = free_port().expect("a port is free");
        fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{port}"));
        let server = Process::start(&fleet.command(&["api"]));
        let url = format!("http://127.0.0.1:{port}");
        let stage = Self { fleet, server, port, url };
        stage.await_server();
        stage
    }

    fn await_server(&self) {
        wait_until("the server is ready", LONG, || self.over(&["list"]).code == Some(0));
    }

    /// A command through the server, with settings of services that must not be used.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fleet.command(&[&["--server", &self.url], arguments].concat());
        let nowhere = [("AMQP", "amqp://127.0.0.1:1"), ("REDIS", "redis://127.0.0.1:1")];
        command.envs(nowhere.map(|(name, url)| (format!("LONGSHORE_{name}_URL"), url)));
        command
    }

    /// Runs a command through the server.
    fn over(&self, arguments: &[&str]) -> Run {
        finish(self.command(arguments))
    }

    /// Starts a command through the server.
    fn start_over(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("longshore starts")
    }

    /// Runs a command both ways, which has to do the same.
    #[track_caller]
    fn same(&self, arguments: &[&str]) -> Run {
        let (direct, over) = (self.fleet.longshore(arguments), self.over(arguments));
        compare(arguments, &direct, &over);
        over
    }

    /// Runs a command with `JOB` for one job straight and for another like it through the server.
    #[track_caller]
    fn alike(&self, arguments: &[&str], jobs: &[String; 2]) {
        let with = |job| -> Vec<&str> {
            arguments.iter().map(|word| if *word == "JOB" { job } else { *word }).collect()
        };
        let without = |run: Run, job: &str| Run {
            code: run.code,
            stdout: run.stdout.replace(job, "JOB"),
            stderr: run.stderr.replace(job, "JOB"),
        };
        let [first, second] = jobs;
        let direct = without(self.fleet.longshore(&with(first)), first);
        let over = without(self.over(&with(second)), second);
        compare(arguments, &direct, &over);
    }

    /// A job that has ended.
    fn ended(&self, document: &Value) -> String {
        let job = self.fleet.submit(document);
        self.fleet.await_end(&job, LONG);
        job
    }

    fn pair(&self, document: &Value) -> [String; 2] {
        [(); 2].map(|()| self.fleet.submit(document))
    }
}

/// A document with these members beside a split into `total` subtasks.
fn document(task: &str, total: u64, members: &Value) -> Value {
    let mut document = json!({"task": task, "split": {"by": "range", "start": 0, "end": total}});
    let whole = document.as_object_mut().expect("an object");
    whole.extend(members.as_object().cloned().unwrap_or_default());
    document
}

fn noop(total: u64) -> Value {
    document("noop", total, &json!({}))
}

fn failing(total: u64) -> Value {
    document("fail", total, &json!({"retry": {"attempts": 1}}))
}

/// A job that no worker takes, so that it stays as it is.
fn waiting(members: &Value) -> Value {
    let mut document = document("noop", 9, members);
    document["queue"] = json!("nobodys");
    document
}

fn in_file(document: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a folder for it");
    std::fs::write(file.path(), document.to_string()).expect("room for it");
    file
}

/// The output with what differs from one moment to the next left out.
fn timeless(text: &str) -> Vec<Value> {
    fn strip(value: &mut Value) {
        const MOMENTARY: [&str; 8] =
            ["beat_at", "busy", "cpu", "dead_at", "rss", "rate", "eta_ms", "since"];
        match value {
            Value::Object(members) => {
                members.retain(|name, _| !MOMENTARY.contains(&name.as_str()));
                members.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    // An age in a table is a number with a unit, and moves the columns behind it.
    let is_age = |word: &str| {
        word.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let shown = |line: &str| -> Vec<String> {
        line.split_whitespace().map(|it| if is_age(it) { "AGE" } else { it }.to_owned()).collect()
    };
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(shown(line)));
    let mut values: Vec<Value> = text.lines().map(read).collect();
    values.iter_mut().for_each(strip);
    values
}

#[track_caller]
fn compare(arguments: &[&str], direct: &Run, over: &Run) {
    assert_eq!(direct.code, over.code, "{arguments:?}\n{direct:#?}\n{over:#?}");
    assert_eq!(timeless(&direct.stdout), timeless(&over.stdout), "{arguments:?}");
    assert_eq!(timeless(&direct.stderr), timeless(&over.stderr), "{arguments:?}");
}

/// How a command is through a server.
enum How {
    /// The check does the same both ways.
    Same(fn(&Stage)),
    /// It does its own work, and says so.
    Own,
}

const JSON: &str = "--json";
const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

const TABLE: &[(&str, How)] = &[
    ("submit", How::Same(submit)),
    ("status", How::Same(status)),
    ("list", How::Same(list)),
    ("results", How::Same(results)),
    ("errors", How::Same(errors)),
    ("audit", How::Same(audit)),
    ("pause", How::Same(|stage| control(stage, "pause"))),
    ("resume", How::Same(|stage| control(stage, "resume"))),
    ("cancel", How::Same(cancel)),
    ("delete", How::Same(delete)),
    ("retry", How::Same(retry)),
    ("dead", How::Same(dead)),
    ("nodes", How::Same(nodes)),
    ("drain", How::Same(|stage| node_command(stage, "drain"))),
    ("undrain", How::Same(|stage| node_command(stage, "undrain"))),
    ("readmit", How::Same(|stage| node_command(stage, "readmit"))),
    ("token", How::Same(token)),
    ("run", How::Own),
    ("dev", How::Own),
    ("scheduler", How::Own),
    ("worker", How::Own),
    ("api", How::Own),
    ("config", How::Own),
    ("doctor", How::Own),
    ("bench", How::Own),
    ("completions", How::Own),
];

fn submit(stage: &Stage) {
    let id = |n: u64| format!("11890a5d-0000-7000-8000-{n:012}");
    let check = |document: &Value, more: &[&str]| {
        let file = in_file(document);
        let path = file.path().to_str().expect("a plain name");
        stage.same(&[&["submit", path], more].concat())
    };
    assert_eq!(check(&noop(3), &["--id", &id(1)]).code, Some(0));
    assert_eq!(check(&noop(3), &["--id", &id(2), "--wait", JSON]).code, Some(0));
    assert_eq!(check(&noop(4), &["--id", &id(1), JSON]).code, Some(2), "another document");
    assert_eq!(check(&noop(3), &["--id", &id(3), "--detach"]).code, Some(0));
    assert_eq!(check(&failing(2), &["--id", &id(4), "--wait", JSON]).code, Some(1));
    let wrong = json!({"task": "noop", "split": {"by": "dozen"}});
    assert_eq!(check(&wrong, &[JSON]).code, Some(2));
    let nowhere = json!({"task": "noop", "split": {"by": "files", "files": ["/nowhere/*.x"]}});
    assert_eq!(check(&nowhere, &["--id", &id(5), JSON]).code, Some(2));
    assert_eq!(check(&waiting(&json!({})), &["--id", &id(6)]).code, Some(0));
    stage.fleet.longshore(&["cancel", &id(6)]).ok();
}

fn status(stage: &Stage) {
    let job = stage.ended(&document("noop", 9, &json!({"name": "solo"})));
    for arguments in [
        &["status", &job, JSON][..],
        &["status", &job],
        &["status", &job[..13]],
        &["status", "--name", "solo", JSON],
        &["status", "--name", "none"],
        &["status", JSON],
        &["status", "--finished", "1"],
        &["status", &job, "--watch"],
        &["status", NOBODY, JSON],
        &["status", "f1890a5d", JSON],
    ] {
        stage.same(arguments);
    }
}

fn list(stage: &Stage) {
    for (name, zone) in [("a", "eu"), ("b", "us"), ("b", "eu")] {
        stage.ended(&document("noop", 2, &json!({"name": name, "labels": {"zone": zone}})));
    }
    for arguments in [
        &["list", JSON][..],
        &["list"],
        &["list", "--label", "zone=eu", "--state", "succeeded,failed", JSON],
        &["list", "--limit", "1", JSON],
        &["list", "--older-than", "0s", "--name", "b", JSON],
        &["list", "--older-than", "1h", JSON],
        &["list", "--task", "sleep"],
    ] {
        stage.same(arguments);
    }
}

fn results(stage: &Stage) {
    let job = stage.ended(&noop(2000));
    let reduced = stage.ended(&document(
        "sleep",
        5,
        &json!({"params": {"ms": 1}, "reduce": {"task": "sum"}}),
    ));
    let failed = stage.ended(&failing(1));
    for job in [&job, &reduced, &failed] {
        for arguments in [
            &["results", job][..],
            &["results", job, JSON],
            &["results", job, "--follow"],
            &["results", job, "--follow", JSON],
        ] {
            stage.same(arguments);
        }
    }
    assert_eq!(stage.same(&["results", &job]).stdout.lines().count(), 2000);
    stage.same(&["results", NOBODY]);
}

fn errors(stage: &Stage) {
    let job = stage.ended(&failing(40));
    assert_eq!(stage.same(&["errors", &job, JSON]).stdout.lines().count(), 40);
    stage.same(&["errors", &job]);
    stage.same(&["errors", NOBODY, JSON]);
}

fn audit(stage: &Stage) {
    let job = stage.ended(&noop(9));
    stage.same(&["audit", &job, JSON]);
    stage.same(&["audit", &job]);
    stage.same(&["audit", NOBODY]);
}

fn control(stage: &Stage, verb: &str) {
    let jobs = stage.pair(&waiting(&json!({})));
    if verb == "resume" {
        stage.alike(&["pause", "JOB"], &jobs);
    }
    stage.alike(&[verb, "JOB"], &jobs);
    stage.alike(&[verb, "JOB", JSON], &jobs);
    stage.same(&[verb, NOBODY, JSON]);
    bulk(stage, verb);
    for job in &jobs {
        stage.fleet.longshore(&["cancel", job]).ok();
    }
}

/// The same on all jobs with a label.
fn bulk(stage: &Stage, verb: &str) {
    let label = format!("verb={verb}");
    let jobs = stage.pair(&waiting(&json!({"labels": {"verb": verb}})));
    stage.same(&[verb, "--label", &label, "--dry-run", JSON]);
    stage.same(&[verb, "--label", &label, "--dry-run"]);
    stage.same(&[verb, "--label", &label]);
    let sorted = |run: Run| {
        assert_eq!(run.code, Some(0), "{run:?}");
        let mut lines = timeless(&run.stdout);
        lines.sort_by_key(|line| line["id"].to_string());
        lines
    };
    let arguments = [verb, "--label", &label, "--yes", JSON];
    let over = sorted(stage.over(&arguments));
    assert_eq!(over.len(), 2, "{over:?}");
    let direct = sorted(stage.fleet.longshore(&arguments));
    if verb != "delete" {
        assert_eq!(over.len(), direct.len(), "the jobs are still there");
    }
    for job in &jobs {
        stage.fleet.longshore(&["cancel", job]);
    }
}

fn cancel(stage: &Stage) {
    let jobs = stage.pair(&waiting(&json!({})));
    stage.alike(&["cancel", "JOB", JSON], &jobs);
    stage.alike(&["cancel", "JOB"], &jobs);
    stage.same(&["cancel", "21890a5d-0000-7000-8000-000000000001", JSON]);
    stage.same(&["status", "21890a5d-0000-7000-8000-000000000001", JSON]);
    bulk(stage, "cancel");
}

fn delete(stage: &Stage) {
    let jobs = stage.pair(&waiting(&json!({})));
    stage.alike(&["delete", "JOB", JSON], &jobs);
    stage.alike(&["delete", "JOB", "--force", JSON], &jobs);
    stage.alike(&["delete", "JOB"], &jobs);
}

fn retry(stage: &Stage) {
    let jobs = [(); 2].map(|()| stage.ended(&failing(1)));
    stage.alike(&["retry", "JOB", "--index", "7", JSON], &jobs);
    stage.alike(&["retry", "JOB", "--index", "0", JSON], &jobs);
    stage.same(&["retry", NOBODY]);
}

fn dead(stage: &Stage) {
    stage.same(&["dead", "list", JSON]);
    stage.same(&["dead", "show", "1", JSON]);
    stage.same(&["dead", "show", NOBODY]);
    stage.same(&["dead", "requeue", NOBODY, JSON]);
    stage.same(&["dead", "purge", NOBODY]);
    stage.same(&["dead", "purge"]);
    let run = stage.over(&["dead", "purge", "--yes", JSON]).json();
    assert!(run["purged"].is_u64(), "{run}");
}

fn nodes(stage: &Stage) {
    assert_eq!(stage.same(&["nodes", JSON]).json().as_array().map(Vec::len), Some(1));
    let header = |run: Run| run.ok().lines().next().map(str::to_owned);
    assert_eq!(header(stage.over(&["nodes"])), header(stage.fleet.longshore(&["nodes"])));
}

fn node_command(stage: &Stage, verb: &str) {
    stage.same(&[verb, "nobody-at-all", JSON]);
    let nodes = stage.over(&["nodes", JSON]).json();
    let node = nodes[0]["id"].as_str().expect("an id").to_owned();
    stage.same(&["readmit", &node, JSON]);
}

fn token(stage: &Stage) {
    // Of a fleet of its own: from the first token on, every request needs one.
    let own = Stage::start(Rabbit::shared(), Redis::shared());
    let made = own.over(&["token", "create", "root", "--role", "admin", JSON]).json();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let with = |arguments: &[&str]| {
        let mut command = own.command(arguments);
        command.env("LONGSHORE_TOKEN", &secret);
        finish(command)
    };
    wait_until("a token is needed", LONG, || own.over(&["list"]).code == Some(3));
    let listed = with(&["token", "list", JSON]);
    assert_eq!(listed.json(), own.fleet.longshore(&["token", "list", JSON]).json());
    let id = made["id"].as_str().expect("an id");
    assert_eq!(with(&["token", "revoke", "none"]).code, Some(4));
    let revoked = with(&["token", "revoke", id, JSON]).json();
    assert_eq!(revoked, json!({"id": id, "state": "revoked"}));
    // The first stage has no tokens, and its list is the same both ways.
    stage.same(&["token", "list", JSON]);
}

#[test]
fn every_command_is_in_the_table_and_does_the_same_both_ways() {
    let stage = Stage::start(Rabbit::shared(), Redis::shared());
    let help = stage.fleet.longshore(&["--help"]).ok();
    let commands = help.split("Commands:").nth(1).expect("commands");
    let commands = commands.split("\n\n").next().expect("their list");
    let known: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert_eq!(found, known, "each command has an entry");
    for (name, how) in TABLE {
        match how {
            How::Same(check) => check(&stage),
            How::Own => {
                let arguments: &[&str] = match *name {
                    "run" => &["run", "--task", "noop", "--items", "1"],
                    "completions" => &["completions", "bash"],
                    name => &[name],
                };
                let run = stage.over(arguments);
                assert_eq!(run.code, Some(2), "{name}: {run:?}");
                assert_eq!(run.stderr.lines().count(), 1, "{name}: {run:?}");
                assert!(run.stderr.contains("server"), "{name}: {run:?}");
            }
        }
    }
}

#[test]
fn tokens_decide_what_a_command_may_do() {
    let stage = Stage::start(Rabbit::shared(), Redis::shared());
    let make = |arguments: &[&str]| {
        let made = stage.fleet.longshore(&[&["token", "create", JSON], arguments].concat()).json();
        made["secret"].as_str().expect("a secret").to_owned()
    };
    let web = make(&["web", "--role", "operator", "--tenant", "web"]);
    let viewer = make(&["view", "--role", "viewer"]);
    let short = make(&["short", "--role", "admin", "--expires", "1s"]);
    let with = |secret: &str, arguments: &[&str]| {
        let mut command = stage.command(arguments);
        command.env("LONGSHORE_TOKEN", secret);
        let run = finish(command);
        for secret in [&web, &viewer, &short] {
            assert!(!format!("{run:?}").contains(secret.as_str()), "{run:?}");
        }
        run
    };
    wait_until("a token is needed", LONG, || stage.over(&["list"]).code == Some(3));
    let none = stage.over(&["list", JSON]);
    assert!(none.stderr.contains("\"kind\":\"login_refused\""), "{none:?}");
    let of = |tenant: &str| document("noop", 3, &json!({"tenant": tenant}));
    let submit = |tenant: &str| {
        let file = in_file(&of(tenant));
        with(&web, &["submit", file.path().to_str().expect("a plain name"), "--wait", JSON])
    };
    assert_eq!(submit("web").code, Some(0));
    let refused = submit("billing");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    let foreign = stage.fleet.submit(&of("billing"));
    assert_eq!(with(&web, &["status", &foreign]).code, Some(4));
    assert_eq!(with(&web, &["status", &foreign[..30]]).code, Some(4), "nor by its beginning");
    assert_eq!(with(&web, &["results", &foreign]).code, Some(4));
    let listed = with(&web, &["status", JSON]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let denied = with(&viewer, &["cancel", &foreign, JSON]);
    assert_eq!(denied.code, Some(3), "{denied:?}");
    assert!(denied.stderr.contains("\"kind\":\"forbidden\""), "{denied:?}");
    wait_until("the token has expired", LONG, || with(&short, &["list"]).code == Some(3));

    // From a file; and never over the network in the clear.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{viewer}\n")).expect("written");
    let mut command = stage.command(&["list"]);
    command.env("LONGSHORE_TOKEN_FILE", file.path());
    assert_eq!(finish(command).code, Some(0));
    let mut command = stage.fleet.command(&["--server", "http://192.0.2.1", "list"]);
    command.env("LONGSHORE_TOKEN", &viewer);
    let refused = finish(command);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("is not sent to 192.0.2.1 over http://"), "{refused:?}");
}

/// The first lines of a command that runs.
fn first_lines(child: &mut Child, count: usize) -> (Vec<String>, impl Iterator<Item = String>) {
    let stdout = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
    let first: Vec<String> = lines.by_ref().take(count).collect();
    (first, lines)
}

#[test]
fn a_command_goes_on_after_the_server_was_killed_and_started_again() {
    let mut stage = Stage::start(Rabbit::shared(), Redis::shared());
    let sleep = ["--task", "sleep", "--params", r#"{"ms": 5}"#, "--range", "0..1500"];
    let job = stage.fleet.submit(&document("sleep", 1500, &json!({"params": {"ms": 5}})));
    let mut results = stage.start_over(&["results", &job, "--follow", JSON]);
    let mut watch = stage.start_over(&["status", &job, "--watch", JSON]);
    let id = "31890a5d-0000-7000-8000-000000000001";
    let waiting = stage.start_over(&[&["submit", "--id", id, "--wait"], &sleep[..]].concat());
    wait_until("the other job is submitted", LONG, || {
        stage.fleet.longshore(&["status", id]).code == Some(0)
    });
    let (first, rest) = first_lines(&mut results, 100);
    stage.server.kill9();
    stage.server.restart();
    let lines: Vec<Value> = first
        .into_iter()
        .chain(rest)
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    let indices: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().expect("one")).collect();
    assert_eq!(indices, (0..1500).collect::<Vec<_>>(), "none is lost, none comes twice");
    let end = |child: Child| child.wait_with_output().expect("it ends");
    let results = end(results);
    assert_eq!(results.status.code(), Some(0), "{results:?}");
    let (_, reports) = first_lines(&mut watch, 1);
    let last = reports.last().expect("reports");
    assert_eq!(serde_json::from_str::<Value>(&last).expect("JSON")["state"], "succeeded");
    assert_eq!(end(watch).status.code(), Some(0));
    let waited = end(waiting);
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");
    assert_eq!(waited.stdout.iter().filter(|byte| **byte == b'\n').count(), 1500);
}

#[test]
fn a_submission_without_an_answer_is_made_again_and_makes_one_job() {
    let mut stage = Stage::start(Rabbit::shared(), Redis::shared());
    // Without a scheduler the server has the document and does not answer yet.
    stage.fleet.schedulers[0].kill9();
    let id = "31890a5d-0000-7000-8000-000000000002";
    let submitting =
        stage.start_over(&["submit", "--task", "noop", "--range", "0..3", "--id", id, "--wait"]);
    wait_until("the document is published", LONG, || {
        stage.fleet.longshore(&["doctor", JSON]).stdout.contains("1 documents wait")
    });
    stage.server.kill9();
    stage.fleet.schedulers[0].restart();
    stage.server.restart();
    let submitted = submitting.wait_with_output().expect("it ends");
    assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
    let jobs = stage.fleet.longshore(&["list", JSON]).json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
}
