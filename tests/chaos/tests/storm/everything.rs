//! Jobs of every kind, submitted all the while, with everything that can happen to the servers.

use std::thread;
use std::time::{Duration, Instant};

use longshore_chaos::crew::{Crew, Role};
use longshore_chaos::inquest::Course;
use longshore_chaos::nemesis::{Deck, mishaps};
use longshore_chaos::tasks::{FLAKY, MARK};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Storm;

/// Between two submissions; each costs two processes.
const PACE: Duration = Duration::from_millis(700);

/// Half of them run programs, whose processes run away, and have one of the tasks.
const WORKERS: [Role; 4] = [Role::Worker, Role::Worker, Role::Commander, Role::Server];

#[test]
fn jobs_of_every_kind_end_right_whatever_happens_to_crew_and_servers() {
    let course = Course::from_env(Duration::from_secs(30));
    let mut storm = Storm::gather(course, 2, WORKERS);
    let first = storm.crew.submit(MARK, 200, &json!({"ms": 5}), &json!({}));
    storm.crew.await_done(first, 50);
    let before = storm.baseline();
    storm.rage(Deck::new(mishaps(), course.seed), |crew, end| submit_until(crew, course.seed, end));
    storm.judge(&before);
}

fn submit_until(crew: &Crew, seed: u64, end: Instant) {
    let mut rng = StdRng::seed_from_u64(seed + 2);
    while Instant::now() < end {
        let begun = Instant::now();
        let (task, total, params, more) = draw(&mut rng);
        let job = Uuid::now_v7();
        let submit = || crew.submit_as(job, task, total, &params, &more);
        let is_double = rng.random_bool(0.3);
        thread::scope(|scope| {
            scope.spawn(submit);
            if is_double {
                scope.spawn(submit);
            }
        });
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
}

/// A small job, one that fails here and there, one of long subtasks, or one with limits.
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
