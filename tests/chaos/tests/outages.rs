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

/// How long an outage lasts: longer than `dead_after`, so that workers stop what they run. In a long run it is half a minute.
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
