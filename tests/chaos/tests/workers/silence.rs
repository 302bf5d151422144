//! The subtasks of silent workers run elsewhere in time, and no late result counts.
//!
//! The workers have not died: they are frozen, cut off, stopped cleanly, or disconnected from
//! RabbitMQ only.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::cluster::{Cluster, LONG, Member, Role};
use longshore_chaos::history::{WorkerLoss, percentile, percentiles};
use longshore_chaos::link::LinkState;
use longshore_chaos::marks::What;
use longshore_chaos::tasks::{MARK, SIGNED};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

/// The default of `dead_after`.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// A quarter of the workers is silenced together: too few to count as a mass loss, which is given
/// more time.
const WORKERS: usize = 16;
const SILENCED: usize = 4;
const ROUNDS: usize = 3;

fn cluster(workers: usize) -> Cluster {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.set("LONGSHORE_SLOTS", "1");
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, workers);
    cluster
}

/// A job with chunks of one subtask, which uses at most this number of slots.
fn one_by_one(most: usize) -> Value {
    json!({"chunk": 1, "max_parallel": most})
}

#[track_caller]
pub(crate) fn check_all_jobs(cluster: &Cluster) {
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
}

#[track_caller]
pub(crate) fn nothing_ran_twice(cluster: &Cluster, job: Uuid, total: u64) {
    let starts = cluster.history().starts();
    let twice: Vec<_> = starts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(starts.len() as u64, total, "{job}");
}

type Silence = fn(&mut Member) -> WorkerLoss;

#[test]
fn subtasks_of_a_frozen_or_cut_off_worker_run_elsewhere_within_dead_after_and_a_second() {
    let mut cluster = cluster(WORKERS);
    // Long enough that an attempt is still running when its worker is declared dead.
    let ms = DEAD_AFTER.as_millis() as u64 * 3 / 2;
    // The running and the prefetched subtasks of silenced workers find free slots.
    let most = WORKERS - 2 * SILENCED;
    let total = (ROUNDS + 2) * most;
    let job = cluster.submit(MARK, total as u64, &json!({"ms": ms}), &one_by_one(most));
    let silences: [(&str, Silence); 2] =
        [("frozen", |member| member.freeze()), ("cut off", |member| member.cut_off())];
    let (mut times, mut interrupted) = (Vec::new(), BTreeSet::new());
    for (name, silence) in silences.into_iter().cycle().take(ROUNDS) {
        let losses = silence_some(&mut cluster, silence, &mut interrupted);
        wait_until("their subtasks run elsewhere", LONG, || {
            cluster.history().recoveries(&losses).iter().all(Option::is_some)
        });
        let found: Vec<Duration> =
            cluster.history().recoveries(&losses).into_iter().flatten().collect();
        println!("from {name} to re-run: {}", percentiles(&found));
        times.extend(found);
        for member in &mut cluster.members {
            member.thaw();
            member.open_links();
        }
    }
    println!("from silence to re-run: {}", percentiles(&times));
    cluster.await_end(job);
    check_all_jobs(&cluster);
    assert!(times.len() >= ROUNDS * SILENCED, "{} attempts were interrupted", times.len());
    let within = DEAD_AFTER + Duration::from_secs(1);
    assert!(percentile(&times, 100) <= within, "{}", percentiles(&times));
}

/// Silences some workers during attempts that last longer, at subtasks that no silence has
/// interrupted before: a subtask that loses several workers counts as poison.
fn silence_some(
    cluster: &mut Cluster,
    silence: Silence,
    interrupted: &mut BTreeSet<(Uuid, u64)>,
) -> Vec<WorkerLoss> {
    let mut losses: Vec<WorkerLoss> = Vec::new();
    wait_until("enough workers are busy", LONG, || {
        let history = cluster.history();
        let at = Moment::now();
        for member in cluster.members.iter_mut().filter(|member| member.role == Role::Worker) {
            let worker = member.pid();
            let running = history.interrupted(WorkerLoss { worker, at, for_good: false });
            let is_new = losses.iter().all(|loss| loss.worker != worker);
            let is_young = running.iter().all(|mark| at.since(mark.at) < Duration::from_secs(2));
            let is_fresh =
                running.iter().all(|mark| !interrupted.contains(&(mark.job, mark.index)));
            let fits = is_new && is_young && is_fresh && !running.is_empty();
            if fits && losses.len() < SILENCED {
                losses.push(silence(member));
                interrupted.extend(running.iter().map(|mark| (mark.job, mark.index)));
            }
        }
        losses.len() == SILENCED
    });
    losses
}

#[test]
fn results_that_a_cut_off_worker_writes_late_do_not_count() {
    let mut cluster = cluster(2);
    let folder = tempfile::tempdir().expect("room for it");
    let results = format!("file://{}", folder.path().display());
    let job = cluster.submit(SIGNED, 1, &json!({"ms": 800}), &json!({"results": results}));
    wait_until("it runs", LONG, || !cluster.history().marks.is_empty());
    let worker = cluster.history().marks[0].worker;
    let slow = cluster
        .members
        .iter()
        .position(|member| member.role == Role::Worker && member.pid() == worker);
    let slow = slow.expect("a worker of the cluster");
    // It can't reach the ledger, and it is not frozen: it ends its subtask, and could write its
    // result.
    let link = cluster.members[slow].redis.as_ref().expect("there are links");
    link.reset();
    link.set(LinkState::CUT);
    cluster.await_end(job);
    let results = || cluster.longshore(&["results", &job.to_string()]).stdout;
    let before = results();
    wait_until("the slow worker ends its subtask", LONG, || {
        let marks = cluster.history().marks;
        marks.iter().any(|mark| mark.worker == worker && mark.what == What::End)
    });
    cluster.members[slow].open_links();
    cluster.members[slow].terminate();
    wait_until("it has left", LONG, || !cluster.members[slow].is_running());
    let after = cluster.longshore(&["results", &job.to_string()]).stdout;
    assert_eq!(after, before, "the job's result was replaced after its end");
    check_all_jobs(&cluster);
}

#[test]
fn a_clean_stop_runs_nothing_twice() {
    let mut cluster = cluster(3);
    let job = cluster.submit(MARK, 300, &json!({"ms": 30}), &json!({}));
    cluster.await_done(job, 20);
    for number in 1..=2 {
        cluster.members[number].terminate();
        wait_until("it has left", LONG, || !cluster.members[number].is_running());
    }
    cluster.await_end(job);
    check_all_jobs(&cluster);
    nothing_ran_twice(&cluster, job, 300);
}

#[test]
fn a_broken_link_to_rabbitmq_alone_runs_nothing_twice() {
    let cluster = cluster(4);
    // RabbitMQ delivers the messages of a broken connection at once to idle workers.
    let job = cluster.submit(MARK, 40, &json!({"ms": 600}), &one_by_one(2));
    cluster.await_done(job, 1);
    // The first worker is cut off for three fifths of `dead_after`; meanwhile the others'
    // connections break repeatedly.
    cluster.members[1].rabbit.set(LinkState::CUT);
    for number in [2, 3, 4].into_iter().cycle().take(15) {
        cluster.members[number].rabbit.reset();
        sleep(DEAD_AFTER / 25);
    }
    cluster.members[1].open_links();
    cluster.await_end(job);
    check_all_jobs(&cluster);
    nothing_ran_twice(&cluster, job, 40);
}
