//! Runs the examples as their instructions say, and checks what they print.

use std::process::Command;
use std::time::Duration;

use longshore_test_servers::{Process, Redis, wait_until};
use longshore_tests::{Fleet, binary, finish, repository};
use serde_json::{Value, json};

fn longshore(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(repository());
    command
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let config = "examples/checksums/longshore.toml";
    let run = longshore(&["run", "--config", config, "examples/checksums/job.json"]);
    let ours = lines(&finish(run).ok());
    let mut sha256sum = Command::new("sh");
    sha256sum.args(["-c", "sha256sum *.txt"]).current_dir(repository().join("examples/text"));
    let theirs: Vec<Value> = finish(sha256sum)
        .ok()
        .lines()
        .map(|line| line.split_once("  ").expect("sum and name"))
        .map(|(sum, file)| json!({"file": file, "sha256": sum}))
        .collect();
    assert!(!theirs.is_empty());
    assert_eq!(ours, theirs);
}

#[test]
fn the_grid_is_scored_by_a_served_command_in_order() {
    let run =
        longshore(&["run", "--config", "examples/grid/longshore.toml", "examples/grid/job.json"]);
    let scores = lines(&finish(run).ok());
    assert_eq!(scores.len(), 12);
    assert_eq!(scores[0], json!({"lr": 0.1, "seed": 0, "loss": 1.0}));
    assert_eq!(scores[5], json!({"lr": 0.01, "seed": 1, "loss": 0.01}));
}

#[test]
fn the_rust_worker_runs_jobs() {
    let source =
        std::fs::read_to_string(repository().join("examples/rust_worker.rs")).expect("it is there");
    assert!(source.lines().count() < 30, "the example promises under 30 lines");
    let build = ["build", "--quiet", "-p", "longshore-worker", "--example", "rust_worker"];
    let mut cargo = Command::new(env!("CARGO"));
    finish({
        cargo.args(build).current_dir(repository());
        cargo
    })
    .ok();
    let mut fleet = Fleet::start(1, 0);
    let mut worker = Command::new(binary().with_file_name("examples").join("rust_worker"));
    worker.envs(fleet.environment());
    fleet.workers.push(Process::start(&worker));
    fleet.await_workers(1);
    let greetings = fleet
        .longshore(&["submit", "--wait", "--task", "greet", "--items", "\"Ada\"", "\"Bob\""])
        .ok();
    assert_eq!(greetings, "\"hello Ada, from attempt 1\"\n\"hello Bob, from attempt 1\"\n");
    let primes =
        fleet.longshore(&["submit", "--wait", "--task", "primes", "--items", "10", "100"]).ok();
    assert_eq!(primes, "4\n25\n");
    fleet.workers[0].signal("TERM");
    wait_until("the worker drains", Duration::from_secs(30), || !fleet.workers[0].is_running());
}

#[test]
fn python_submits_follows_and_reads_with_pika_and_redis_alone() {
    let fleet = Fleet::start(1, 1);
    // `./test` installs both modules and names the Python that has them.
    let python =
        std::env::var("LONGSHORE_TEST_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".to_owned());
    let run = |arguments: &[&str]| {
        let mut script = Command::new(&python);
        script.args(arguments).envs(fleet.environment()).current_dir(repository());
        finish(script).ok()
    };
    let printed = run(&["examples/python/submit_and_watch.py"]);
    assert_eq!(printed.lines().last(), Some("[3, 7, 11]"), "{printed}");
    assert!(printed.contains("succeeded 3 of 3"), "{printed}");

    // Long runs of results are compressed.
    let items: Vec<Value> = (0..600).map(|n| json!([n, 1_000_000_000])).collect();
    let split = json!({"by": "items", "items": items});
    let job = fleet.submit(&json!({"task": "sum", "split": split, "chunk": 300}));
    fleet.await_end(&job, Duration::from_secs(60));
    let redis = Redis::shared();
    let key = format!("{}:{{{job}}}:results", fleet.namespace());
    let kept = format!("{:?}", redis.call(&["HGET", &key, "0"]));
    assert!(kept.contains("~256 2816 "), "{kept}");
    let read = format!(
        "import sys; sys.path.insert(0, 'examples/python'); import submit_and_watch as it; \
         redis = it.redis.Redis.from_url(it.REDIS_URL, decode_responses=True); \
         print(list(it.results(redis, '{job}')))"
    );
    let sums: Vec<String> = (0..600).map(|n| (1_000_000_000 + n).to_string()).collect();
    assert_eq!(run(&["-c", &read]), format!("[{}]\n", sums.join(", ")));
}
