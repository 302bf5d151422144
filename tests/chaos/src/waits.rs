//! How long subtasks waited while nobody ran them, and for what.
//!
//! ```text
//!   submitted ──▶ start        failed ──▶ start        worker lost ──▶ start
//! ```
//!
//! Where slots are free all the while, a wait is what Longshore takes to hand a subtask out, for
//! the first time or again. Deliberately absent: a bound; `checker` has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Moment;
use crate::history::{History, LossCause, Mark};
use crate::marks::What;

/// What a subtask waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its first attempt: its job had just been accepted.
    Submitted,
    /// The next attempt, after one that failed.
    Failed,
    /// Another worker: the one that ran it was lost, or had not committed what it had run.
    Lost,
}

/// A subtask that nobody ran, until somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The job.
    pub job: Uuid,
    /// The subtask.
    pub index: u64,
    /// What it waited for.
    pub cause: Cause,
    /// How long.
    pub lasted: Duration,
}

/// One subtask, as far as its events have been read.
struct Subtask {
    /// Whether its first attempt and its retries may have to wait for other subtasks of its job.
    is_limited: bool,
    /// Since when nobody runs it, and why.
    waits: Option<(Moment, Cause)>,
    /// The workers that run it.
    running: BTreeSet<u32>,
    /// The worker that ended it last.
    ended_by: Option<u32>,
}

/// Something that happened to a subtask.
#[derive(Clone, Copy)]
enum Event {
    Mark(What, u32),
    Lost(u32),
}

impl Subtask {
    /// Takes in the next event; gives a wait that it ends.
    fn take(&mut self, at: Moment, event: Event) -> Option<(Cause, Duration)> {
        match event {
            Event::Mark(What::Start, worker) => {
                self.running.insert(worker);
                let (since, cause) = self.waits.take()?;
                return Some((cause, at.since(since)));
            }
            Event::Mark(What::End, worker) => {
                self.running.remove(&worker);
                (self.waits, self.ended_by) = (None, Some(worker));
            }
            Event::Mark(What::Fail, worker) => {
                self.running.remove(&worker);
                let waits = self.running.is_empty() && !self.is_limited;
                self.waits = waits.then_some((at, Cause::Failed));
            }
            Event::Lost(worker) => {
                // What the worker had ended may have been in no commit yet.
                let may_be_lost = self.running.remove(&worker) || self.ended_by == Some(worker);
                if may_be_lost && self.running.is_empty() {
                    (self.waits, self.ended_by) = (Some((at, Cause::Lost)), None);
                }
            }
        }
        None
    }
}

impl History {
    /// All waits that ended. `asked` tells when each job was accepted, without the jobs that limit
    /// how many of their subtasks run at once: these wait for one another, so only losses count for
    /// them. `losses` are kills: a signal takes its time, so a worker is lost after its last mark.
    pub fn waits(&self, asked: &BTreeMap<Uuid, Moment>, losses: &[LossCause]) -> Vec<Wait> {
        let lost: HashMap<u32, Moment> = losses.iter().map(|it| (it.worker, it.at)).collect();
        let mut subtasks: BTreeMap<(Uuid, u64), Vec<&Mark>> = BTreeMap::new();
        for mark in &self.marks {
            subtasks.entry((mark.job, mark.index)).or_default().push(mark);
        }
        let mut waits = Vec::new();
        for ((job, index), marks) in subtasks {
            let mut events: Vec<(Moment, Event)> = Vec::new();
            let mut last: BTreeMap<u32, Moment> = BTreeMap::new();
            for Mark { what, worker, at, .. } in marks.into_iter().copied() {
                events.push((at, Event::Mark(what, worker)));
                let last = last.entry(worker).or_default();
                *last = at.max(*last);
            }
            for (worker, last) in last {
                let at = lost.get(&worker).map(|at| last.max(*at));
                events.extend(at.map(|at| (at, Event::Lost(worker))));
            }
            // Stable: of what happens at one moment a loss is the last.
            events.sort_by_key(|(at, _)| *at);
            let waiting = asked.get(&job).map(|at| (*at, Cause::Submitted));
            let mut subtask = Subtask {
                is_limited: waiting.is_none(),
                waits: waiting,
                running: BTreeSet::new(),
                ended_by: None,
            };
            let ended = events.into_iter().filter_map(|(at, event)| subtask.take(at, event));
            waits.extend(ended.map(|(cause, lasted)| Wait { job, index, cause, lasted }));
        }
        waits
    }
}

/// How long the waits for this were.
pub fn lasted(waits: &[Wait], cause: Cause) -> Vec<Duration> {
    waits.iter().filter(|wait| wait.cause == cause).map(|wait| wait.lasted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Uuid = Uuid::from_u128(7);

    fn ms(ms: u64) -> Moment {
        Moment { ns: ms * 1_000_000 }
    }

    /// The waits of one subtask with these marks (what, worker, ms), submitted at 100 ms, while
    /// worker 10 is killed at 1 s.
    #[track_caller]
    fn waited(marks: &[(What, u32, u64)], expected: &[(Cause, u64)]) {
        let mark = |&(what, worker, at): &(What, u32, u64)| Mark {
            what,
            job: JOB,
            index: 3,
            attempt: 1,
            worker,
            at: ms(at),
        };
        let marks = marks.iter().map(mark).collect();
        let history = History { marks, ..History::default() };
        let loss = LossCause { worker: 10, at: ms(1_000), for_good: true };
        let found = history.waits(&BTreeMap::from([(JOB, ms(100))]), &[loss]);
        let found: Vec<(Cause, u64)> =
            found.iter().map(|it| (it.cause, it.lasted.as_millis() as u64)).collect();
        assert_eq!(found, expected);
    }

    use Cause::{Failed, Lost, Submitted};
    use What::{End, Fail, Start};

    #[test]
    fn a_wait_lasts_from_its_cause_to_the_next_start() {
        waited(&[(Start, 11, 150), (End, 11, 160)], &[(Submitted, 50)]);
        let failed = [(Start, 11, 150), (Fail, 11, 160), (Start, 12, 190), (End, 12, 200)];
        waited(&failed, &[(Submitted, 50), (Failed, 30)]);
        let lost = [(Start, 10, 900), (Start, 11, 1_400), (End, 11, 1_500)];
        waited(&lost, &[(Submitted, 800), (Lost, 400)]);
        waited(&[(Start, 10, 900)], &[(Submitted, 800)]);
    }

    #[test]
    fn what_a_killed_worker_ended_and_did_not_commit_runs_again_and_what_it_failed_does_not_wait() {
        let again = [(Start, 10, 900), (End, 10, 950), (Start, 11, 1_300), (End, 11, 1_310)];
        waited(&again, &[(Submitted, 800), (Lost, 300)]);
        let late = [(Start, 10, 900), (End, 10, 1_005), (Start, 11, 1_300)];
        waited(&late, &[(Submitted, 800), (Lost, 295)]);
        let failed = [(Start, 10, 900), (Fail, 10, 950), (Start, 11, 1_300)];
        waited(&failed, &[(Submitted, 800), (Failed, 350)]);
    }

    #[test]
    fn nothing_waits_while_another_worker_runs_it() {
        let copied = [(Start, 10, 900), (Start, 11, 950), (End, 11, 1_300)];
        waited(&copied, &[(Submitted, 800)]);
        let copied = [(Start, 10, 900), (Start, 11, 950), (Fail, 11, 990), (Start, 12, 1_100)];
        waited(&copied, &[(Submitted, 800), (Lost, 100)]);
    }

    #[test]
    fn of_a_job_that_limits_itself_only_losses_count() {
        let mark =
            |(what, at)| Mark { what, job: JOB, index: 3, attempt: 1, worker: 11, at: ms(at) };
        let marks = [(Start, 9), (Fail, 10), (Start, 300)].map(mark).to_vec();
        let history = History { marks, ..History::default() };
        assert_eq!(history.waits(&BTreeMap::new(), &[]), []);
    }
}
