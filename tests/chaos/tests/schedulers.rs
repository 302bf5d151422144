//! A scheduler that is killed or frozen: what it fed is fed by another, soon, and nothing runs twice for it.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::crew::{Crew, LONG, Member, Role};
use longshore_chaos::history::{LossCause, percentile, percentiles};
use longshore_chaos::tasks::MARK;
use longshore_protocol::SchedulerId;
use longshore_scheduler::owner;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use uuid::Uuid;

const KILLS: usize = 15;

/// The queue that all of it is about.
const QUEUE: &str = "default";

const SCHEDULERS: usize = 2;
const WORKERS: usize = 4;

/// So long after the last of them signed in they have heard of each other, and agree on who feeds what.
const AGREED_AFTER: Duration = Duration::from_secs(1);

/// How many subtasks a job has; there is always one more job. And how long one of them works: with two slots a worker some
/// hundred of them begin in a second.
const SUBTASKS: u64 = 2_000;
const WORK: Duration = Duration::from_millis(50);

/// A time without a beginning that a busy machine explains.
const LULL: Duration = Duration::from_millis(250);

/// How long a queue is watched after its scheduler is gone; and it has to go on for longer than this before that is over.
const WATCHED: Duration = Duration::from_secs(5);
const GOES_ON: Duration = Duration::from_millis(1_500);

/// From the kill until subtasks begin again, every time. Silence would tell after three seconds.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// A scheduler that is frozen is missed three seconds after it last signed in, by those that look every second.
const FROZEN_WITHIN: Duration = Duration::from_millis(4_500);

/// What workers held that were killed together with the only scheduler, once all are started again. It takes as long as they take
/// to start; without a look at their hearts it would be five seconds more.
const BACK_WITHIN: Duration = Duration::from_secs(4);

fn crew() -> Crew {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, SCHEDULERS);
    crew.hire(Role::Worker, WORKERS);
    crew
}

/// Some work, in chunks so small that little of it waits ahead of the workers.
fn submit(crew: &Crew) -> Uuid {
    crew.submit(MARK, SUBTASKS, &json!({"ms": WORK.as_millis() as u64}), &json!({"chunk": 1}))
}

/// Which scheduler feeds the queue, by its place in the crew; once all are signed in and the queue is fed.
fn feeder(crew: &Crew, job: &mut Uuid) -> usize {
    if crew.done(*job) >= SUBTASKS / 2 {
        crew.await_end(*job);
        *job = submit(crew);
    }
    let key = format!("{}:schedulers", crew.namespace());
    let is_in = |id: &SchedulerId| crew.ask_redis(&["ZSCORE", &key, id.as_str()])?.text();
    let mut ids = BTreeMap::new();
    wait_until("all schedulers are signed in", LONG, || {
        let schedulers =
            crew.members.iter().enumerate().filter(|(_, it)| it.role == Role::Scheduler);
        let named = schedulers.filter_map(|(place, it)| Some((newest_id(&it.output())?, place)));
        ids = named.filter(|(id, _)| is_in(id).is_some()).collect();
        ids.len() == SCHEDULERS
    });
    let signed_in = Moment::now();
    wait_until("the queue is fed", LONG, || {
        crew.history().marks.iter().any(|mark| mark.at.since(signed_in) >= AGREED_AFTER)
    });
    let schedulers: Vec<SchedulerId> = ids.keys().cloned().collect();
    ids[owner(QUEUE, &schedulers).expect("one of them")]
}

/// The name under which a scheduler last started, from its log.
fn newest_id(log: &str) -> Option<SchedulerId> {
    let started = log.lines().rfind(|line| line.contains("scheduler started"))?;
    started.split_once("scheduler=")?.1.split(' ').next().map(SchedulerId::new)
}

/// How long the queue stood still after `at`, once it goes on.
fn standstill(crew: &Crew, at: Moment) -> Duration {
    wait_until("subtasks begin again", LONG, || {
        crew.history().marks.iter().any(|mark| mark.at.since(at) >= GOES_ON)
    });
    crew.history().standstill(at, WATCHED, LULL)
}

#[track_caller]
fn all_is_well(crew: &Crew) {
    let history = crew.history();
    history.intents.keys().for_each(|job| crew.await_end(*job));
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    let twice = history.starts().into_values().filter(|count| *count > 1).count() as u64;
    // Chunks are of one subtask.
    let lost = twice.saturating_sub(crew.copies(&history));
    assert_eq!(lost, 0, "no worker was lost, so nothing ran twice");
}

#[test]
fn a_killed_scheduler_s_queue_goes_on_within_a_second() {
    let mut crew = crew();
    let mut job = submit(&crew);
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let place = feeder(&crew, &mut job);
        let at = crew.members[place].kill().at;
        times.push(standstill(&crew, at));
        crew.members[place].start_again();
    }
    println!("from the kill of a scheduler until its queue goes on: {}", percentiles(&times));
    all_is_well(&crew);
    assert!(percentile(&times, 100) <= KILLED_WITHIN, "{}", percentiles(&times));
}

#[test]
fn when_everybody_is_killed_and_comes_back_work_goes_on_at_once() {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.set("LONGSHORE_SLOTS", "2");
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, WORKERS);
    let job = submit(&crew);
    let mut times = Vec::new();
    for round in 1..=3 {
        crew.await_done(job, round * SUBTASKS / 8);
        let losses: Vec<LossCause> = crew.members.iter_mut().map(Member::kill).collect();
        crew.members.iter_mut().for_each(Member::start_again);
        wait_until("what they held runs again", LONG, || {
            crew.history().recoveries(&losses).iter().all(Option::is_some)
        });
        times.extend(crew.history().recoveries(&losses).into_iter().flatten());
    }
    println!("from the kill of everybody to re-run: {}", percentiles(&times));
    crew.await_end(job);
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    assert!(percentile(&times, 100) <= BACK_WITHIN, "{}", percentiles(&times));
}

#[test]
fn a_frozen_scheduler_s_queue_goes_on_within_seconds_and_its_thaw_harms_nothing() {
    let mut crew = crew();
    let mut job = submit(&crew);
    let mut times = Vec::new();
    for _ in 0..2 {
        let place = feeder(&crew, &mut job);
        let at = crew.members[place].freeze().at;
        times.push(standstill(&crew, at));
        crew.members[place].thaw();
    }
    println!("from the freeze of a scheduler until its queue goes on: {}", percentiles(&times));
    all_is_well(&crew);
    assert!(percentile(&times, 100) <= FROZEN_WITHIN, "{}", percentiles(&times));
}
