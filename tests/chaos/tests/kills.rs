//! A killed worker's subtasks run elsewhere, soon.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_chaos::checker::{Violation, check_jobs};
use longshore_chaos::clock::Moment;
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::history::{LossCause, percentile, percentiles};
use longshore_chaos::tasks::MARK;
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use uuid::Uuid;

const KILLS: usize = 50;
const WORKERS: usize = 8;

/// Two of eight: the others have free slots for what they held.
const AT_ONCE: usize = 2;

/// How long a subtask works.
const WORK: Duration = Duration::from_millis(500);

/// How many of them a job has; there is always one more job.
const SUBTASKS: u64 = 100;

/// From the kill to the beginning of the next attempt, for 99 of 100. Silence would tell after five seconds.
const RERUN_WITHIN: Duration = Duration::from_millis(500);

#[test]
fn a_killed_worker_s_subtasks_run_elsewhere() {
    let mut crew = Crew::on(Rabbit::shared(), Redis::shared());
    crew.set("LONGSHORE_SLOTS", "1");
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, WORKERS);
    let mut job = submit(&crew);
    let mut killed = BTreeSet::new();
    let mut counted = 0;
    while counted < KILLS {
        let losses = kill_some(&mut crew, &mut job, &mut killed);
        wait_until("what they held runs elsewhere", LONG, || {
            crew.history().recoveries(&losses).iter().all(Option::is_some)
        });
        counted += crew.history().recoveries(&losses).len();
    }
    let history = crew.history();
    history.intents.keys().for_each(|job| crew.await_end(*job));
    let history = crew.history();
    assert_eq!(check_jobs(&history, &crew.told(&history)), Vec::<Violation>::new());
    let times: Vec<Duration> = history.recoveries(&crew.losses()).into_iter().flatten().collect();
    println!("from kill to re-run: {}", percentiles(&times));
    assert!(times.len() >= KILLS, "{} subtasks were cut short", times.len());
    let p99 = percentile(&times, 99);
    assert!(p99 <= RERUN_WITHIN, "{}", percentiles(&times));
}

/// Some work, of which less runs at once than there are slots, so that what a dead worker held finds a free one.
fn submit(crew: &Crew) -> Uuid {
    let more = json!({"chunk": 1, "max_parallel": WORKERS - AT_ONCE - 1});
    crew.submit(MARK, SUBTASKS, &json!({"ms": WORK.as_millis() as u64}), &more)
}

/// Kills workers in the middle of subtasks that no kill has hit before, and starts them again. Sees to it that there is work.
fn kill_some(
    crew: &mut Crew,
    job: &mut Uuid,
    killed: &mut BTreeSet<(Uuid, u64)>,
) -> Vec<LossCause> {
    let mut losses = Vec::new();
    wait_until("there is somebody to kill", LONG, || {
        if crew.done(*job) >= SUBTASKS {
            *job = submit(crew);
        }
        let history = crew.history();
        let now = Moment::now();
        for member in crew.members.iter_mut().filter(|member| member.role == Role::Worker) {
            let running =
                history.cut_short(LossCause { worker: member.pid(), at: now, for_good: false });
            let is_fresh = running.iter().all(|mark| !killed.contains(&(mark.job, mark.index)));
            // Begun a moment ago, so that it hardly ends under the hand that kills it.
            let is_young = running.iter().all(|mark| now.since(mark.at) < WORK / 2);
            if !running.is_empty() && is_fresh && is_young {
                losses.push(member.kill());
                killed.extend(running.iter().map(|mark| (mark.job, mark.index)));
                member.start_again();
                break;
            }
        }
        losses.len() == AT_ONCE
    });
    losses
}
