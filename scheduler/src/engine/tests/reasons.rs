//! Which reasons the engine publishes for jobs that wait, and what that costs.

use longshore_ledger::{BlockedParams, Ledger as _};
use longshore_protocol::{BlockedScope, JobId, ReasonCode};

use super::super::Event;
use super::world::{World, at_once};
use super::{ENDLESS, ends};

/// What is published about the job itself, or else about the workers that can run it.
fn published(world: &World, job: JobId) -> Option<ReasonCode> {
    let summary = world.summary(job);
    let scopes =
        [BlockedScope::Job(job), BlockedScope::Task(summary.task), BlockedScope::Queue].to_vec();
    let blocked = at_once(world.ledger.blocked(&BlockedParams::new(summary.queue, scopes)));
    blocked.unwrap().into_iter().flatten().next().map(|blocked| blocked.reason)
}

#[track_caller]
fn says(world: &mut World, job: JobId, expected: ReasonCode) {
    world.run_for(2_000);
    assert_eq!(published(world, job), Some(expected));
}

#[test]
fn a_job_waits_for_slots_and_the_ledger_is_told_once() {
    let mut world = World::new(1, 2);
    let job = world.submit(ENDLESS, 10_000, "");
    says(&mut world, job, ReasonCode::SlotsBusy);
    world.run_for(30_000);
    assert_eq!(world.reports, 1);
}

#[test]
fn a_job_is_blocked_by_its_max_parallel_though_slots_are_free() {
    let mut world = World::new(2, 4);
    let job = world.submit(ENDLESS, 20_000, r#","max_parallel":1,"chunk":1"#);
    says(&mut world, job, ReasonCode::MaxParallel);
    world.run_for(30_000);
    assert_eq!((published(&world, job), world.reports), (Some(ReasonCode::MaxParallel), 1));
}

#[test]
fn a_paused_job_says_so_until_it_is_resumed() {
    let mut world = World::new(1, 2);
    let job = world.submit(300, 20_000, r#","chunk":1"#);
    world.run_for(500);
    at_once(world.ledger.pause(job)).unwrap();
    says(&mut world, job, ReasonCode::Paused);
    at_once(world.ledger.resume(job)).unwrap();
    world.run_for(2_000);
    assert_ne!(published(&world, job), Some(ReasonCode::Paused));
}

#[test]
fn a_job_without_workers_or_without_the_task_says_which() {
    let mut world = World::new(1, 2);
    world.give_tasks(0, &["other"]);
    world.run_for(100);
    let job = world.submit(10, 1_000, "");
    says(&mut world, job, ReasonCode::NoWorkerForTask);
    world.kill(0);
    world.run_for(6_000);
    says(&mut world, job, ReasonCode::NoWorkerForQueue);
}

#[test]
fn what_waits_for_its_next_attempt_says_so() {
    let mut world = World::new(1, 2);
    world.run_for(100);
    world.make_hole(0, true);
    world.retry_after_ms = 20_000;
    let job = world.submit(2, 1_000, "");
    says(&mut world, job, ReasonCode::Backoff);
}

#[test]
fn while_the_broker_is_away_jobs_say_so() {
    let mut world = World::new(1, 2);
    let job = world.submit(ENDLESS, 10_000, "");
    says(&mut world, job, ReasonCode::SlotsBusy);
    world.step(Event::Link { up: false });
    world.run_for(2_000);
    says(&mut world, job, ReasonCode::BrokerBlocked);
    world.step(Event::Link { up: true });
    world.run_for(2_000);
    says(&mut world, job, ReasonCode::SlotsBusy);
}

#[test]
fn short_jobs_cost_no_report_and_ended_ones_leave_none_behind() {
    let mut world = World::new(2, 2);
    world.run_for(100);
    for _ in 0..50 {
        let job = world.submit(8, 1_000, "");
        ends(&mut world, 1_000, job);
    }
    assert_eq!(world.reports, 0);
    let job = world.submit(400, 20_000, "");
    says(&mut world, job, ReasonCode::SlotsBusy);
    ends(&mut world, 10_000, job);
    world.run_for(2_000);
    assert_eq!(published(&world, job), None);
}
