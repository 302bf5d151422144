//! One big job of short subtasks with a process fault every second and service faults.

use std::time::Duration;

use longshore_chaos::cluster::Role;
use longshore_chaos::nemesis::{Deck, ServiceFault, service_faults};
use longshore_chaos::report::RunConfig;
use longshore_chaos::tasks::MARK;
use serde_json::json;

use crate::NemesisRun;

const SLOTS: u32 = 8;

#[test]
fn a_big_job_is_done_under_process_faults_and_two_wipes_of_rabbitmq() {
    // A short run has time for little more than the two wipes, each of which takes at least ten
    // seconds on a loaded machine.
    let seen = run(Duration::from_secs(35), &[ServiceFault::RabbitWipe; 2], service_faults());
    assert!(seen("RabbitWipe") >= 2, "RabbitMQ was wiped {} times", seen("RabbitWipe"));
}

#[test]
fn a_big_job_is_done_under_process_faults_and_a_loss_of_all_data_of_redis() {
    let mut rest = service_faults();
    rest.retain(|fault| !matches!(fault, ServiceFault::RabbitWipe));
    let seen = run(Duration::from_secs(10), &[ServiceFault::Flushall], rest);
    assert_eq!(seen("Flushall"), 1);
}

/// Runs a big job under these service faults, `first` and `then`; returns a count of each by name.
fn run(least: Duration, first: &[ServiceFault], then: Vec<ServiceFault>) -> impl Fn(&str) -> usize {
    let config = RunConfig::from_env(least);
    let total = if config.is_long { 1_000_000 } else { 50_000 };
    let mut run = NemesisRun::start(config, SLOTS, [Role::Worker; 4]);
    // The job lasts about as long as the faults, or twice as long in a short run, in which the
    // faults may begin late. A short sleep takes a millisecond longer.
    let lasts = if config.is_long { config.length } else { 2 * config.length };
    let ms = (lasts * 4 * SLOTS / total).as_millis().saturating_sub(1).max(1) as u64;
    let job = run.cluster.submit(MARK, total.into(), &json!({"ms": ms}), &json!({}));
    run.cluster.await_done(job, 100);
    let before = run.baseline();
    let deck = Deck::new(then, config.seed).after(first);
    let begun = run.cluster.done(job);
    let faults = run.break_during(deck, |_, _| {});
    let done = run.cluster.done(job);
    println!("done: {begun} before the faults, {done} of {total} after them");
    run.check(&before);
    move |name| faults.lines.iter().filter(|line| line.contains(name)).count()
}
