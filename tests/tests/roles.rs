//! The users of `deploy/`: a whole job with each role under its own user, and what each can't do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use longshore_test_servers::{
    AmqpAttempt, Process, Rabbit, RabbitOptions, Redis, RedisOptions, free_port, wait_until,
};
use longshore_tests::{Run, binary, finish, repository};
use serde_json::{Value, json};

/// The variables of the passwords; that of the role is the role's name behind this.
const VARIABLES: [(&str, &str); 6] = [
    ("LONGSHORE_PASSWORD", "longshore"),
    ("LONGSHORE_ADMIN_PASSWORD", "admin"),
    ("LONGSHORE_API_PASSWORD", "api"),
    ("LONGSHORE_READER_PASSWORD", "reader"),
    ("LONGSHORE_SCHEDULER_PASSWORD", "scheduler"),
    ("LONGSHORE_WORKER_PASSWORD", "worker"),
];

/// RabbitMQ and Redis with the users of `deploy/`.
struct Services {
    rabbit: Rabbit,
    redis: Redis,
    _files: tempfile::TempDir,
}

fn password(role: &str) -> String {
    format!("secret-of-{role}")
}

/// A file of `deploy/` with the passwords filled in.
#[track_caller]
fn rendered(file: &str) -> String {
    let mut render = Command::new("sh");
    render.arg("deploy/render.sh").arg(file).current_dir(repository());
    render.envs(VARIABLES.map(|(variable, role)| (variable, password(role))));
    finish(render).ok()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("room for it");
    path.to_str().expect("a plain name").to_owned()
}

impl Services {
    fn start() -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let users = write(files.path(), "users.acl", &rendered("deploy/redis/users.acl"));
        let mut definitions: Value =
            serde_json::from_str(&rendered("deploy/rabbitmq/definitions.json")).expect("JSON");
        // These tests tell by a login of guest that the server is up.
        let add = |list: &mut Value, more| list.as_array_mut().expect("a list").push(more);
        let guest = json!({"name": "guest", "password": "guest", "tags": []});
        add(&mut definitions["users"], guest);
        let nothing =
            json!({"user": "guest", "vhost": "/", "configure": "^$", "write": "^$", "read": "^$"});
        add(&mut definitions["permissions"], nothing);
        let definitions = write(files.path(), "definitions.json", &definitions.to_string());
        let lines = vec![format!("load_definitions = {definitions}")];
        let rabbit = Rabbit::start_with(&RabbitOptions { lines, ..RabbitOptions::default() });
        let lines = vec![format!("aclfile {users}")];
        let redis = Redis::start_with(&RedisOptions { lines, ..RedisOptions::default() });
        Self { rabbit, redis, _files: files }
    }

    /// `longshore` as a role, in the repository's folder.
    fn command(&self, role: &str, arguments: &[&str]) -> Command {
        let (amqp, redis) = (self.rabbit.port(), self.redis.port());
        let login = format!("{role}:{}", password(role));
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("LONGSHORE_AMQP_URL", format!("amqp://{login}@127.0.0.1:{amqp}/%2f"))
            .env("LONGSHORE_REDIS_URL", format!("redis://{login}@127.0.0.1:{redis}/"))
            .current_dir(repository());
        command
    }

    #[track_caller]
    fn longshore(&self, role: &str, arguments: &[&str]) -> Run {
        finish(self.command(role, arguments))
    }

    #[track_caller]
    fn await_state(&self, job: &str, state: &str) {
        wait_until(&format!("job {job} is {state}"), Duration::from_secs(60), || {
            let status = self.longshore("reader", &["status", job, "--json"]);
            serde_json::from_str::<Value>(&status.stdout).is_ok_and(|it| it["state"] == state)
        });
    }

    #[track_caller]
    fn submit(&self, arguments: &[&str]) -> String {
        let arguments = [&["submit", "--json"][..], arguments].concat();
        let submitted = self.longshore("longshore", &arguments).json();
        submitted["id"].as_str().expect("an id").to_owned()
    }

    /// What Redis answers to a command of a role.
    fn redis(&self, role: &str, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.redis.port().to_string(), "--no-auth-warning"]);
        if role != "default" {
            cli.args(["--user", role, "--pass", &password(role)]);
        }
        let run = finish({
            cli.args(command);
            cli
        });
        format!("{}{}", run.stdout, run.stderr)
    }

    /// The commands that Redis refused, as `user: command or key`.
    fn refusals(&self) -> Vec<String> {
        let log = self.redis("admin", &["--json", "ACL", "LOG", "128"]);
        let log: Vec<Value> = serde_json::from_str(&log).unwrap_or_else(|e| panic!("{e}: {log}"));
        let entry = |entry: &Value| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            format!("{}: {} {}", text("username"), text("reason"), text("object"))
        };
        // A client tells its name where it may, and a worker that starts first tries to load the
        // functions.
        let is_expected =
            |entry: &String| entry.contains("setinfo") || entry.contains("function|load");
        log.iter().map(entry).filter(|entry| !is_expected(entry)).collect()
    }
}

#[test]
fn each_role_does_its_work_under_its_own_user_and_nothing_else() {
    let services = Services::start();
    let mut worker = services.command("worker", &["worker", "--slots", "2"]);
    worker.env("LONGSHORE_ALLOW_ROOTS", repository().join("examples"));
    let worker = Process::start(&worker);
    wait_until("the worker waits for a scheduler", Duration::from_secs(30), || {
        worker.output().contains("start a scheduler")
    });
    let scheduler = Process::start(&services.command("scheduler", &["scheduler"]));
    wait_until("the scheduler has made the queues", Duration::from_secs(60), || {
        let get = AmqpAttempt::Get("longshore.jobs");
        services.rabbit.attempt("scheduler", &password("scheduler"), get) == Ok(())
    });
    let port = free_port().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let mut api = services.command("api", &["api"]);
    let api = Process::start(api.env("LONGSHORE_HTTP_LISTEN", &address));

    let done = services.submit(&["examples/wordcount.json"]);
    services.await_state(&done, "succeeded");
    let results = services.longshore("reader", &["results", &done]).ok();
    assert!(results.contains('{'), "{results}");
    services.longshore("reader", &["audit", &done]).ok();
    services.longshore("reader", &["list", "--state", "succeeded"]).ok();
    services.longshore("reader", &["nodes"]).ok();

    let failing = json!({
        "task": "fail", "split": {"by": "range", "start": 0, "end": 3}, "retry": {"attempts": 1},
    });
    let folder = tempfile::tempdir().expect("a folder");
    let failing = write(folder.path(), "job.json", &failing.to_string());
    let failed = services.submit(&[failing.as_str()]);
    services.await_state(&failed, "failed");
    services.longshore("reader", &["errors", &failed]).ok();
    services.longshore("longshore", &["retry", &failed]).ok();
    services.await_state(&failed, "failed");
    services.longshore("longshore", &["delete", &failed, "--yes"]).ok();

    let sleeping = ["--task", "sleep", "--range", "0..1000", "--params", r#"{"ms":1000}"#];
    let long = services.submit(&sleeping);
    services.await_state(&long, "running");
    services.longshore("longshore", &["pause", &long]).ok();
    services.longshore("longshore", &["resume", &long]).ok();
    let node = services.longshore("reader", &["nodes", "--json"]).json()[0]["id"].clone();
    let node = node.as_str().expect("a node");
    for (method, path) in [
        ("GET", "jobs?task=sleep&counts=true".to_owned()),
        ("GET", format!("jobs/{long}/map?cells=4")),
        ("GET", format!("jobs/{long}/explain")),
        ("GET", "queues".to_owned()),
        ("GET", "dead".to_owned()),
        ("POST", format!("jobs/{long}/cancel")),
        ("POST", format!("nodes/{node}/drain")),
        ("POST", format!("nodes/{node}/undrain")),
    ] {
        let answered = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--request", method])
            .arg(format!("http://{address}/v1/{path}"))
            .output()
            .expect("curl runs");
        assert!(answered.status.success(), "{method} {path}: {answered:?}");
    }
    services.await_state(&long, "cancelled");
    services.longshore("api", &["token", "create", "--role", "viewer", "ci"]).ok();

    assert!(scheduler.is_running() && worker.is_running() && api.is_running());
    assert_eq!(services.refusals(), Vec::<String>::new(), "Redis refused something");

    redis_refuses_what_is_not_a_roles_work(&services, &done);
    rabbitmq_refuses_what_is_not_a_roles_work(&services);
}

#[track_caller]
fn redis_refuses_what_is_not_a_roles_work(services: &Services, job: &str) {
    let hash = format!("longshore:{{{job}}}");
    for (role, command) in [
        ("worker", vec!["FCALL", "longshore_admit", "1", hash.as_str(), "x"]),
        ("worker", vec!["FCALL", "longshore_cancel", "1", hash.as_str(), "x"]),
        ("worker", vec!["HGETALL", "longshore:api:tokens"]),
        ("worker", vec!["ZADD", "longshore:jobs:active", "1", job]),
        ("worker", vec!["SET", "longshore:journal", "x"]),
        ("longshore", vec!["FCALL", "longshore_admit", "1", hash.as_str(), "x"]),
        ("longshore", vec!["FCALL", "longshore_claim", "1", hash.as_str(), "x"]),
        ("longshore", vec!["HGETALL", "longshore:api:tokens"]),
        ("longshore", vec!["HSET", "longshore:node:x", "drain", "1"]),
        ("api", vec!["FCALL", "longshore_commit", "1", hash.as_str(), "x"]),
        ("api", vec!["SET", "longshore:journal", "x"]),
        ("reader", vec!["HSET", hash.as_str(), "state", "failed"]),
        ("reader", vec!["DEL", hash.as_str()]),
        ("reader", vec!["FCALL", "longshore_cancel", "1", hash.as_str(), "x"]),
        ("reader", vec!["HGETALL", "longshore:api:tokens"]),
        ("reader", vec!["PUBLISH", "longshore:events", "x"]),
        ("default", vec!["HSET", hash.as_str(), "state", "failed"]),
        ("default", vec!["FLUSHALL"]),
        ("default", vec!["CONFIG", "GET", "*"]),
        ("scheduler", vec!["FLUSHALL"]),
        ("scheduler", vec!["CONFIG", "SET", "save", ""]),
        ("scheduler", vec!["GET", "another:key"]),
    ] {
        let answer = services.redis(role, &command);
        assert!(answer.contains("NOPERM"), "{role} {command:?}: {answer}");
    }
    for role in ["default", "reader", "worker", "longshore", "api", "scheduler"] {
        let answer = services.redis(role, &["HGET", &hash, "state"]);
        assert_eq!(answer.trim(), "succeeded", "{role} reads a job");
    }
}

#[track_caller]
fn rabbitmq_refuses_what_is_not_a_roles_work(services: &Services) {
    use AmqpAttempt::{Declare, Get, Publish};
    let attempt = |role: &str, what| services.rabbit.attempt(role, &password(role), what);
    for (role, what) in [
        ("longshore", Get("longshore.jobs")),
        ("longshore", Get("longshore.work.default")),
        ("longshore", Get("longshore.dead")),
        ("longshore", Declare("longshore.jobs")),
        ("longshore", Publish("")),
        ("api", Get("longshore.jobs")),
        ("api", Get("longshore.work.default")),
        ("worker", Get("longshore.jobs")),
        ("worker", Get("longshore.dead")),
        ("worker", Declare("longshore.dead")),
        ("worker", Publish("longshore")),
        ("worker", Publish("amq.direct")),
        ("reader", Get("longshore.work.default")),
        ("reader", Publish("longshore")),
        ("scheduler", Declare("other")),
        ("scheduler", Publish("amq.direct")),
    ] {
        let refusal = attempt(role, what).expect_err(&format!("{role} may not {what:?}"));
        assert!(refusal.contains("ACCESS_REFUSED"), "{role} {what:?}: {refusal}");
    }
    for (role, what) in [
        ("longshore", Publish("longshore")),
        ("api", Publish("longshore")),
        ("api", Declare("longshore.dead")),
        ("worker", Get("longshore.work.default")),
        ("scheduler", Get("longshore.jobs")),
    ] {
        assert_eq!(attempt(role, what), Ok(()), "{role} {what:?}");
    }
}

#[test]
fn a_password_that_a_url_can_not_hold_is_refused() {
    let mut render = Command::new("sh");
    render.arg("deploy/render.sh").arg("deploy/redis/users.acl").current_dir(repository());
    render.envs(VARIABLES.map(|(variable, _)| (variable, "a@b")));
    let run = finish(render);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("use A-Z a-z 0-9 . _ ~ -") && run.stdout.is_empty(), "{run:?}");
}
