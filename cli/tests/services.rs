//! The verbs that use RabbitMQ and Redis, on real servers, with a scheduler and a worker.

#[path = "cli/given.rs"]
mod given;
#[path = "services/many.rs"]
mod many;

use std::process::Command;
use std::time::Duration;

use given::Given;
use longshore_test_servers::{Process, Rabbit, Redis, RedisOptions, Reply, free_port, wait_until};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

/// A new namespace on the services that the tests of this file share.
struct Fleet {
    given: Given,
    processes: Vec<Process>,
}

impl Fleet {
    fn new(namespace: &str) -> Self {
        let given = Given::nothing()
            .variable("LONGSHORE_AMQP_URL", &Rabbit::shared().url())
            .variable("LONGSHORE_REDIS_URL", &Redis::shared().url())
            .variable("LONGSHORE_NAMESPACE", namespace);
        Self { given, processes: Vec::new() }
    }

    fn start(&mut self, arguments: &[&str]) -> &mut Process {
        self.processes.push(Process::start(&self.given.command(arguments)));
        self.processes.last_mut().expect("just pushed")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let left = self.given.longshore(arguments);
        assert_eq!(left.code, Some(0), "{arguments:?}: {left:?}");
        assert_eq!(left.stderr, "", "{arguments:?}");
        left.stdout
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let printed = self.ok(&arguments);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, error: &str) {
        let left = self.given.longshore(arguments);
        assert_eq!(left.stderr, format!("{error}\n"), "{arguments:?}");
        assert_eq!(left.code, Some(code), "{arguments:?}");
    }

    #[track_caller]
    fn await_worker(&self) -> String {
        let mut node = Value::Null;
        wait_until("the worker beats", LONG, || {
            node = self.json(&["nodes"])[0]["id"].clone();
            node.is_string()
        });
        node.as_str().expect("a name").to_owned()
    }

    #[track_caller]
    fn await_state(&self, job: &str, state: &str) {
        wait_until(&format!("the job is {state}"), LONG, || {
            self.json(&["status", job])["state"] == state
        });
    }
}

#[test]
fn a_benchmark_reports_its_figures_and_leaves_nothing_behind() {
    let fleet = Fleet::new("benched");
    let wanted = ["single", "latency", "idle", "nodes"];
    let small = ["--runs", "1", "--scale", "0.01", "--json"];
    let arguments: Vec<&str> = ["bench"].into_iter().chain(wanted).chain(small).collect();
    let left = fleet.given.longshore(&arguments);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert!(left.stderr.contains("latency: run 1 of 1: p50 "), "{left:?}");
    let report: Value = serde_json::from_str(&left.stdout).expect("JSON");
    assert_eq!((&report["scale"], &report["work_queues"]), (&json!(0.01), &json!("classic")));
    let median = |figures: &Value, name: &str| {
        let figures = figures.as_array().expect("a list");
        let figure = figures.iter().find(|figure| figure["name"] == name);
        let figure = figure.unwrap_or_else(|| panic!("no {name}: {report:#}"));
        assert_eq!(figure["runs"], json!([figure["median"]]), "{name}");
        figure["median"].as_f64().expect("a number")
    };
    let queue = median(&report["baselines"], "one classic queue");
    let quorum = median(&report["baselines"], "one quorum queue");
    let floor = median(&report["baselines"], "latency baseline p50");
    assert!((10.0..1e6).contains(&queue) && (10.0..1e6).contains(&quorum), "{report:#}");
    assert!((0.01..1e3).contains(&floor), "{report:#}");

    let scenarios = report["scenarios"].as_array().expect("a list");
    let names: Vec<&Value> = scenarios.iter().map(|outcome| &outcome["scenario"]).collect();
    assert_eq!(names, wanted);
    let [single, latency, idle, nodes] = scenarios.as_slice() else { panic!("{report:#}") };
    let rate = median(&single["figures"], "subtasks");
    let ratio = median(&single["figures"], "times the one-queue baseline");
    assert!((ratio - rate / queue.max(quorum)).abs() < 1e-6, "{single:#}");
    let target = &single["figures"][1];
    assert_eq!(target["target"], json!({"at_least": 0.7}));
    assert_eq!(target["met"], json!(ratio >= 0.7));
    assert!(median(&latency["figures"], "p50") > floor, "{report:#}");
    assert!(median(&idle["figures"], "scheduler, resident") > 1e6, "{idle:#}");
    assert!(median(&nodes["figures"], "heartbeats") > 10.0, "{nodes:#}");
    assert!(median(&nodes["cores"], "redis") > 0.0, "{nodes:#}");

    let keys = || Redis::shared().call(&["KEYS", "*bench-*"]);
    assert_eq!(keys(), Reply::List(Vec::new()));
    let mut stopped = Process::start(&fleet.given.command(&["bench", "single"]));
    wait_until("the benchmark runs", LONG, || keys() != Reply::List(Vec::new()));
    stopped.signal("INT");
    wait_until("the benchmark stops", LONG, || !stopped.is_running());
    assert_eq!(keys(), Reply::List(Vec::new()));
    let functions = Redis::shared().call(&["FUNCTION", "LIST", "LIBRARYNAME", "bench*"]);
    assert_eq!(functions, Reply::List(Vec::new()));
    let rabbit = Rabbit::shared();
    let queues = rabbit.ctl(&["list_queues", "name"]) + &rabbit.ctl(&["list_exchanges", "name"]);
    assert!(!queues.contains("bench-"), "{queues}");
}

#[test]
fn a_benchmark_that_can_not_run_reports_why() {
    let fleet = Fleet::new("unbenched");
    let unknown = fleet.given.longshore(&["bench", "speed"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("there is no such scenario; use throughput-keep, "),
        "{unknown:?}"
    );
    let nowhere = format!("redis://127.0.0.1:{}", free_port().expect("a free port"));
    let unreachable = fleet.given.longshore(&["bench", "single", "--redis-url", &nowhere]);
    assert_eq!(unreachable.code, Some(3), "{unreachable:?}");
    assert!(unreachable.stderr.starts_with("error: Redis"), "{unreachable:?}");
}

/// The finding of one check of `doctor`.
#[track_caller]
fn finding<'a>(findings: &'a Value, check: &str) -> &'a Value {
    let list = findings.as_array().expect("a list");
    list.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{findings:#}"))
}

#[test]
fn a_job_s_life_through_every_verb() {
    let mut fleet = Fleet::new("life");
    fleet.start(&["scheduler"]);
    fleet.start(&["worker", "--slots", "2", "--labels", "zone=a"]);
    let node = fleet.await_worker();
    let nodes = fleet.ok(&["nodes"]);
    assert!(nodes.starts_with("NODE ") && nodes.contains("zone=a"), "{nodes}");

    assert_eq!(
        fleet.ok(&["submit", "--wait", "--task", "sum", "--items", "[1,2]", "[3]"]),
        "3\n3\n"
    );
    let reduced =
        ["submit", "--wait", "--task", "sum", "--items", "[1,2]", "[3]", "--reduce", "sum"];
    assert_eq!(fleet.ok(&reduced), "6\n");
    let job = r#"{"task": "concat", "split": {"by": "items", "items": [["a", "b"]]}}"#;
    fleet.given = fleet.given.stdin(job);
    assert_eq!(fleet.ok(&["submit", "-", "--wait"]), "\"ab\"\n");

    let id = fleet.ok(&["submit", "--task", "noop", "--range", "0..3"]).trim().to_owned();
    fleet.await_state(&id, "succeeded");
    assert_eq!(fleet.ok(&["results", &id]), "null\nnull\nnull\n");
    let status = fleet.ok(&["status", &id]);
    assert!(status.contains("\nsubtasks  3: 3 done\n"), "{status}");
    let watched = fleet.ok(&["status", &id, "--watch"]);
    assert!(watched.starts_with(&format!("{id} succeeded: 3 of 3 done in ")), "{watched}");
    assert!(fleet.ok(&["audit", &id]).ends_with("the counts balance\n"));
    let list = fleet.ok(&["status"]);
    assert_eq!(list.lines().count(), 5, "a header and four jobs: {list}");
    let illegal = format!("error: job {id}: a job that is succeeded can't pause");
    fleet.fails(&["pause", &id], 1, &illegal);
    assert_eq!(fleet.ok(&["delete", &id]), format!("{id} deleted\n"));
    let gone = fleet.given.longshore(&["status", &id]);
    assert_eq!(gone.code, Some(4), "{gone:?}");

    let sleep = ["submit", "--task", "sleep", "--range", "1000..2000"];
    let slow = fleet.json(&sleep)["id"].as_str().expect("an id").to_owned();
    assert_eq!(fleet.ok(&["pause", &slow]), format!("{slow} paused\n"));
    let refusal =
        format!("error: job {slow}: a job that is paused can't be deleted; cancel it first");
    fleet.fails(&["delete", &slow], 1, &refusal);
    assert_eq!(fleet.json(&["resume", &slow])["id"], slow.as_str());
    assert_eq!(fleet.ok(&["cancel", &slow]), format!("{slow} cancelled\n"));
    assert_eq!(fleet.ok(&["delete", &slow, "--force"]), format!("{slow} deleted\n"));

    assert_eq!(fleet.ok(&["drain", &node]), format!("{node} draining\n"));
    assert_eq!(
        fleet.json(&["drain", &node, "--wait", "--timeout", "30s"]),
        json!({"node": node, "state": "drained"})
    );
    assert_eq!(fleet.json(&["nodes"])[0]["state"], "drained");
    assert_eq!(fleet.ok(&["undrain", &node]), format!("{node} takes work again\n"));
    assert_eq!(fleet.ok(&["submit", "--wait", "--task", "sum", "--items", "[1,2]"]), "3\n");
    fleet.processes[1].signal("TERM");
    wait_until("the worker leaves", LONG, || !fleet.processes[1].is_running());
    fleet.fails(&["undrain", &node], 4, &format!("error: no such node: {node}"));
    fleet.processes[0].signal("TERM");
    wait_until("the scheduler leaves", LONG, || !fleet.processes[0].is_running());
}

#[test]
fn a_failed_job_shows_its_errors_and_can_be_retried() {
    let mut fleet = Fleet::new("failed");
    fleet.start(&["scheduler"]);
    fleet.start(&["worker"]);
    let job = r#"{"task": "fail", "split": {"by": "range", "start": 0, "end": 2},
        "retry": {"attempts": 1}}"#;
    fleet.given = fleet.given.file("job.json", job);
    let left = fleet.given.longshore(&["submit", "--wait", "job.json"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(left.stderr.ends_with("error: the job failed: 2 of 2 subtasks failed\n"), "{left:?}");
    let failed = fleet.json(&["status"]);
    let id = failed[0]["id"].as_str().expect("an id");
    let errors = fleet.ok(&["errors", id]);
    assert!(errors.starts_with("subtask 0: ") && errors.lines().count() == 2, "{errors}");
    let first = fleet.ok(&["errors", id, "--json"]);
    let first: Value = serde_json::from_str(first.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["index"], &first["attempts"]), (&0.into(), &1.into()));
    let many =
        ["submit", "--task", "fail", "--params", r#"{"retry":false}"#, "--range", "0..10050"];
    let many = fleet.ok(&many).trim().to_owned();
    fleet.await_state(&many, "failed");
    let left = fleet.given.longshore(&["errors", &many]);
    assert_eq!((left.code, left.stdout.lines().count()), (Some(0), 10_000));
    assert_eq!(left.stderr, "10,000 of 10,050 errors are kept: the newest ones\n");
    let wrong = fleet.given.longshore(&["retry", id, "--index", "7"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert_eq!(fleet.json(&["retry", id, "--index", "1"])["id"], id);
    fleet.await_state(id, "failed");
    assert_eq!(fleet.json(&["status", id])["attempts"], 3);
}

#[test]
fn a_missing_job_exits_with_4_and_a_rejected_document_with_2() {
    let mut fleet = Fleet::new("missing");
    for verb in ["results", "errors", "audit", "pause", "resume", "delete", "retry"] {
        fleet.fails(&[verb, UNKNOWN], 4, &format!("error: no such job: {UNKNOWN}"));
    }
    let unknown = format!(
        "error: job {UNKNOWN} is unknown: not admitted yet, kept no longer, or never published"
    );
    fleet.fails(&["status", UNKNOWN], 4, &unknown);
    fleet.fails(&["drain", "nobody"], 4, "error: no such node: nobody");
    fleet.fails(&["readmit", "nobody"], 4, "error: no such node: nobody");
    let left = fleet.given.longshore(&["drain", "nobody", "--json"]);
    let problem: Value = serde_json::from_str(&left.stderr).expect("one line of JSON");
    assert_eq!((left.code, &problem["kind"]), (Some(4), &"not_found".into()), "{left:?}");
    assert_eq!((&problem["node"], left.stdout.as_str()), (&"nobody".into(), ""), "{left:?}");
    fleet.fails(&["delete", UNKNOWN, "--force"], 4, &format!("error: no such job: {UNKNOWN}"));
    let left =
        fleet.given.longshore(&["submit", "--task", "noop", "--items", "1", "--within", "1s"]);
    assert_eq!(left.code, Some(3));
    let missing = "was published but not accepted within 1s: no scheduler takes jobs; start one \
                   with `longshore scheduler`, or look at its log; RabbitMQ keeps the job until \
                   then, and `longshore status ";
    assert!(left.stderr.contains(missing), "{left:?}");
    fleet.start(&["scheduler"]);
    let submit = ["submit", "--id", UNKNOWN, "--task", "wordcount", "--files", "/nowhere/*"];
    let reason = "split.files: no file matches `/nowhere/*`";
    fleet.fails(&submit, 2, &format!("error: job {UNKNOWN} was rejected: {reason}"));
    fleet.fails(&["results", UNKNOWN], 1, &format!("error: the job was rejected: {reason}"));
    assert_eq!(fleet.json(&["status", UNKNOWN])["error"], reason);
    let shown = format!("job       {UNKNOWN}\nstate     rejected\nerror     {reason}\n");
    assert_eq!(fleet.ok(&["status", UNKNOWN]), shown, "no words that are empty");
    let said = "error: standard output: No space left on device (os error 28)\n";
    let line = format!("\"$0\" status {UNKNOWN} >/dev/full");
    let output = fleet.given.shell(&line).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stderr), said, "{line}");
    assert_eq!(output.status.code(), Some(1), "{line}");
}

#[test]
fn a_job_that_is_cancelled_before_it_is_admitted_never_runs() {
    let mut fleet = Fleet::new("cancelled-first");
    let message = "cancelled; it is not known (yet): a document with this id that comes within 24 \
                hours is admitted as cancelled, and nothing of it runs";
    assert_eq!(fleet.ok(&["cancel", UNKNOWN]), format!("{UNKNOWN} {message}\n"));
    let again = fleet.json(&["cancel", UNKNOWN]);
    assert_eq!(again, json!({ "id": UNKNOWN, "state": "cancelled", "admitted": false }));
    let known = format!(
        "error: job {UNKNOWN} is not known, and was cancelled: a document with this id that comes \
         within 24 hours of that is admitted as cancelled, and nothing of it runs"
    );
    fleet.fails(&["status", UNKNOWN], 4, &known);
    let submit = ["submit", "--id", UNKNOWN, "--task", "noop", "--items", "1", "--within", "1s"];
    let left = fleet.given.longshore(&submit);
    let missing = "it was cancelled before, and will be admitted as cancelled";
    assert!(left.code == Some(3) && left.stderr.contains(missing), "{left:?}");
    fleet.start(&["worker"]);
    fleet.start(&["scheduler"]);
    wait_until("the job is admitted", LONG, || {
        fleet.given.longshore(&["status", UNKNOWN]).code == Some(0)
    });
    let ended = fleet.json(&["status", UNKNOWN]);
    assert_eq!(ended["state"], "cancelled");
    assert_eq!((&ended["cancelled"], &ended["attempts"]), (&1.into(), &0.into()));
    assert_eq!(fleet.ok(&["cancel", UNKNOWN]), format!("{UNKNOWN} cancelled\n"));
    let submit = ["submit", "--id", UNKNOWN, "--task", "noop", "--items", "1", "--wait"];
    let left = fleet.given.longshore(&submit);
    assert_eq!(left.code, Some(1), "the same document is the same job: {left:?}");
}

#[test]
fn services_need_no_standard_output() {
    let mut fleet = Fleet::new("closed-output");
    for verb in ["scheduler", "worker"] {
        let shell = fleet.given.shell(&format!("exec \"$0\" {verb} >&-"));
        fleet.processes.push(Process::start(&shell));
    }
    fleet.await_worker();
    let submit = ["submit", "--task", "sum", "--items", "[1,2]", "--wait"];
    assert_eq!(fleet.ok(&submit).lines().last(), Some("3"));
    let line = "\"$0\" status >&-";
    let output = fleet.given.shell(line).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: standard output is closed\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_doctor_reports_problems() {
    let mut fleet = Fleet::new("doctor");
    let left = fleet.given.longshore(&["doctor", "--json"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    let found: Value = serde_json::from_str(&left.stdout).expect("JSON");
    assert_eq!(finding(&found, "schedulers")["severity"], "error");
    assert_eq!(finding(&found, "schedulers")["remedy"], "start one with `longshore scheduler`");
    assert_eq!(finding(&found, "workers")["severity"], "warning");
    assert_eq!(finding(&found, "clock")["severity"], "ok");

    fleet.start(&["scheduler"]);
    fleet.start(&["worker"]);
    fleet.await_worker();
    wait_until("the scheduler takes documents", LONG, || {
        fleet.given.longshore(&["doctor"]).code == Some(0)
    });
    let found = fleet.json(&["doctor"]);
    for check in ["schedulers", "workers", "redis.functions", "rabbitmq.login"] {
        assert_eq!(finding(&found, check)["severity"], "ok", "{found:#}");
    }
    let checks = found.as_array().expect("a list").iter().map(|finding| &finding["check"]);
    assert_eq!(checks.filter(|check| *check == "workers.terms").count(), 0, "{found:#}");
    let mut rare = fleet.given.command(&["worker"]);
    rare.env("LONGSHORE_HEARTBEAT", "7s");
    fleet.processes.push(Process::start(&rare));
    wait_until("it beats", LONG, || fleet.json(&["nodes"]).as_array().map(Vec::len) == Some(2));
    let found = fleet.json(&["doctor"]);
    let terms = finding(&found, "workers.terms");
    let message = terms["found"].as_str().expect("a text");
    let expected = "sends a heartbeat every 7s, dead after 35s; the settings here say 1s and 5s";
    assert!(message.ends_with(expected), "{terms}");
    assert_eq!(terms["severity"], "warning");

    let left =
        fleet.given.longshore(&["submit", "--task", "noop", "--items", "1", "--queue", "gpu"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(left.stderr, "the job waits: no worker takes chunks of queue `gpu`\n");
    let left = fleet.given.longshore(&["doctor", "--json"]);
    let found: Value = serde_json::from_str(&left.stdout).expect("JSON");
    let remedy = &finding(&found, "workers.queue")["remedy"];
    assert_eq!(remedy, "start one with `longshore worker --queues gpu`");
    assert_eq!(left.code, Some(1));
}

#[test]
fn a_refused_login_ends_every_verb_with_3() {
    let redis = Redis::start();
    redis.call(&["CONFIG", "SET", "requirepass", "secret"]);
    let wrong = format!("redis://:wrong@127.0.0.1:{}", redis.port());
    let given = Given::nothing()
        .variable("LONGSHORE_AMQP_URL", &Rabbit::shared().url())
        .variable("LONGSHORE_REDIS_URL", &wrong);
    for verb in [&["status"][..], &["scheduler"], &["worker"], &["doctor"]] {
        let left = given.longshore(verb);
        assert_eq!(left.code, Some(3), "{verb:?}: {left:?}");
        assert!(!left.stderr.contains("wrong@"), "no password is shown: {left:?}");
    }
    let amqp = format!("amqp://guest:wrong@127.0.0.1:{}/%2f", Rabbit::shared().port());
    let given = Given::nothing()
        .variable("LONGSHORE_AMQP_URL", &amqp)
        .variable("LONGSHORE_REDIS_URL", &Redis::shared().url());
    for verb in [
        &["scheduler"][..],
        &["worker"],
        &["submit", "--task", "noop", "--items", "1"],
        &["doctor"],
    ] {
        let left = given.longshore(verb);
        assert_eq!(left.code, Some(3), "{verb:?}: {left:?}");
        assert!(!left.stderr.contains("wrong@"), "no password is shown: {left:?}");
    }
}

#[test]
fn a_scheduler_and_a_worker_wait_for_services_that_come_late() {
    let port = free_port().expect("a port is free");
    let mut fleet = Fleet::new("late");
    let url = format!("redis://127.0.0.1:{port}");
    fleet.given = fleet.given.variable("LONGSHORE_REDIS_URL", &url);
    fleet.start(&["scheduler"]);
    fleet.start(&["worker"]);
    wait_until("both say that they wait", LONG, || {
        fleet.processes.iter().all(|process| process.tail().contains("waiting"))
    });
    let options = RedisOptions { port: Some(port), ..Default::default() };
    let _redis = Redis::start_with(&options);
    fleet.await_worker();
    assert_eq!(fleet.ok(&["submit", "--wait", "--task", "noop", "--items", "1"]), "null\n");
    for process in &fleet.processes {
        let waited = process.tail().lines().filter(|line| line.contains("waiting")).count();
        assert_eq!(waited, 1, "one line a change: {}", process.tail());
    }
}

#[test]
fn a_second_signal_stops_a_worker_at_once() {
    let mut fleet = Fleet::new("second");
    fleet.start(&["scheduler"]);
    let worker = fleet.given.start(&["worker", "--grace", "10m"]);
    fleet.await_worker();
    let id = fleet.ok(&["submit", "--task", "sleep", "--items", "600000"]).trim().to_owned();
    wait_until("it runs", LONG, || fleet.json(&["status", &id])["running"] == 1);
    let pid = worker.id().to_string();
    let interrupt = || Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
    assert!(interrupt().success());
    wait_until("it drains", LONG, || fleet.json(&["nodes"])[0]["state"] == "draining");
    assert!(interrupt().success());
    let left = given::finish(worker);
    assert_eq!(left.code, Some(130), "{left:?}");
    assert!(left.stderr.contains("draining; once more to stop at once\n"), "{left:?}");
    fleet.ok(&["cancel", &id]);
}

#[test]
fn a_subtask_that_kills_its_workers_fails_and_the_job_reports_it() {
    let mut fleet = Fleet::new("poison");
    let history = fleet.given.folder().join("history");
    let task = format!(
        "[task.odd]\ncommand = [\"sh\", \"-c\", \"test $LONGSHORE_INDEX = 13 && \
        echo $LONGSHORE_NODE >> {} && kill -9 $(ps -o ppid= -p $PPID); \
        echo $LONGSHORE_INDEX\"]\n",
        history.display()
    );
    let given = fleet.given.file("longshore.toml", task);
    let settings = given.folder().join("longshore.toml").display().to_string();
    fleet.given = given
        .variable("LONGSHORE_CONFIG", &settings)
        .variable("LONGSHORE_DEAD_AFTER", "2s")
        .variable("LONGSHORE_HEARTBEAT", "100ms")
        .variable("LONGSHORE_SLOTS", "2");
    fleet.start(&["scheduler"]);
    let job = r#"{"task": "odd", "split": {"by": "range", "start": 0, "end": 60}, "chunk": 30}"#;
    fleet.given = fleet.given.stdin(job);
    // The status says that there is no worker yet.
    let submitted = fleet.given.longshore(&["submit", "-"]);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let id = submitted.stdout.trim().to_owned();
    wait_until("the job ends", 3 * LONG, || {
        let workers = &mut fleet.processes[1..];
        if workers.iter_mut().all(|worker| !worker.is_running()) {
            fleet.start(&["worker"]);
        }
        fleet.json(&["status", &id])["state"] == "failed"
    });
    let history = std::fs::read_to_string(history).expect("the task wrote it");
    let killed: Vec<&str> = history.lines().collect();
    let status = fleet.json(&["status", &id]);
    assert_eq!((&status["done"], &status["failed"]), (&59.into(), &1.into()), "{status}");
    // On a busy machine a living worker may be declared lost, so there may be more evidence than
    // deaths.
    assert!((1..=8).contains(&killed.len()), "{killed:?} died");
    assert!(status["crashes"].as_u64() >= Some(killed.len() as u64), "{status}");
    let recovered = status["recovered"].as_array().expect("a list");
    let verdict = recovered.iter().find(|it| it["given_up"][0] == 13).expect("it is reported");
    assert_eq!(verdict["lost"], "died", "{verdict}");
    let error = fleet.json(&["errors", &id]);
    assert_eq!((&error["index"], &error["attempts"]), (&13.into(), &1.into()), "{error}");
    let deaths = error["deaths"].as_array().expect("the evidence");
    let names: Vec<_> = deaths.iter().filter_map(|death| death["node"].as_str()).collect();
    assert!(names.len() >= 5 && killed.iter().all(|node| names.contains(node)), "{error}");
    let text = fleet.ok(&["status", &id]);
    let lost = &status["recoveries"];
    assert!(text.contains(&format!("\nrecovered {lost} nodes lost")), "{text}");
    let why = "\nlatest    failure: subtask 13: 3 nodes died running it alone (";
    assert!(text.contains(why), "{text}");
}

#[test]
fn jobs_are_listed_by_filter_and_page() {
    let mut fleet = Fleet::new("listing");
    fleet.start(&["scheduler"]);
    let jobs: Vec<String> = (0..5)
        .map(|number| {
            let label = if number % 2 == 0 { "zone=eu" } else { "zone=us" };
            let name = format!("run {number}");
            let job = ["submit", "--task", "noop", "--range", "0..2", "--name", &name];
            // No worker runs, as the notice on standard error says.
            let left = fleet.given.longshore(&[&job[..], &["--label", label]].concat());
            assert_eq!(left.code, Some(0), "{left:?}");
            left.stdout.trim().to_owned()
        })
        .collect();
    fleet.ok(&["cancel", &jobs[4]]);
    let ids = |page: &Value| -> Vec<String> {
        let jobs = page["jobs"].as_array().expect("jobs").iter();
        jobs.map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
    };
    let eu = fleet.json(&["list", "--label", "zone=eu"]);
    assert_eq!(ids(&eu), [&*jobs[4], &*jobs[2], &*jobs[0]], "newest first");
    assert_eq!((&eu["next"], &eu["jobs"][0]["name"]), (&Value::Null, &json!("run 4")));
    let cancelled = fleet.json(&["list", "--state", "failed,cancelled"]);
    assert_eq!(ids(&cancelled), [&*jobs[4]]);
    assert_eq!(ids(&fleet.json(&["list", "--name", "run 1", "--queue", "default"])), [&*jobs[1]]);
    assert_eq!(ids(&fleet.json(&["list", "--task", "sleep"])), [""; 0]);

    let first = fleet.json(&["list", "--limit", "2"]);
    let cursor = first["next"].as_str().expect("more follow");
    let rest = fleet.json(&["list", "--cursor", cursor]);
    assert_eq!([ids(&first), ids(&rest)].concat().len(), 5);
    let printed = fleet.given.longshore(&["list", "--limit", "2"]);
    assert!(printed.stdout.contains("NAME") && printed.stdout.contains("run 4"), "{printed:?}");
    assert!(printed.stderr.starts_with("more follow: add --cursor "), "{printed:?}");
    let status = fleet.ok(&["status", &jobs[0]]);
    assert!(
        status.contains("name      run 0\n") && status.contains("labels    zone=eu\n"),
        "{status}"
    );
}
