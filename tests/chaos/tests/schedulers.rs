//! Another scheduler takes over the queues of a killed or frozen one soon, and nothing runs twice.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::cluster::{Cluster, LONG, Member, Role};
use longshore_chaos::history::{WorkerLoss, percentile, percentiles};
use longshore_chaos::tasks::MARK;
use longshore_protocol::SchedulerId;
use longshore_scheduler::owner;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use uuid::Uuid;

const KILLS: usize = 15;

/// The queue of all jobs of this test.
const QUEUE: &str = "default";

const SCHEDULERS: usize = 2;
const WORKERS: usize = 4;

/// How long after the last registration all schedulers agree on the owners of queues.
const AGREED_AFTER: Duration = Duration::from_secs(1);

/// The number of subtasks of a job, and their duration. With two slots for each worker, about a
/// hundred begin in a second. When one job ends, the next is submitted.
const SUBTASKS: u64 = 2_000;
const WORK: Duration = Duration::from_millis(50);

/// A time without a new attempt that a busy machine may cause.
const LULL: Duration = Duration::from_millis(250);

/// How long a queue is watched after the loss of its scheduler, and the time after which attempts
/// must begin again.
const WATCHED: Duration = Duration::from_secs(5);
const GOES_ON: Duration = Duration::from_millis(1_500);

/// The limit of the time from a kill until subtasks begin again. Detection by silence would take
/// three seconds.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// The same for a freeze: the others, which check every second, notice it three seconds after the
/// last registration.
const FROZEN_WITHIN: Duration = Duration::from_millis(4_500);

/// The limit of the time from a kill of all processes until the subtasks of killed workers run
/// again after the restart. It is the time of the restart; without the check of their connections
/// it would be five seconds more.
const BACK_WITHIN: Duration = Duration::from_secs(4);

fn cluster() -> Cluster {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, SCHEDULERS);
    cluster.add(Role::Worker, WORKERS);
    cluster
}

/// Submits a job with small chunks, so that few subtasks are queued ahead of the workers.
fn submit(cluster: &Cluster) -> Uuid {
    cluster.submit(MARK, SUBTASKS, &json!({"ms": WORK.as_millis() as u64}), &json!({"chunk": 1}))
}

/// The position of the scheduler that owns the queue. Waits until all schedulers are registered and
/// subtasks begin.
fn feeder(cluster: &Cluster, job: &mut Uuid) -> usize {
    if cluster.done(*job) >= SUBTASKS / 2 {
        cluster.await_end(*job);
        *job = submit(cluster);
    }
    let key = format!("{}:schedulers", cluster.namespace());
    let is_in = |id: &SchedulerId| cluster.ask_redis(&["ZSCORE", &key, id.as_str()])?.text();
    let mut ids = BTreeMap::new();
    wait_until("all schedulers are registered", LONG, || {
        let schedulers =
            cluster.members.iter().enumerate().filter(|(_, member)| member.role == Role::Scheduler);
        let named =
            schedulers.filter_map(|(place, member)| Some((newest_id(&member.output())?, place)));
        ids = named.filter(|(id, _)| is_in(id).is_some()).collect();
        ids.len() == SCHEDULERS
    });
    let registered = Moment::now();
    wait_until("the queue is fed", LONG, || {
        cluster.history().marks.iter().any(|mark| mark.at.since(registered) >= AGREED_AFTER)
    });
    let schedulers: Vec<SchedulerId> = ids.keys().cloned().collect();
    ids[owner(QUEUE, &schedulers).expect("one of them")]
}

/// The id of the last start of a scheduler, from its log.
fn newest_id(log: &str) -> Option<SchedulerId> {
    let started = log.lines().rfind(|line| line.contains("scheduler started"))?;
    started.split_once("scheduler=")?.1.split(' ').next().map(SchedulerId::new)
}

/// How long the queue stood still after `at`; waits until subtasks begin again.
fn standstill(cluster: &Cluster, at: Moment) -> Duration {
    wait_until("subtasks begin again", LONG, || {
        cluster.history().marks.iter().any(|mark| mark.at.since(at) >= GOES_ON)
    });
    cluster.history().standstill(at, WATCHED, LULL)
}

#[track_caller]
fn check_all_jobs(cluster: &Cluster) {
    let history = cluster.history();
    history.intents.keys().for_each(|job| cluster.await_end(*job));
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    let twice = history.starts().into_values().filter(|count| *count > 1).count() as u64;
    // A chunk has one subtask.
    let lost = twice.saturating_sub(cluster.speculative_chunks(&history));
    assert_eq!(lost, 0, "no worker was lost, so nothing runs twice");
}

#[test]
fn the_queue_of_a_killed_scheduler_continues_within_a_second() {
    let mut cluster = cluster();
    let mut job = submit(&cluster);
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let place = feeder(&cluster, &mut job);
        let at = cluster.members[place].kill().at;
        times.push(standstill(&cluster, at));
        cluster.members[place].restart();
    }
    println!("from the kill of a scheduler until its queue continues: {}", percentiles(&times));
    check_all_jobs(&cluster);
    assert!(percentile(&times, 100) <= KILLED_WITHIN, "{}", percentiles(&times));
}

#[test]
fn work_continues_at_once_after_a_kill_and_restart_of_all_processes() {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, WORKERS);
    let job = submit(&cluster);
    let mut times = Vec::new();
    for round in 1..=3 {
        cluster.await_done(job, round * SUBTASKS / 8);
        let losses: Vec<WorkerLoss> = cluster.members.iter_mut().map(Member::kill).collect();
        cluster.members.iter_mut().for_each(Member::restart);
        wait_until("their subtasks run again", LONG, || {
            cluster.history().recoveries(&losses).iter().all(Option::is_some)
        });
        times.extend(cluster.history().recoveries(&losses).into_iter().flatten());
    }
    println!("from the kill of all processes to re-run: {}", percentiles(&times));
    cluster.await_end(job);
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    assert!(percentile(&times, 100) <= BACK_WITHIN, "{}", percentiles(&times));
}

#[test]
fn the_queue_of_a_frozen_scheduler_continues_within_seconds_and_its_thaw_harms_nothing() {
    let mut cluster = cluster();
    let mut job = submit(&cluster);
    let mut times = Vec::new();
    for _ in 0..2 {
        let place = feeder(&cluster, &mut job);
        let at = cluster.members[place].freeze().at;
        times.push(standstill(&cluster, at));
        cluster.members[place].thaw();
    }
    println!("from the freeze of a scheduler until its queue continues: {}", percentiles(&times));
    check_all_jobs(&cluster);
    assert!(percentile(&times, 100) <= FROZEN_WITHIN, "{}", percentiles(&times));
}
