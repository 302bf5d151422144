//! Workers that fall silent without dying: frozen, cut off, asked to leave, parted from RabbitMQ alone.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::crew::{Crew, LONG, Member, Role};
use longshore_chaos::history::{LossCause, percentile, percentiles};
use longshore_chaos::link::Weather;
use longshore_chaos::marks::What;
use longshore_chaos::tasks::{MARK, SIGNED};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

/// The default.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// A quarter of the workers is silenced together: fewer than make a crowd that gets more time.
const WORKERS: usize = 16;
const SILENCED: usize = 4;
const ROUNDS: usize = 3;

fn crew(workers: usize) -> Crew {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.set("LONGSHORE_SLOTS", "1");
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, workers);
    crew
}

/// Subtasks one by one, on fewer slots than there are.
fn one_by_one(most: usize) -> Value {
    json!({"chunk": 1, "max_parallel": most})
}

#[track_caller]
pub(crate) fn all_is_well(crew: &Crew) {
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
}

#[track_caller]
pub(crate) fn nothing_ran_twice(crew: &Crew, job: Uuid, total: u64) {
    let starts = crew.history().starts();
    let twice: Vec<_> = starts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(starts.len() as u64, total, "{job}");
}

type Silence = fn(&mut Member) -> LossCause;

#[test]
fn a_frozen_or_cut_off_worker_s_subtasks_run_elsewhere_within_dead_after_and_a_second() {
    let mut crew = crew(WORKERS);
    // Long enough that an attempt is still under way when its worker is declared dead.
    let ms = DEAD_AFTER.as_millis() as u64 * 3 / 2;
    // What those held that are silenced, and what they fetched, finds free slots.
    let most = WORKERS - 2 * SILENCED;
    let total = (ROUNDS + 2) * most;
    let job = crew.submit(MARK, total as u64, &json!({"ms": ms}), &one_by_one(most));
    let silences: [(&str, Silence); 2] =
        [("frozen", |member| member.freeze()), ("cut off", |member| member.cut_off())];
    let (mut times, mut cut_short) = (Vec::new(), BTreeSet::new());
    for (name, silence) in silences.into_iter().cycle().take(ROUNDS) {
        let losses = silence_some(&mut crew, silence, &mut cut_short);
        wait_until("what they held runs elsewhere", LONG, || {
            crew.history().recoveries(&losses).iter().all(Option::is_some)
        });
        let found: Vec<Duration> =
            crew.history().recoveries(&losses).into_iter().flatten().collect();
        println!("from {name} to re-run: {}", percentiles(&found));
        times.extend(found);
        for member in &mut crew.members {
            member.thaw();
            member.mend();
        }
    }
    println!("from silence to re-run: {}", percentiles(&times));
    crew.await_end(job);
    all_is_well(&crew);
    assert!(times.len() >= ROUNDS * SILENCED, "{} attempts were cut short", times.len());
    let within = DEAD_AFTER + Duration::from_secs(1);
    assert!(percentile(&times, 100) <= within, "{}", percentiles(&times));
}

/// Silences some workers in the middle of attempts that have time left, at subtasks that no silence has hit before: who is there
/// too often when workers are lost is taken for the cause.
fn silence_some(
    crew: &mut Crew,
    silence: Silence,
    cut_short: &mut BTreeSet<(Uuid, u64)>,
) -> Vec<LossCause> {
    let mut losses: Vec<LossCause> = Vec::new();
    wait_until("enough workers are busy", LONG, || {
        let history = crew.history();
        let at = Moment::now();
        for member in crew.members.iter_mut().filter(|member| member.role == Role::Worker) {
            let worker = member.pid();
            let running = history.cut_short(LossCause { worker, at, for_good: false });
            let is_new = losses.iter().all(|loss| loss.worker != worker);
            let is_young = running.iter().all(|mark| at.since(mark.at) < Duration::from_secs(2));
            let is_fresh = running.iter().all(|mark| !cut_short.contains(&(mark.job, mark.index)));
            let fits = is_new && is_young && is_fresh && !running.is_empty();
            if fits && losses.len() < SILENCED {
                losses.push(silence(member));
                cut_short.extend(running.iter().map(|mark| (mark.job, mark.index)));
            }
        }
        losses.len() == SILENCED
    });
    losses
}

#[test]
fn what_a_cut_off_worker_writes_late_is_no_result() {
    let mut crew = crew(2);
    let folder = tempfile::tempdir().expect("room for it");
    let results = format!("file://{}", folder.path().display());
    let job = crew.submit(SIGNED, 1, &json!({"ms": 800}), &json!({"results": results}));
    wait_until("it runs", LONG, || !crew.history().marks.is_empty());
    let worker = crew.history().marks[0].worker;
    let slow = crew
        .members
        .iter()
        .position(|member| member.role == Role::Worker && member.pid() == worker);
    let slow = slow.expect("a worker of the crew");
    // It can't ask the ledger, and it is not frozen: it ends its subtask, and writes if nobody stops it.
    let link = crew.members[slow].redis.as_ref().expect("there are links");
    link.reset();
    link.set(Weather::CUT);
    crew.await_end(job);
    let told = || crew.longshore(&["results", &job.to_string()]).stdout;
    let before = told();
    wait_until("the slow one ends its subtask", LONG, || {
        let marks = crew.history().marks;
        marks.iter().any(|mark| mark.worker == worker && mark.what == What::End)
    });
    crew.members[slow].mend();
    crew.members[slow].ask_to_leave();
    wait_until("it has left", LONG, || !crew.members[slow].is_running());
    let after = crew.longshore(&["results", &job.to_string()]).stdout;
    assert_eq!(after, before, "the job's result was replaced after its end");
    all_is_well(&crew);
}

#[test]
fn a_clean_stop_runs_nothing_twice() {
    let mut crew = crew(3);
    let job = crew.submit(MARK, 300, &json!({"ms": 30}), &json!({}));
    crew.await_done(job, 20);
    for number in 1..=2 {
        crew.members[number].ask_to_leave();
        wait_until("it has left", LONG, || !crew.members[number].is_running());
    }
    crew.await_end(job);
    all_is_well(&crew);
    nothing_ran_twice(&crew, job, 300);
}

#[test]
fn a_broken_link_to_rabbitmq_alone_runs_nothing_twice() {
    let crew = crew(4);
    // There are idle workers, to which RabbitMQ gives at once what it takes back from a broken connection.
    let job = crew.submit(MARK, 40, &json!({"ms": 600}), &one_by_one(2));
    crew.await_done(job, 1);
    // The first worker hears nothing for three fifths of `dead_after`; the others' connections break all the while.
    crew.members[1].rabbit.set(Weather::CUT);
    for number in [2, 3, 4].into_iter().cycle().take(15) {
        crew.members[number].rabbit.reset();
        sleep(DEAD_AFTER / 25);
    }
    crew.members[1].mend();
    crew.await_end(job);
    all_is_well(&crew);
    nothing_ran_twice(&crew, job, 40);
}
