//! A job of 10,000,000 short subtasks does not delay small jobs, controls or other tenants.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::time::{Duration, Instant};

use longshore_test_servers::wait_until;
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn big_job(fleet: &Fleet) -> String {
    let job = fleet.submit(&json!({
        "task": "sleep",
        "params": {"ms": 5},
        "split": {"by": "range", "start": 0, "end": 10_000_000},
        "results": "discard",
    }));
    wait_until("the big job is running", LONG, || done(&fleet.status(&job)) > 500);
    job
}

/// The time from the creation of the job's id, a UUIDv7, to the end of the job by the ledger's
/// clock: publishing, admission, waiting and running, but not the start of the client's process.
fn time_to_end(fleet: &Fleet, job: &str) -> Duration {
    let hex: String = job.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let drawn = u64::from_str_radix(&hex, 16).expect("a UUIDv7 begins with Unix milliseconds");
    let status = fleet.await_end(job, LONG);
    let finished = status["finished_at"].as_u64().expect("it has ended");
    Duration::from_millis(finished.saturating_sub(drawn))
}

fn done(status: &Value) -> u64 {
    status["done"].as_u64().unwrap_or_default()
}

#[test]
fn one_subtask_behind_a_big_job_ends_within_a_second_and_controls_act_at_once() {
    let fleet = Fleet::start(1, 2);
    let big = big_job(&fleet);

    let one = json!({"task": "noop", "split": {"by": "items", "items": [1]}});
    let worst = (0..20).map(|_| time_to_end(&fleet, &fleet.submit(&one))).max().expect("20 times");
    assert!(worst < Duration::from_secs(1), "the slowest of 20 took {worst:?}");

    let started = Instant::now();
    fleet.longshore(&["pause", &big]).ok();
    let pause = started.elapsed();
    assert!(pause < Duration::from_millis(500), "a pause took {pause:?} to answer");
    wait_until("nothing runs a second after the pause", Duration::from_secs(1), || {
        fleet.status(&big)["running"] == json!(0)
    });
    let paused = fleet.status(&big);
    assert_eq!(paused["state"], "paused");

    fleet.longshore(&["resume", &big]).ok();
    wait_until("it continues", Duration::from_secs(5), || {
        done(&fleet.status(&big)) > done(&paused)
    });

    let started = Instant::now();
    fleet.longshore(&["cancel", &big]).ok();
    let cancel = started.elapsed();
    assert!(cancel < Duration::from_millis(500), "a cancel took {cancel:?} to answer");
    let status = fleet.status(&big);
    assert_eq!(status["state"], "cancelled");
    assert_eq!(
        done(&status) + status["cancelled"].as_u64().expect("a count"),
        10_000_000,
        "{status}"
    );
    fleet.audit(&big);
    println!("worst of 20: {worst:?}; pause answered in {pause:?}; cancel in {cancel:?}");
}

#[test]
fn ten_tenants_with_jobs_of_different_sizes_get_equal_shares() {
    let fleet = Fleet::start(1, 2);
    let jobs: Vec<String> = (0..10)
        .map(|tenant| {
            fleet.submit(&json!({
                "task": "sleep",
                "params": {"ms": 5},
                "tenant": format!("tenant-{tenant}"),
                "split": {"by": "range", "start": 0, "end": 100_000u64 << tenant},
                "results": "discard",
            }))
        })
        .collect();
    let counts = || -> Vec<u64> { jobs.iter().map(|job| done(&fleet.status(job))).collect() };
    // Shares are measured over 30 s, after all jobs have begun.
    wait_until("all ten run", LONG, || counts().iter().all(|&n| n > 50));
    let before = counts();
    let started = Instant::now();
    let mut gained = Vec::new();
    wait_until("30 s are over", Duration::from_secs(120), || {
        gained = counts().iter().zip(&before).map(|(now, then)| now - then).collect();
        started.elapsed() >= Duration::from_secs(30)
    });
    let mean = gained.iter().sum::<u64>() as f64 / 10.0;
    for (tenant, gain) in gained.iter().enumerate() {
        let share = *gain as f64 / mean;
        assert!(
            (0.9..=1.1).contains(&share),
            "tenant {tenant} got {share:.2} of a fair share: {gained:?}"
        );
    }
    for job in &jobs {
        fleet.longshore(&["cancel", job]).ok();
    }
    println!("in {:?}: {gained:?}", started.elapsed());
}
