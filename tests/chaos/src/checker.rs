//! The checker: compares what Longshore reports with the history, by pure functions.
//!
//! Each check has an id and, in `tests/checkers.rs`, an input that it catches.
//!
//! | id | invariant |
//! | --- | --- |
//! | C1 | every confirmed job has ended |
//! | C2 | every subtask is counted once, and each done one has an attempt that ended |
//! | C3 | results are right; a signed result is of a worker that ended this subtask |
//! | C4 | every job and every subtask that ran was submitted |
//! | C5 | queues are empty at the end |
//! | C6 | no leaks: chunks, retries, connections, threads, files |
//! | C7 | how much ran again and how soon: reported, not checked here |
//! | C8 | no process exited by itself |
//! | C9 | each change of state logs few lines |
//! | C10 | no process outlives the command that started it |
//! | C11 | while slots are free, no subtask waits for long, even after losses |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::history::{History, Intent};
use crate::marks::What;
use crate::process_stats::ProcessStats;
use crate::runaways::Runaway;
use crate::tasks::{SIGNED, fails_for_good, result, signer};
use crate::waits::Wait;

/// The violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The id of the check.
    pub check: &'static str,
    /// The finding.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)
    }
}

/// What Longshore reports about a job at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedJob {
    /// The state of the job.
    pub state: String,
    /// All subtasks.
    pub total: u64,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were cancelled.
    pub cancelled: u64,
    /// The output of `longshore audit`, if the counts don't balance.
    pub unbalanced: Option<String>,
    /// The output of `longshore results`: one line for each done subtask.
    pub results: Vec<String>,
    /// Subtasks that failed because workers died of them.
    pub poison: BTreeSet<u64>,
    /// The number of open chunks and retries that are still in the ledger.
    pub left_open: u64,
}

const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "rejected"];

/// The maximum number of examples in a violation.
const EXAMPLES: usize = 5;

/// Checks C1 to C4 and the ledger's part of C6.
pub fn check_jobs(history: &History, reported: &BTreeMap<Uuid, ReportedJob>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let executed = Executed::of(history);
    for (job, intent) in &history.intents {
        let found =
            |check, found: String| Violation { check, found: format!("job {job}: {found}") };
        let Some(reported) = reported.get(job) else {
            if intent.confirmed {
                violations.push(found("C1", "was confirmed and is unknown".into()));
            }
            continue;
        };
        if !ENDS.contains(&reported.state.as_str()) {
            violations.push(found("C1", format!("was confirmed and is {}", reported.state)));
            continue;
        }
        let complaints = [
            ("C2", executed.counts(*job, intent, reported)),
            ("C2", executed.missing(*job, intent, reported)),
            ("C3", executed.results(*job, intent, reported)),
        ];
        let complaints = complaints.into_iter();
        violations.extend(complaints.filter_map(|(id, what)| what.map(|what| found(id, what))));
        if reported.left_open > 0 {
            violations
                .push(found("C6", format!("{} chunks and retries are left", reported.left_open)));
        }
    }
    violations.extend(invented(history, reported));
    violations
}

/// A subtask counts as poison after the death of this number of its workers: two until it is
/// isolated, three with it alone.
const DEATHS: usize = 5;

/// The attempts at all subtasks, from the history.
struct Executed {
    /// Whether each subtask has a successful attempt, by job.
    ended: BTreeMap<Uuid, Vec<bool>>,
    /// The workers that ended each subtask: job, index, worker.
    workers: BTreeSet<(Uuid, u64, u64)>,
    /// The subtasks that at least [`DEATHS`] workers began, so that they may count as poison. A
    /// worker that was frozen for long may even have ended one while it counted as dead.
    unlucky: BTreeSet<(Uuid, u64)>,
}

impl Executed {
    fn of(history: &History) -> Self {
        let mut ended: BTreeMap<Uuid, Vec<bool>> = BTreeMap::new();
        for (job, intent) in &history.intents {
            ended.insert(*job, vec![false; usize::try_from(intent.total).unwrap_or_default()]);
        }
        let mut workers = BTreeSet::new();
        let mut tries: BTreeMap<(Uuid, u64), BTreeSet<u32>> = BTreeMap::new();
        for mark in &history.marks {
            let bits = ended.get_mut(&mark.job);
            let index = usize::try_from(mark.index).unwrap_or(usize::MAX);
            let bit = bits.and_then(|bits| bits.get_mut(index));
            match (mark.what, bit) {
                (What::End, Some(bit)) => {
                    *bit = true;
                    workers.insert((mark.job, mark.index, u64::from(mark.worker)));
                }
                (What::Start, Some(_)) => {
                    tries.entry((mark.job, mark.index)).or_default().insert(mark.worker);
                }
                _ => {}
            }
        }
        tries.retain(|_, workers| workers.len() >= DEATHS);
        Self { ended, workers, unlucky: tries.into_keys().collect() }
    }

    /// Whether the subtask must fail.
    fn fails(&self, job: Uuid, intent: &Intent, reported: &ReportedJob, index: u64) -> bool {
        let is_unlucky = reported.poison.contains(&index) && self.unlucky.contains(&(job, index));
        is_unlucky || fails_for_good(&intent.task, index)
    }

    fn missing(&self, job: Uuid, intent: &Intent, reported: &ReportedJob) -> Option<String> {
        let bits = self.ended.get(&job)?;
        let lost = (0u64..)
            .zip(bits)
            .filter(|(index, ended)| !**ended && !self.fails(job, intent, reported, *index));
        let lost: Vec<u64> = lost.map(|(index, _)| index).collect();
        let some: Vec<u64> = lost.iter().copied().take(EXAMPLES).collect();
        let count = lost.len();
        (count > 0)
            .then(|| format!("{count} subtasks count as done and never ran to an end: {some:?}"))
    }

    fn counts(&self, job: Uuid, intent: &Intent, reported: &ReportedJob) -> Option<String> {
        let ReportedJob { total, done, failed, cancelled, .. } = *reported;
        if let Some(said) = &reported.unbalanced {
            return Some(format!("the counts don't balance: {said}"));
        }
        let fails = (0..intent.total)
            .filter(|index| self.fails(job, intent, reported, *index))
            .count() as u64;
        let expected = (intent.total, intent.total - fails, fails, 0);
        let found = (total, done, failed, cancelled);
        (found != expected).then(|| {
            format!("total, done, failed, cancelled are {found:?} instead of {expected:?}")
        })
    }

    fn results(&self, job: Uuid, intent: &Intent, reported: &ReportedJob) -> Option<String> {
        let done = (0..intent.total).filter(|index| !self.fails(job, intent, reported, *index));
        let expected: Vec<(u64, u64)> =
            done.map(|index| (index, result(&intent.task, index))).collect();
        if reported.results.len() != expected.len() {
            return Some(format!(
                "{} results instead of {}",
                reported.results.len(),
                expected.len()
            ));
        }
        let mut pairs = reported.results.iter().zip(&expected).enumerate();
        pairs.find_map(|(place, (found, (index, right)))| {
            let is_right = match found.parse() {
                Ok(found) if intent.task == SIGNED => {
                    let (answer, worker) = signer(found);
                    answer == *right && self.workers.contains(&(job, *index, worker))
                }
                found => found == Ok(*right),
            };
            (!is_right).then(|| format!("result {place} is {found} instead of {right}"))
        })
    }
}

fn invented(history: &History, reported: &BTreeMap<Uuid, ReportedJob>) -> Vec<Violation> {
    let known: BTreeSet<&Uuid> = history.intents.keys().collect();
    let seen = history.jobs_seen();
    let jobs: BTreeSet<&Uuid> =
        reported.keys().chain(&seen).filter(|job| !known.contains(job)).collect();
    let mut violations: Vec<Violation> = jobs
        .into_iter()
        .map(|job| Violation { check: "C4", found: format!("job {job}: it was not submitted") })
        .collect();
    let beyond = history.marks.iter().find(|mark| {
        history.intents.get(&mark.job).is_some_and(|intent| mark.index >= intent.total)
    });
    violations.extend(beyond.map(|mark| Violation {
        check: "C4",
        found: format!("job {}: subtask {} ran and does not exist", mark.job, mark.index),
    }));
    violations
}

/// Checks C5 for queues, given by their names and numbers of messages.
pub fn check_queues(depths: &[(String, u64)]) -> Vec<Violation> {
    let full = depths.iter().filter(|(_, messages)| *messages > 0);
    let found =
        |(queue, messages): &(String, u64)| format!("{messages} messages are left in {queue}");
    full.map(|depth| Violation { check: "C5", found: found(depth) }).collect()
}

/// How much more a process may use at the end than before, because pools and threads for blocking
/// calls vary.
const MORE_THREADS: usize = 8;
const MORE_FILES: usize = 24;

/// Checks C6 for a process: it uses about as much at the end as before.
pub fn check_process_stats(
    name: &str,
    before: ProcessStats,
    after: ProcessStats,
) -> Vec<Violation> {
    let pairs = [
        ("threads", before.threads, after.threads, MORE_THREADS),
        ("open files", before.files, after.files, MORE_FILES),
    ];
    let leaks = pairs.into_iter().filter(|(_, before, after, more)| *after > before + more);
    let found = |(what, before, after, _)| format!("{name}: {before} {what} became {after}");
    leaks.map(|leak| Violation { check: "C6", found: found(leak) }).collect()
}

/// Checks C6 for a server: it has about as many connections at the end as before.
pub fn check_connections(server: &str, before: usize, after: usize) -> Vec<Violation> {
    let more = before / 2 + MORE_FILES;
    let leaked =
        (after > before + more).then(|| format!("{server}: {before} connections became {after}"));
    leaked.map(|found| Violation { check: "C6", found }).into_iter().collect()
}

/// Checks C8. `tail` is the end of the output of the process, for the report.
pub fn check_alive(name: &str, runs: bool, tail: &str) -> Vec<Violation> {
    let found = || format!("{name} exited by itself; its last output: {tail}");
    (!runs).then(|| Violation { check: "C8", found: found() }).into_iter().collect()
}

/// Checks C10. `left` are the processes whose commands have ended.
pub fn check_runaways(left: &[Runaway]) -> Vec<Violation> {
    let found = || format!("{} processes outlive their commands: {left:?}", left.len());
    (!left.is_empty()).then(|| Violation { check: "C10", found: found() }).into_iter().collect()
}

/// Checks C11: no subtask waited for longer than `longest`. For runs in which slots are always
/// free.
pub fn check_waits(waits: &[Wait], longest: Duration) -> Vec<Violation> {
    let long = waits.iter().filter(|wait| wait.lasted > longest);
    let found = |Wait { job, index, cause, lasted }: &Wait| {
        format!("job {job}: subtask {index} waited for {lasted:?} ({cause:?})")
    };
    long.map(|wait| Violation { check: "C11", found: found(wait) }).collect()
}

/// The maximum number of lines that a process logs for one change of state. It has several
/// connections to its servers, and each part that notices the change logs it once.
const LINES_A_CHANGE: usize = 12;

/// Checks C9 for the output during a number of changes of state. No line may be logged more often
/// than there were changes, so no line is repeated while a state lasts.
pub fn check_log(name: &str, log: &str, changes: usize) -> Vec<Violation> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log.lines() {
        *counts.entry(without_time(line)).or_default() += 1;
    }
    let lines: usize = counts.values().sum();
    let often = counts.into_iter().filter(|(_, count)| *count > changes);
    let mut found: Vec<String> =
        often.map(|(line, count)| format!("{name} logged {count} times: {line}")).collect();
    if lines > changes * LINES_A_CHANGE {
        found.push(format!("{name} logged {lines} lines for {changes} changes"));
    }
    found.into_iter().map(|found| Violation { check: "C9", found }).collect()
}

/// A line of the log without the time at its beginning.
fn without_time(line: &str) -> &str {
    let is_time = |word: &str| word.starts_with("20") && word.ends_with('Z');
    match line.split_once(char::is_whitespace) {
        Some((time, rest)) if is_time(time) => rest.trim_start(),
        _ => line,
    }
}
