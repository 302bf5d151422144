//! Subtasks that outlast RabbitMQ's patience with consumers.

use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::crew::{Crew, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, RabbitOptions, Redis};
use serde_json::json;

/// RabbitMQ closes the channel of a consumer that has not acknowledged for so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a subtask works.
const WORK: Duration = Duration::from_secs(8);

/// What RabbitMQ writes when its patience is over; the words that follow differ between 3 and 4.
const IMPATIENT: &str = "has timed out waiting for";

/// Runs two long subtasks with workers that acknowledge after so long; tells whether RabbitMQ lost its patience.
fn runs_once(rabbit: &Rabbit, ack_after: &str) -> bool {
    let before = rabbit.log_text().matches(IMPATIENT).count();
    let mut crew = Crew::on(rabbit, Redis::shared());
    crew.set("LONGSHORE_ACK_AFTER", ack_after);
    crew.set("LONGSHORE_SLOTS", "1");
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, 1);
    crew.hire(Role::Server, 1);
    let params = json!({"ms": WORK.as_millis() as u64});
    let job = crew.submit(MARK, 2, &params, &json!({"chunk": 1}));
    crew.await_end(job);
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    let starts: Vec<u32> = history.starts().into_values().collect();
    assert_eq!(starts, [1, 1], "each ran once");
    rabbit.log_text().matches(IMPATIENT).count() > before
}

#[test]
fn a_subtask_that_outlasts_the_consumer_timeout_runs_once() {
    let patience = PATIENCE.as_millis();
    let rabbit = Rabbit::start_with(&RabbitOptions {
        advanced: vec![
            format!("{{consumer_timeout, {patience}}}"),
            "{channel_tick_interval, 500}".into(),
        ],
        ..RabbitOptions::default()
    });
    assert!(!runs_once(&rabbit, "1s"), "an early acknowledgement keeps RabbitMQ patient");
    // The proof that it had a reason: without, RabbitMQ closes the channel. The ledger sees to it that even then nothing runs twice.
    assert!(runs_once(&rabbit, "60s"), "RabbitMQ has a consumer timeout");
}
