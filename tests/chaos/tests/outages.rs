//! Outages of Redis and RabbitMQ: no process exits, spins or logs much, and work continues soon.
//!
//! Subtasks that run meanwhile begin once.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_alive, check_jobs, check_log};
use longshore_chaos::clock::Moment;
use longshore_chaos::cluster::{Cluster, LONG, Member, Role};
use longshore_chaos::marks::What;
use longshore_chaos::process_stats::ProcessStats;
use longshore_chaos::report::RunConfig;
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;

/// How soon after an outage work must continue.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// The share of a core that an idle process may use during an outage, in per cent. A busy loop uses
/// 100.
const BUSY_PERCENT: u32 = 20;

/// The duration of an outage: longer than `dead_after`, and half a minute in a long run.
fn outage() -> Duration {
    let is_long = RunConfig::from_env(Duration::ZERO).is_long;
    Duration::from_secs(if is_long { 30 } else { 8 })
}

/// The resources and the output of a process before an outage.
struct Before {
    stats: ProcessStats,
    printed: usize,
}

fn measure(cluster: &Cluster) -> Vec<Before> {
    let measure =
        |member: &Member| Before { stats: member.stats(), printed: member.output().len() };
    cluster.members.iter().map(measure).collect()
}

/// Checks all members after an outage, and prints how long it took until work continued.
#[track_caller]
fn check(cluster: &Cluster, before: &[Before], name: &str, cpu: &[Duration], back: Moment) {
    let mut violations = Vec::new();
    let mut first = Duration::MAX;
    wait_until("work continues", LONG, || {
        let marks = cluster.history().marks;
        let after = marks.iter().filter(|mark| mark.what == What::Start && mark.at > back);
        first = after.map(|mark| mark.at.since(back)).min().unwrap_or(Duration::MAX);
        first < Duration::MAX
    });
    let busy = cpu.iter().max().copied().unwrap_or_default();
    println!(
        "{name} away: work continued {first:?} after its return; the busiest process used {busy:?} of CPU"
    );
    for (member, before) in cluster.members.iter().zip(before) {
        let output = member.output();
        // Two changes: the server is lost, and it is back.
        violations.extend(check_log(&member.name, &output[before.printed..], 2));
        violations.extend(check_alive(&member.name, member.is_running(), &output));
    }
    assert_eq!(violations, Vec::<Violation>::new(), "{violations:#?}");
    assert!(first <= BACK_WITHIN, "after {name} came back it took {first:?}");
    let most = outage() * BUSY_PERCENT / 100;
    assert!(busy <= most, "while {name} was away a process used {busy:?} of {:?}", outage());
}

/// Waits for the duration of an outage; returns the CPU time of each member meanwhile.
fn wait_through(cluster: &Cluster) -> Vec<Duration> {
    let before = measure(cluster);
    sleep(outage());
    let used =
        |(member, before): (&Member, &Before)| member.stats().cpu.saturating_sub(before.stats.cpu);
    cluster.members.iter().zip(&before).map(used).collect()
}

#[test]
fn during_an_outage_no_process_exits_spins_or_floods_its_log() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut cluster = Cluster::on(&rabbit, &redis);
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 2);
    cluster.add(Role::Worker, 2);
    cluster.add(Role::Server, 2);
    let job = cluster.submit(MARK, 3_000, &json!({"ms": 20}), &json!({}));
    cluster.await_done(job, 100);

    let before = measure(&cluster);
    redis.kill9();
    let cpu = wait_through(&cluster);
    redis.restart();
    check(&cluster, &before, "Redis", &cpu, Moment::now());

    let done = cluster.done(job);
    cluster.await_done(job, done + 100);
    let before = measure(&cluster);
    rabbit.kill9();
    let cpu = wait_through(&cluster);
    rabbit.restart();
    check(&cluster, &before, "RabbitMQ", &cpu, Moment::now());

    cluster.await_end(job);
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
}

/// `dead_after` in the test of the outages below.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// An outage: its name, how it begins, how it ends.
type Outage = (&'static str, fn(&mut Rabbit, &mut Redis), fn(&mut Rabbit, &mut Redis));

/// Running subtasks last through each of these outages, twice.
const OUTAGES: [Outage; 4] = [
    ("Redis is killed", |_, redis| redis.kill9(), |_, redis| redis.restart()),
    ("Redis is full", |_, redis| limit_memory(redis, "1"), |_, redis| limit_memory(redis, "0")),
    (
        "Redis is a replica",
        |_, redis| drop(redis.call(&["REPLICAOF", "127.0.0.1", "1"])),
        |_, redis| drop(redis.call(&["REPLICAOF", "NO", "ONE"])),
    ),
    ("RabbitMQ is killed", |rabbit, _| rabbit.kill9(), |rabbit, _| rabbit.restart()),
];

fn limit_memory(redis: &Redis, most: &str) {
    redis.call(&["CONFIG", "SET", "maxmemory", most]);
}

#[test]
fn subtasks_that_run_during_an_outage_begin_once() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut cluster = Cluster::on(&rabbit, &redis);
    let dead_after = format!("{}s", DEAD_AFTER.as_secs());
    cluster.set("LONGSHORE_DEAD_AFTER", &dead_after);
    cluster.set("LONGSHORE_HEARTBEAT", "500ms");
    cluster.set("LONGSHORE_SLOTS", "2");
    cluster.add(Role::Scheduler, 2);
    // One slot more than subtasks, which could run one speculatively.
    cluster.add(Role::Worker, 3);
    cluster.add(Role::Server, 1);
    for (name, begin, end) in OUTAGES {
        let (total, ms) = (5, 6 * DEAD_AFTER.as_millis() as u64);
        let job = cluster.submit(MARK, total, &json!({"ms": ms}), &json!({"chunk": 1}));
        let starts = || {
            let starts = cluster.history().starts().into_iter();
            starts.filter(|((of, _), _)| *of == job).collect::<Vec<_>>()
        };
        wait_until("they run", LONG, || starts().len() as u64 == total);
        for _ in 0..2 {
            begin(&mut rabbit, &mut redis);
            sleep(DEAD_AFTER * 2);
            end(&mut rabbit, &mut redis);
            sleep(DEAD_AFTER / 4);
        }
        cluster.await_end(job);
        let twice: Vec<_> = starts().into_iter().filter(|(_, count)| *count > 1).collect();
        assert!(twice.is_empty(), "{name}: {twice:?}");
    }
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
}
