//! Redis away for a while, then RabbitMQ: nobody exits, spins or chatters, and work goes on soon after.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_alive, check_jobs, check_log};
use longshore_chaos::clock::Moment;
use longshore_chaos::crew::{Crew, LONG, Member, Role};
use longshore_chaos::inquest::Course;
use longshore_chaos::marks::What;
use longshore_chaos::tasks::MARK;
use longshore_chaos::vitals::Vitals;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;

/// How soon work goes on after the return.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// The part of a core that a process may use while there is nothing that it could do, per cent. One that spins uses 100.
const BUSY_PERCENT: u32 = 20;

/// How long an outage lasts: longer than `dead_after`. In a long run it is half a minute.
fn outage() -> Duration {
    let is_long = Course::from_env(Duration::ZERO).is_long;
    Duration::from_secs(if is_long { 30 } else { 8 })
}

/// What a process had used and printed at some moment.
struct Before {
    vitals: Vitals,
    printed: usize,
}

fn look(crew: &Crew) -> Vec<Before> {
    let look = |member: &Member| Before { vitals: member.vitals(), printed: member.output().len() };
    crew.members.iter().map(look).collect()
}

/// Looks at everybody after an outage, and says how long it took until work went on.
#[track_caller]
fn judge(crew: &Crew, before: &[Before], name: &str, cpu: &[Duration], back: Moment) {
    let mut violations = Vec::new();
    let mut first = Duration::MAX;
    wait_until("work goes on", LONG, || {
        let marks = crew.history().marks;
        let after = marks.iter().filter(|mark| mark.what == What::Start && mark.at > back);
        first = after.map(|mark| mark.at.since(back)).min().unwrap_or(Duration::MAX);
        first < Duration::MAX
    });
    let busy = cpu.iter().max().copied().unwrap_or_default();
    println!("{name} away: work went on {first:?} after its return; the busiest used {busy:?}");
    for (member, before) in crew.members.iter().zip(before) {
        let output = member.output();
        // It goes, it comes back.
        violations.extend(check_log(&member.name, &output[before.printed..], 2));
        violations.extend(check_alive(&member.name, member.is_running(), &output));
    }
    assert_eq!(violations, Vec::<Violation>::new(), "{violations:#?}");
    assert!(first <= BACK_WITHIN, "after {name} came back it took {first:?}");
    let most = outage() * BUSY_PERCENT / 100;
    assert!(busy <= most, "while {name} was away somebody used {busy:?} of {:?}", outage());
}

/// Lets the outage last, and gives what each member used meanwhile.
fn sit_out(crew: &Crew) -> Vec<Duration> {
    let before = look(crew);
    sleep(outage());
    let used = |(member, before): (&Member, &Before)| {
        member.vitals().cpu.saturating_sub(before.vitals.cpu)
    };
    crew.members.iter().zip(&before).map(used).collect()
}

#[test]
fn while_a_server_is_away_nobody_exits_spins_or_chatters() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut crew = Crew::on(&rabbit, &redis);
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 2);
    crew.hire(Role::Worker, 2);
    crew.hire(Role::Server, 2);
    let job = crew.submit(MARK, 3_000, &json!({"ms": 20}), &json!({}));
    crew.await_done(job, 100);

    let before = look(&crew);
    redis.kill9();
    let cpu = sit_out(&crew);
    redis.restart();
    judge(&crew, &before, "Redis", &cpu, Moment::now());

    let done = crew.done(job);
    crew.await_done(job, done + 100);
    let before = look(&crew);
    rabbit.kill9();
    let cpu = sit_out(&crew);
    rabbit.restart();
    judge(&crew, &before, "RabbitMQ", &cpu, Moment::now());

    crew.await_end(job);
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
}

/// In the outages below workers are dead after this time.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// What is done to a server, and undone.
type Outage = (&'static str, fn(&mut Rabbit, &mut Redis), fn(&mut Rabbit, &mut Redis));

/// Subtasks that last through each of these outages, twice.
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
fn what_runs_while_a_server_is_away_begins_once() {
    let (mut rabbit, mut redis) = (Rabbit::start(), Redis::start());
    let mut crew = Crew::on(&rabbit, &redis);
    let dead_after = format!("{}s", DEAD_AFTER.as_secs());
    crew.set("LONGSHORE_DEAD_AFTER", &dead_after);
    crew.set("LONGSHORE_HEARTBEAT", "500ms");
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 2);
    // One slot more than subtasks: somebody has time for copies.
    crew.hire(Role::Worker, 3);
    crew.hire(Role::Server, 1);
    for (name, begin, end) in OUTAGES {
        // A few short ones say how long a subtask usually takes.
        let (total, ms) = (5, 6 * DEAD_AFTER.as_millis() as u64);
        let job = crew.submit(MARK, total, &json!({"ms": ms}), &json!({"chunk": 1}));
        let starts = || {
            let starts = crew.history().starts().into_iter();
            starts.filter(|((of, _), _)| *of == job).collect::<Vec<_>>()
        };
        wait_until("they run", LONG, || starts().len() as u64 == total);
        for _ in 0..2 {
            begin(&mut rabbit, &mut redis);
            sleep(DEAD_AFTER * 2);
            end(&mut rabbit, &mut redis);
            sleep(DEAD_AFTER / 4);
        }
        crew.await_end(job);
        let twice: Vec<_> = starts().into_iter().filter(|(_, count)| *count > 1).collect();
        assert!(twice.is_empty(), "{name}: {twice:?}");
    }
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
}
