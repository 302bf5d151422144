//! Jobs of all kinds, submitted continuously, under all process and service faults.

use std::thread;
use std::time::{Duration, Instant};

use longshore_chaos::cluster::{Cluster, Role};
use longshore_chaos::nemesis::{Deck, service_faults};
use longshore_chaos::report::RunConfig;
use longshore_chaos::tasks::{FLAKY, MARK};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::NemesisRun;

/// The time between two submissions; each starts two processes.
const SUBMIT_INTERVAL: Duration = Duration::from_millis(700);

/// Half of them run commands, which leave processes behind, and have only one of the tasks.
const WORKERS: [Role; 4] = [Role::Worker, Role::Worker, Role::Commander, Role::Server];

#[test]
fn jobs_of_all_kinds_end_correctly_under_process_and_service_faults() {
    let config = RunConfig::from_env(Duration::from_secs(30));
    let mut run = NemesisRun::start(config, 2, WORKERS);
    let first = run.cluster.submit(MARK, 200, &json!({"ms": 5}), &json!({}));
    run.cluster.await_done(first, 50);
    let before = run.baseline();
    run.break_during(Deck::new(service_faults(), config.seed), |cluster, end| {
        submit_until(cluster, config.seed, end);
    });
    run.check(&before);
}

fn submit_until(cluster: &Cluster, seed: u64, end: Instant) {
    let mut rng = StdRng::seed_from_u64(seed + 2);
    while Instant::now() < end {
        let begun = Instant::now();
        let (task, total, params, more) = draw(&mut rng);
        let job = Uuid::now_v7();
        let submit = || cluster.submit_as(job, task, total, &params, &more);
        let is_double = rng.random_bool(0.3);
        thread::scope(|scope| {
            scope.spawn(submit);
            if is_double {
                scope.spawn(submit);
            }
        });
        thread::sleep(SUBMIT_INTERVAL.saturating_sub(begun.elapsed()));
    }
}

/// Draws a small job, one with failing subtasks, one with long subtasks, or one with limits.
fn draw(rng: &mut StdRng) -> (&'static str, u64, Value, Value) {
    let some = rng.random_range(1..=200);
    match rng.random_range(0..5) {
        0 => (FLAKY, some, json!({"ms": 2}), json!({})),
        1 => (MARK, some / 50 + 1, json!({"ms": 3000}), json!({"chunk": 1})),
        2 => (MARK, some, json!({"ms": 5}), json!({"max_parallel": 2, "priority": 9})),
        3 => (FLAKY, some, json!({"ms": 1}), json!({"chunk": 7, "tenant": "other"})),
        _ => (MARK, some, json!({"ms": rng.random_range(0..20)}), json!({})),
    }
}
