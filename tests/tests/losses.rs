//! Every confirmed job ends with the right results though Redis or RabbitMQ loses data.
//!
//! Redis loses all data or its last writes, RabbitMQ loses the journal, both are restarted.

use std::time::Duration;

use longshore_test_servers::{Process, Rabbit, Redis, wait_until};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);

/// A job and the expected output of `longshore results`.
struct Expected {
    job: String,
    printed: String,
    total: u64,
}

/// A job that adds numbers, its expected output, and its number of subtasks.
fn sums(number: u64) -> (Value, String, u64) {
    let total = 20 + number;
    let items: Vec<Value> = (0..total).map(|k| json!([k, number])).collect();
    let split = json!({"by": "items", "items": items});
    if number.is_multiple_of(2) {
        let all = (0..total).sum::<u64>() + number * total;
        (
            json!({"task": "sum", "split": split, "reduce": {"task": "sum", "fan_in": 4}}),
            format!("{all}\n"),
            total,
        )
    } else {
        let lines = (0..total).map(|k| format!("{}\n", k + number)).collect();
        (json!({"task": "sum", "split": split}), lines, total)
    }
}

fn submit(fleet: &Fleet, number: u64) -> Expected {
    let (document, printed, total) = sums(number);
    Expected { job: fleet.submit(&document), printed, total }
}

/// A job that takes some seconds on the workers of a fleet.
fn submit_slow(fleet: &Fleet) -> Expected {
    let split = json!({"by": "range", "start": 0, "end": 600});
    let job = fleet.submit(&json!({"task": "sleep", "params": {"ms": 30}, "split": split}));
    Expected { job, printed: "30\n".repeat(600), total: 600 }
}

/// Checks that the job ends correctly and that nothing is counted twice. If it had ended before the
/// loss, its results are gone and `longshore results` says so. Returns whether there are results.
#[track_caller]
fn ends(fleet: &Fleet, expected: &Expected) -> bool {
    let Expected { job, printed, total } = expected;
    comes_back(fleet, job);
    let status = fleet.await_end(job, LONG);
    assert_eq!(
        (&status["state"], &status["done"]),
        (&json!("succeeded"), &json!(total)),
        "{status}"
    );
    fleet.audit(job);
    if let Some(error) = status["error"].as_str() {
        assert!(error.contains("results and errors of subtasks are gone"), "{status}");
        assert!(status["restored_at"].is_number(), "{status}");
        let lost = fleet.longshore(&["results", job]);
        assert_eq!((lost.code, lost.stdout.as_str()), (Some(1), ""), "{}", lost.stderr);
        let expected = format!("job {job}: its results were lost with the ledger");
        assert!(lost.stderr.contains(&expected), "{}", lost.stderr);
        return false;
    }
    assert_eq!(fleet.longshore(&["results", job]).ok(), *printed, "{status}");
    true
}

#[track_caller]
fn ends_with_results(fleet: &Fleet, expected: &Expected) {
    assert!(ends(fleet, expected), "the results of {} are gone", expected.job);
}

#[track_caller]
fn comes_back(fleet: &Fleet, job: &str) {
    let there = || fleet.longshore(&["status", job]).code == Some(0);
    let begun = std::time::Instant::now();
    while !there() {
        let logs: Vec<String> = fleet.schedulers.iter().map(Process::tail).collect();
        assert!(begun.elapsed() < LONG, "job {job} does not come back\n{}", logs.join("\n"));
    }
}

fn add_workers(fleet: &mut Fleet) {
    for _ in 0..2 {
        fleet.add_worker(&["--slots", "2"]);
    }
    fleet.await_workers(2);
}

#[track_caller]
fn until_running(fleet: &Fleet, job: &str) {
    comes_back(fleet, job);
    wait_until("the job is running", LONG, || fleet.status(job)["done"].as_u64() >= Some(20));
}

/// Waits until the ledger has applied the whole journal.
#[track_caller]
fn until_journaled(fleet: &Fleet, redis: &Redis) {
    let place =
        || format!("{:?}", redis.call(&["HGETALL", &format!("{}:journal", fleet.namespace())]));
    let mut seen = String::new();
    let mut since = std::time::Instant::now();
    wait_until("the ledger's place in the journal stays the same", LONG, || {
        let now = place();
        if now != seen {
            (seen, since) = (now, std::time::Instant::now());
        }
        // Schedulers move it every second.
        since.elapsed() > Duration::from_secs(3) && seen.contains("offset")
    });
}

#[track_caller]
fn logs(scheduler: &Process, line: &str) {
    wait_until(&format!("a scheduler logs: {line}"), LONG, || scheduler.output().contains(line));
}

#[test]
fn jobs_end_after_redis_loses_all_data() {
    let redis = Redis::start();
    let mut fleet = Fleet::on(Rabbit::shared(), &redis);
    fleet.add_scheduler();
    fleet.add_scheduler();
    add_workers(&mut fleet);
    // One job with results for each subtask, and one with a reduced value.
    let over = [submit(&fleet, 1), submit(&fleet, 22)];
    over.iter().for_each(|job| ends_with_results(&fleet, job));
    let mut jobs: Vec<Expected> = (2..21).map(|number| submit(&fleet, number)).collect();
    // A client waits for a job during the loss, and reads its results.
    let wait =
        ["submit", "--wait", "--task", "sleep", "--range", "0..400", "--params", "{\"ms\":30}"];
    let waiting = Process::start(&fleet.command(&wait));
    let slow = submit_slow(&fleet);
    until_running(&fleet, &slow.job);
    redis.call(&["FLUSHALL"]);
    ends_with_results(&fleet, &slow);
    jobs.push(slow);
    for expected in &jobs {
        ends(&fleet, expected);
    }
    let rebuilt = |it: &Process| it.output().contains("ledger rebuilt from the journal");
    assert!(fleet.schedulers.iter().any(rebuilt), "{}", fleet.schedulers[0].output());
    assert!(over.iter().all(|job| !ends(&fleet, job)), "their results were deleted");
    wait_until("the waiting client has ended", LONG, || !waiting.is_running());
    let printed = waiting.output();
    assert!(printed.matches("30\n").count() == 400, "{printed}");
    let report = fleet.longshore(&["doctor", "--json"]);
    assert!(report.stdout.contains("the ledger reflects it up to record"), "{}", report.stdout);
}

#[test]
fn jobs_end_after_redis_is_rolled_back_and_after_it_loses_all_data_without_a_scheduler() {
    let mut redis = Redis::start();
    let mut fleet = Fleet::on(Rabbit::shared(), &redis);
    fleet.add_scheduler();
    add_workers(&mut fleet);
    let early = submit(&fleet, 1);
    ends_with_results(&fleet, &early);
    until_journaled(&fleet, &redis);
    let older = redis.copy_data();

    // Jobs that are submitted after the copy are missing from it.
    let late: Vec<Expected> = (2..6).map(|number| submit(&fleet, number)).collect();
    ends_with_results(&fleet, &late[0]);
    let slow = submit_slow(&fleet);
    until_running(&fleet, &slow.job);
    redis.roll_back(&older);
    ends_with_results(&fleet, &slow);
    for expected in &late {
        ends(&fleet, expected);
    }
    ends_with_results(&fleet, &early);

    // No scheduler runs during this loss.
    let slow = submit_slow(&fleet);
    until_running(&fleet, &slow.job);
    fleet.schedulers[0].kill9();
    redis.call(&["FLUSHALL"]);
    redis.call(&["FUNCTION", "FLUSH"]);
    fleet.add_scheduler();
    ends_with_results(&fleet, &slow);
    logs(&fleet.schedulers[1], "ledger rebuilt from the journal");
}

#[test]
fn jobs_end_after_resets_of_rabbitmq_restarts_of_both_and_a_loss_of_redis() {
    let mut rabbit = Rabbit::start();
    let mut redis = Redis::start();
    let mut fleet = Fleet::on(&rabbit, &redis);
    fleet.add_scheduler();
    add_workers(&mut fleet);
    let over = submit(&fleet, 3);
    ends_with_results(&fleet, &over);
    let slow = submit_slow(&fleet);
    until_running(&fleet, &slow.job);
    redis.kill9();
    rabbit.restart();
    redis.restart();
    ends_with_results(&fleet, &slow);

    // Longer than all of this takes on a busy machine.
    let split = json!({"by": "range", "start": 0, "end": 20_000});
    let long = fleet.submit(&json!({"task": "sleep", "params": {"ms": 30}, "split": split}));
    until_running(&fleet, &long);
    let begun = |fleet: &Fleet| {
        fleet.schedulers[0].output().matches("journal begun from the ledger").count()
    };
    for _ in 0..2 {
        let before = begun(&fleet);
        rabbit.stop_app();
        rabbit.ctl(&["reset"]);
        rabbit.start_app();
        wait_until("the journal is begun again", LONG, || begun(&fleet) > before);
    }
    until_journaled(&fleet, &redis);
    redis.call(&["FLUSHALL"]);
    wait_until("the job exists again", LONG, || {
        fleet.longshore(&["status", &long]).code == Some(0)
    });
    assert_eq!(fleet.status(&over.job)["state"], "succeeded");
    until_running(&fleet, &long);
    fleet.longshore(&["cancel", &long]).ok();
    let after = submit(&fleet, 7);
    ends_with_results(&fleet, &after);
}
