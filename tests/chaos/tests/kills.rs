//! The subtasks of a killed worker run elsewhere within half a second.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::history::{WorkerLoss, percentile, percentiles};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use uuid::Uuid;

const KILLS: usize = 50;
const WORKERS: usize = 8;

/// Two of eight workers are killed at once, so that the others have free slots for their subtasks.
const AT_ONCE: usize = 2;

/// The duration of a subtask.
const WORK: Duration = Duration::from_millis(500);

/// The number of subtasks of a job. When one job ends, the next is submitted.
const SUBTASKS: u64 = 100;

/// The limit of the time from the kill to the next attempt, for 99 of 100. Detection by silence
/// would take five seconds.
const RERUN_WITHIN: Duration = Duration::from_millis(500);

#[test]
fn the_subtasks_of_a_killed_worker_run_elsewhere() {
    let mut cluster = Cluster::on(Rabbit::shared(), Redis::shared());
    cluster.set("LONGSHORE_SLOTS", "1");
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, WORKERS);
    let mut job = submit(&cluster);
    let mut killed = BTreeSet::new();
    let mut counted = 0;
    while counted < KILLS {
        let losses = kill_some(&mut cluster, &mut job, &mut killed);
        wait_until("their subtasks run elsewhere", LONG, || {
            cluster.history().recoveries(&losses).iter().all(Option::is_some)
        });
        counted += cluster.history().recoveries(&losses).len();
    }
    let history = cluster.history();
    history.intents.keys().for_each(|job| cluster.await_end(*job));
    let history = cluster.history();
    assert_eq!(check_jobs(&history, &cluster.reported(&history)), Vec::<Violation>::new());
    let times: Vec<Duration> =
        history.recoveries(&cluster.losses()).into_iter().flatten().collect();
    println!("from kill to re-run: {}", percentiles(&times));
    assert!(times.len() >= KILLS, "{} attempts were interrupted", times.len());
    let p99 = percentile(&times, 99);
    assert!(p99 <= RERUN_WITHIN, "{}", percentiles(&times));
}

/// Submits a job that uses fewer slots than there are, so that the subtasks of a killed worker find
/// free ones.
fn submit(cluster: &Cluster) -> Uuid {
    let more = json!({"chunk": 1, "max_parallel": WORKERS - AT_ONCE - 1});
    cluster.submit(MARK, SUBTASKS, &json!({"ms": WORK.as_millis() as u64}), &more)
}

/// Kills workers during subtasks that no kill has interrupted before, and starts them again.
/// Submits the next job when needed.
fn kill_some(
    cluster: &mut Cluster,
    job: &mut Uuid,
    killed: &mut BTreeSet<(Uuid, u64)>,
) -> Vec<WorkerLoss> {
    let mut losses = Vec::new();
    wait_until("there is a worker to kill", LONG, || {
        if cluster.done(*job) >= SUBTASKS {
            *job = submit(cluster);
        }
        let history = cluster.history();
        let now = Moment::now();
        for member in cluster.members.iter_mut().filter(|member| member.role == Role::Worker) {
            let running =
                history.interrupted(WorkerLoss { worker: member.pid(), at: now, for_good: false });
            let is_fresh = running.iter().all(|mark| !killed.contains(&(mark.job, mark.index)));
            // Begun a moment ago, so that it hardly ends before the kill.
            let is_young = running.iter().all(|mark| now.since(mark.at) < WORK / 2);
            if !running.is_empty() && is_fresh && is_young {
                losses.push(member.kill());
                killed.extend(running.iter().map(|mark| (mark.job, mark.index)));
                member.restart();
                break;
            }
        }
        losses.len() == AT_ONCE
    });
    losses
}
