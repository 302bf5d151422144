//! Proofs of the checker: each check catches its broken input, and no other check complains.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_chaos::checker::{
    ReportedJob, Violation, check_alive, check_connections, check_jobs, check_log,
    check_process_stats, check_queues, check_runaways, check_waits,
};
use longshore_chaos::clock::Moment;
use longshore_chaos::history::{History, Intent, Mark};
use longshore_chaos::marks::What;
use longshore_chaos::process_stats::ProcessStats;
use longshore_chaos::runaways::Runaway;
use longshore_chaos::tasks::{FLAKY, MARK, SIGNED, answer, fails_for_good, signed};
use longshore_chaos::waits::{Cause, Wait};
use uuid::Uuid;

const JOB: Uuid = Uuid::from_u128(1);
const UNSUBMITTED: Uuid = Uuid::from_u128(2);
const TOTAL: u64 = 200;

fn mark(job: Uuid, index: u64) -> Mark {
    let at = Moment { ns: index };
    Mark { what: What::End, job, index, attempt: 1, worker: 10, at }
}

/// A history and a report without violations.
fn sound(task: &str) -> (History, BTreeMap<Uuid, ReportedJob>) {
    let is_done = |index: &u64| !fails_for_good(task, *index);
    let done: Vec<u64> = (0..TOTAL).filter(is_done).collect();
    let intent = Intent { task: task.into(), total: TOTAL, confirmed: true };
    let history = History {
        marks: done.iter().map(|index| mark(JOB, *index)).collect(),
        intents: BTreeMap::from([(JOB, intent)]),
    };
    let reported = ReportedJob {
        state: "succeeded".into(),
        total: TOTAL,
        done: done.len() as u64,
        failed: TOTAL - done.len() as u64,
        results: done.iter().map(|index| answer(*index).to_string()).collect(),
        ..ReportedJob::default()
    };
    (history, BTreeMap::from([(JOB, reported)]))
}

/// The violations of a job whose subtask 7 failed after this number of workers had begun it. One of
/// them may have ended it, too late.
fn unlucky(workers: u32, has_ended: bool, poison: &[u64]) -> Vec<Violation> {
    let (mut history, mut reported) = sound(MARK);
    history.marks.retain(|mark| mark.index != 7 || has_ended);
    let start = |worker| Mark { what: What::Start, worker, ..mark(JOB, 7) };
    history.marks.extend((0..workers).map(start));
    let reported_job = job(&mut reported);
    (reported_job.done, reported_job.failed) = (TOTAL - 1, 1);
    reported_job.results.remove(7);
    reported_job.poison = poison.iter().copied().collect();
    check_jobs(&history, &reported)
}

#[test]
fn a_subtask_may_fail_as_poison_after_five_workers_but_not_after_four() {
    let c2 =
        |found: Vec<Violation>| found.iter().filter(|violation| violation.check == "C2").count();
    assert_eq!(unlucky(5, false, &[7]), []);
    assert_eq!(unlucky(5, true, &[7]), []);
    assert_eq!(c2(unlucky(4, false, &[7])), 2, "one is missing, and it never ran");
    assert_eq!(c2(unlucky(4, true, &[7])), 1);
    assert_eq!(c2(unlucky(5, true, &[])), 1, "the ledger has no evidence");
}

type Broken = fn(&mut History, &mut BTreeMap<Uuid, ReportedJob>);

#[track_caller]
fn caught(check: &str, words: &str, broken: Broken) {
    let (mut history, mut reported) = sound(MARK);
    broken(&mut history, &mut reported);
    let violations = check_jobs(&history, &reported);
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(violations[0].check, check, "{violations:?}");
    assert!(violations[0].found.contains(words), "{violations:?}");
}

fn job(reported: &mut BTreeMap<Uuid, ReportedJob>) -> &mut ReportedJob {
    reported.get_mut(&JOB).expect("the one job")
}

#[test]
fn a_sound_history_has_no_violations() {
    for task in [MARK, FLAKY] {
        let (history, reported) = sound(task);
        assert_eq!(check_jobs(&history, &reported), []);
    }
}

#[test]
fn c1_a_confirmed_job_that_has_not_ended_or_is_gone() {
    caught("C1", "was confirmed and is running", |_, reported| {
        job(reported).state = "running".into();
    });
    caught("C1", "is unknown", |_, reported| reported.clear());
    let (mut history, _) = sound(MARK);
    history.intents.get_mut(&JOB).expect("the one job").confirmed = false;
    assert_eq!(check_jobs(&history, &BTreeMap::new()), [], "it was not confirmed");
}

#[test]
fn c2_a_subtask_that_is_counted_and_never_ran() {
    caught("C2", "never ran to an end: [7]", |history, _| {
        history.marks.retain(|mark| mark.index != 7);
    });
    caught("C2", "never ran to an end: [7]", |history, _| history.marks[7].what = What::Start);
}

#[test]
fn c2_counts_that_are_short_doubled_or_unbalanced() {
    caught("C2", "(200, 199, 0, 0) instead of (200, 200, 0, 0)", |_, reported| {
        job(reported).done -= 1;
    });
    caught("C2", "(200, 201, 0, 0)", |_, reported| job(reported).done += 1);
    caught("C2", "(200, 199, 1, 0)", |_, reported| {
        job(reported).done -= 1;
        job(reported).failed += 1;
    });
    caught("C2", "2 of 3", |_, reported| job(reported).unbalanced = Some("2 of 3".into()));
}

#[test]
fn c3_results_that_are_missing_or_in_a_wrong_place() {
    caught("C3", "199 results instead of 200", |_, reported| drop(job(reported).results.pop()));
    caught("C3", "result 3 is ", |_, reported| job(reported).results.swap(3, 4));
}

#[test]
fn c3_results_of_a_worker_that_never_ended_the_subtask() {
    let (history, mut reported) = sound(SIGNED);
    for (index, result) in (0..).zip(&mut job(&mut reported).results) {
        *result = signed(answer(index), 10).to_string();
    }
    assert_eq!(check_jobs(&history, &reported), []);
    job(&mut reported).results[7] = signed(answer(7), 11).to_string();
    let found = check_jobs(&history, &reported);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].check, "C3");
}

#[test]
fn c4_a_job_or_a_subtask_that_was_not_submitted() {
    caught("C4", "it was not submitted", |_, reported| {
        drop(reported.insert(UNSUBMITTED, ReportedJob::default()));
    });
    caught("C4", "it was not submitted", |history, _| history.marks.push(mark(UNSUBMITTED, 0)));
    caught("C4", "subtask 200 ran and does not exist", |history, _| {
        history.marks.push(mark(JOB, TOTAL));
    });
}

/// Checks that there is exactly this violation.
#[track_caller]
fn one(violations: &[Violation], check: &str, found: &str) {
    let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert_eq!(all, [format!("{check}: {found}")]);
}

#[test]
fn c5_a_message_that_is_left_in_a_queue() {
    let queue = |name: &str, messages| (name.to_owned(), messages);
    let depths = [queue("work", 0), queue("dead", 2)];
    one(&check_queues(&depths), "C5", "2 messages are left in dead");
    assert_eq!(check_queues(&depths[..1]), []);
}

#[test]
fn c6_leaks_of_chunks_threads_files_and_connections() {
    caught("C6", "3 chunks and retries are left", |_, reported| job(reported).left_open = 3);
    let before = ProcessStats { cpu: Duration::ZERO, threads: 10, files: 30 };
    assert_eq!(
        check_process_stats("worker-0", before, ProcessStats { threads: 12, files: 40, ..before }),
        []
    );
    let threads = check_process_stats("worker-0", before, ProcessStats { threads: 40, ..before });
    one(&threads, "C6", "worker-0: 10 threads became 40");
    let files = check_process_stats("worker-0", before, ProcessStats { files: 300, ..before });
    one(&files, "C6", "worker-0: 30 open files became 300");
    assert_eq!(check_connections("Redis", 40, 50), []);
    one(&check_connections("Redis", 40, 100), "C6", "Redis: 40 connections became 100");
}

#[test]
fn c8_a_process_that_exited_by_itself() {
    assert_eq!(check_alive("scheduler-0", true, ""), []);
    let found = "scheduler-0 exited by itself; its last output: a panic";
    one(&check_alive("scheduler-0", false, "a panic"), "C8", found);
}

#[test]
fn c10_a_process_that_outlives_its_command() {
    assert_eq!(check_runaways(&[]), []);
    let left = [Runaway { pid: 7, command: 5 }];
    let found = "1 processes outlive their commands: [Runaway { pid: 7, command: 5 }]";
    one(&check_runaways(&left), "C10", found);
}

#[test]
fn c11_a_subtask_that_waits_for_ten_seconds_after_the_kill_of_its_worker() {
    let wait = |seconds| Wait {
        job: JOB,
        index: 7,
        cause: Cause::Lost,
        lasted: Duration::from_secs(seconds),
    };
    let longest = Duration::from_secs(3);
    assert_eq!(check_waits(&[wait(0), wait(3)], longest), []);
    let found = format!("job {JOB}: subtask 7 waited for 10s (Lost)");
    one(&check_waits(&[wait(3), wait(10)], longest), "C11", &found);
}

#[test]
fn c9_a_line_that_is_repeated_while_nothing_changes() {
    let line = |second: u32, text: &str| format!("2026-01-01T00:00:{second:02}.5Z  {text}\n");
    let log = line(1, "WARN lost Redis") + &line(9, "INFO Redis is back");
    assert_eq!(check_log("worker-0", &log, 1), []);
    let log = log + &line(10, "WARN lost Redis");
    one(&check_log("worker-0", &log, 1), "C9", "worker-0 logged 2 times: WARN lost Redis");
    assert_eq!(check_log("worker-0", &log, 2), []);
    let many: String = (0..13).map(|n| line(n, &format!("WARN chunk {n} waits"))).collect();
    one(&check_log("worker-0", &many, 1), "C9", "worker-0 logged 13 lines for 1 changes");
}
