//! Subtasks that run for longer than RabbitMQ's `consumer_timeout` run once.

use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::cluster::{Cluster, Role};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, RabbitOptions, Redis};
use serde_json::json;

/// RabbitMQ closes the channel of a consumer that has not acknowledged for this time.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(3);

/// The duration of a subtask.
const WORK: Duration = Duration::from_secs(8);

/// What RabbitMQ logs when the timeout is over; the following words differ between 3 and 4.
const TIMED_OUT: &str = "has timed out waiting for";

/// Runs two long subtasks with workers that acknowledge after this time; returns whether RabbitMQ
/// logged a timeout.
fn runs_once(rabbit: &Rabbit, ack_after: &str) -> bool {
    let before = rabbit.log_text().matches(TIMED_OUT).count();
    let mut cluster = Cluster::on(rabbit, Redis::shared());
    cluster.set("LONGSHORE_ACK_AFTER", ack_after);
    cluster.set("LONGSHORE_SLOTS", "1");
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, 1);
    cluster.add(Role::Server, 1);
    let params = json!({"ms": WORK.as_millis() as u64});
    let job = cluster.submit(MARK, 2, &params, &json!({"chunk": 1}));
    cluster.await_end(job);
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    let starts: Vec<u32> = history.starts().into_values().collect();
    assert_eq!(starts, [1, 1], "each ran once");
    rabbit.log_text().matches(TIMED_OUT).count() > before
}

#[test]
fn a_subtask_that_outlasts_the_consumer_timeout_runs_once() {
    let timeout = CONSUMER_TIMEOUT.as_millis();
    let rabbit = Rabbit::start_with(&RabbitOptions {
        advanced: vec![
            format!("{{consumer_timeout, {timeout}}}"),
            "{channel_tick_interval, 500}".into(),
        ],
        ..RabbitOptions::default()
    });
    assert!(!runs_once(&rabbit, "1s"), "an early acknowledgement prevents the timeout");
    // The proof that it has an effect: without it RabbitMQ closes the channel. Even then the ledger
    // prevents a second attempt.
    assert!(runs_once(&rabbit, "60s"), "RabbitMQ has a consumer timeout");
}
