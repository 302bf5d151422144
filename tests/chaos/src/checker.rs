//! Compares what Longshore says with what the history says. Pure; each check has an id and, below, an input that it catches.
//!
//! | id | what must hold |
//! | --- | --- |
//! | C1 | every confirmed job has ended |
//! | C2 | every subtask is counted once, and what counts as done has an execution that ended |
//! | C3 | results are right; a signed one is of a worker that ended this subtask |
//! | C4 | no job exists, and nothing ran, that nobody asked for |
//! | C5 | queues are empty at the end |
//! | C6 | nothing is left behind: chunks, retries, connections, threads, files |
//! | C7 | how much ran again and how soon: reported, not judged here |
//! | C8 | no process exited that was not killed |
//! | C9 | few lines in the log for each change of state |
//! | C10 | no process is left of a command that has ended, however it ran away |
//! | C11 | where slots are free, no subtask waits for long, whoever was lost |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::history::{History, Intent};
use crate::marks::What;
use crate::runaways::Runaway;
use crate::tasks::{SIGNED, fails_for_good, result, signer};
use crate::vitals::Vitals;
use crate::waits::Wait;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it.
    pub check: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)
    }
}

/// What Longshore says of a job at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its state.
    pub state: String,
    /// Its books.
    pub total: u64,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were given up.
    pub cancelled: u64,
    /// Whether `longshore audit` found that the books balance; what it said, if not.
    pub unbalanced: Option<String>,
    /// What `longshore results` printed, a line a subtask that is done.
    pub results: Vec<String>,
    /// Subtasks that failed with the deaths of workers for evidence.
    pub poison: BTreeSet<u64>,
    /// Open chunks and retries that are still in the ledger.
    pub left_open: u64,
}

const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "rejected"];

/// The most examples that one violation shows.
const EXAMPLES: usize = 5;

/// C1 to C4 and the ledger's part of C6: everything about jobs.
pub fn check_jobs(history: &History, told: &BTreeMap<Uuid, Told>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let executed = Executed::of(history);
    for (job, intent) in &history.intents {
        let found =
            |check, found: String| Violation { check, found: format!("job {job}: {found}") };
        let Some(told) = told.get(job) else {
            if intent.confirmed {
                violations.push(found("C1", "was confirmed and is unknown".into()));
            }
            continue;
        };
        if !ENDS.contains(&told.state.as_str()) {
            violations.push(found("C1", format!("was confirmed and is {}", told.state)));
            continue;
        }
        let complaints = [
            ("C2", executed.counts(*job, intent, told)),
            ("C2", executed.lacks(*job, intent, told)),
            ("C3", executed.results(*job, intent, told)),
        ];
        let complaints = complaints.into_iter();
        violations.extend(complaints.filter_map(|(id, what)| what.map(|what| found(id, what))));
        if told.left_open > 0 {
            violations.push(found("C6", format!("{} chunks and retries are left", told.left_open)));
        }
    }
    violations.extend(invented(history, told));
    violations
}

/// A subtask that cost so many workers is taken for poison, whoever killed them: two until it is set apart, three alone.
const DEATHS: usize = 5;

/// What became of subtasks.
struct Executed {
    /// Which have an execution that ended well, by job.
    ended: BTreeMap<Uuid, Vec<bool>>,
    /// The workers that ended each.
    workers: BTreeSet<(Uuid, u64, u64)>,
    /// Which so many workers began that they may have been taken for poison. One that was frozen for long may even have
    /// brought it to an end, when it counted as dead.
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

    /// Whether the subtask has to fail in the end.
    fn fails(&self, job: Uuid, intent: &Intent, told: &Told, index: u64) -> bool {
        let is_unlucky = told.poison.contains(&index) && self.unlucky.contains(&(job, index));
        is_unlucky || fails_for_good(&intent.task, index)
    }

    fn lacks(&self, job: Uuid, intent: &Intent, told: &Told) -> Option<String> {
        let bits = self.ended.get(&job)?;
        let lost = (0u64..)
            .zip(bits)
            .filter(|(index, ended)| !**ended && !self.fails(job, intent, told, *index));
        let lost: Vec<u64> = lost.map(|(index, _)| index).collect();
        let some: Vec<u64> = lost.iter().copied().take(EXAMPLES).collect();
        let count = lost.len();
        (count > 0)
            .then(|| format!("{count} subtasks count as done and never ran to an end: {some:?}"))
    }

    fn counts(&self, job: Uuid, intent: &Intent, told: &Told) -> Option<String> {
        let Told { total, done, failed, cancelled, .. } = *told;
        if let Some(said) = &told.unbalanced {
            return Some(format!("the counts don't balance: {said}"));
        }
        let fails =
            (0..intent.total).filter(|index| self.fails(job, intent, told, *index)).count() as u64;
        let expected = (intent.total, intent.total - fails, fails, 0);
        let found = (total, done, failed, cancelled);
        (found != expected).then(|| {
            format!("total, done, failed, cancelled are {found:?} instead of {expected:?}")
        })
    }

    fn results(&self, job: Uuid, intent: &Intent, told: &Told) -> Option<String> {
        let done = (0..intent.total).filter(|index| !self.fails(job, intent, told, *index));
        let expected: Vec<(u64, u64)> =
            done.map(|index| (index, result(&intent.task, index))).collect();
        if told.results.len() != expected.len() {
            return Some(format!("{} results instead of {}", told.results.len(), expected.len()));
        }
        let mut pairs = told.results.iter().zip(&expected).enumerate();
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

fn invented(history: &History, told: &BTreeMap<Uuid, Told>) -> Vec<Violation> {
    let known: BTreeSet<&Uuid> = history.intents.keys().collect();
    let seen = history.jobs_seen();
    let jobs: BTreeSet<&Uuid> =
        told.keys().chain(&seen).filter(|job| !known.contains(job)).collect();
    let mut violations: Vec<Violation> = jobs
        .into_iter()
        .map(|job| Violation { check: "C4", found: format!("job {job}: nobody asked for it") })
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

/// C5: nothing waits in any queue. Takes the names of queues and their messages.
pub fn check_queues(depths: &[(String, u64)]) -> Vec<Violation> {
    let full = depths.iter().filter(|(_, messages)| *messages > 0);
    let found =
        |(queue, messages): &(String, u64)| format!("{messages} messages are left in {queue}");
    full.map(|depth| Violation { check: "C5", found: found(depth) }).collect()
}

/// How much more a process may use at the end than before: pools and threads for blocking calls come and go.
const MORE_THREADS: usize = 8;
const MORE_FILES: usize = 24;

/// C6: what a process uses at the end is about what it used before.
pub fn check_vitals(name: &str, before: Vitals, after: Vitals) -> Vec<Violation> {
    let pairs = [
        ("threads", before.threads, after.threads, MORE_THREADS),
        ("open files", before.files, after.files, MORE_FILES),
    ];
    let leaks = pairs.into_iter().filter(|(_, before, after, more)| *after > before + more);
    let found = |(what, before, after, _)| format!("{name}: {before} {what} became {after}");
    leaks.map(|leak| Violation { check: "C6", found: found(leak) }).collect()
}

/// C6: what a server counts at the end is about what it counted before: connections.
pub fn check_connections(server: &str, before: usize, after: usize) -> Vec<Violation> {
    let more = before / 2 + MORE_FILES;
    let leaked =
        (after > before + more).then(|| format!("{server}: {before} connections became {after}"));
    leaked.map(|found| Violation { check: "C6", found }).into_iter().collect()
}

/// C8: a process that nobody killed runs. Takes what it printed last, for the report.
pub fn check_alive(name: &str, runs: bool, tail: &str) -> Vec<Violation> {
    let found = || format!("{name} exited by itself; its last words: {tail}");
    (!runs).then(|| Violation { check: "C8", found: found() }).into_iter().collect()
}

/// C10: the processes that are left of commands which have ended.
pub fn check_runaways(left: &[Runaway]) -> Vec<Violation> {
    let found = || format!("{} processes outlive their commands: {left:?}", left.len());
    (!left.is_empty()).then(|| Violation { check: "C10", found: found() }).into_iter().collect()
}

/// C11: no subtask waited for longer than this. For runs in which slots are free all the while.
pub fn check_waits(waits: &[Wait], longest: Duration) -> Vec<Violation> {
    let long = waits.iter().filter(|wait| wait.lasted > longest);
    let found = |Wait { job, index, cause, lasted }: &Wait| {
        format!("job {job}: subtask {index} waited for {lasted:?} ({cause:?})")
    };
    long.map(|wait| Violation { check: "C11", found: found(wait) }).collect()
}

/// The most lines that one change of state is worth to a process: it speaks to its servers over several connections, and each
/// part that notices says so once.
const LINES_A_CHANGE: usize = 12;

/// C9: what was logged while the state changed so many times. No line comes more often than there were changes, so nothing is
/// repeated while a state lasts.
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

/// A line of the log begins with its time.
fn without_time(line: &str) -> &str {
    let is_time = |word: &str| word.starts_with("20") && word.ends_with('Z');
    match line.split_once(char::is_whitespace) {
        Some((time, rest)) if is_time(time) => rest.trim_start(),
        _ => line,
    }
}
