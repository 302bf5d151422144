//! Measures from the history how long subtasks waited for an attempt, and why.
//!
//! ```text
//!   submitted ──▶ start        failed ──▶ start        worker lost ──▶ start
//! ```
//!
//! While slots are free, a wait is the time that Longshore takes to start a subtask, for the first
//! time or again. Deliberately absent: a limit, which is in `checker`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Moment;
use crate::history::{History, Mark, WorkerLoss};
use crate::marks::What;

/// The cause of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The job was accepted, and the first attempt had not begun.
    Submitted,
    /// An attempt failed.
    Failed,
    /// The worker was lost while it ran the subtask, or before it committed it.
    Lost,
}

/// A time in which no worker ran a subtask, until one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The job.
    pub job: Uuid,
    /// The subtask.
    pub index: u64,
    /// The cause.
    pub cause: Cause,
    /// The duration.
    pub lasted: Duration,
}

/// The state of a subtask after some of its events.
struct Subtask {
    /// Whether its first attempt and its retries may have to wait for other subtasks of its job.
    is_limited: bool,
    /// The start and the cause of the current wait.
    waits: Option<(Moment, Cause)>,
    /// The workers that run it.
    running: BTreeSet<u32>,
    /// The last worker that ended it.
    ended_by: Option<u32>,
}

/// An event of a subtask.
#[derive(Clone, Copy)]
enum Event {
    Mark(What, u32),
    Lost(u32),
}

impl Subtask {
    /// Handles the next event; returns the wait that it ends.
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
                // An attempt that the worker had ended may not have been committed yet.
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
    /// All waits that ended. `accepted` has the times at which jobs were accepted, without the jobs
    /// that limit how many of their subtasks run at once: these wait for each other, so only losses
    /// count for them. `losses` are kills. A signal takes time to arrive, so a worker is lost after
    /// its last mark.
    pub fn waits(&self, accepted: &BTreeMap<Uuid, Moment>, losses: &[WorkerLoss]) -> Vec<Wait> {
        let lost: HashMap<u32, Moment> = losses.iter().map(|loss| (loss.worker, loss.at)).collect();
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
            // A stable sort: at equal times the loss comes last.
            events.sort_by_key(|(at, _)| *at);
            let waiting = accepted.get(&job).map(|at| (*at, Cause::Submitted));
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

/// The durations of the waits with this cause.
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

    /// Checks the waits of one subtask with these marks (event, worker, ms). It is submitted at 100
    /// ms, and worker 10 is killed at 1 s.
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
        let loss = WorkerLoss { worker: 10, at: ms(1_000), for_good: true };
        let found = history.waits(&BTreeMap::from([(JOB, ms(100))]), &[loss]);
        let found: Vec<(Cause, u64)> =
            found.iter().map(|wait| (wait.cause, wait.lasted.as_millis() as u64)).collect();
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
    fn uncommitted_subtasks_of_a_killed_worker_wait_for_the_loss_and_failed_ones_for_a_retry() {
        let again = [(Start, 10, 900), (End, 10, 950), (Start, 11, 1_300), (End, 11, 1_310)];
        waited(&again, &[(Submitted, 800), (Lost, 300)]);
        let late = [(Start, 10, 900), (End, 10, 1_005), (Start, 11, 1_300)];
        waited(&late, &[(Submitted, 800), (Lost, 295)]);
        let failed = [(Start, 10, 900), (Fail, 10, 950), (Start, 11, 1_300)];
        waited(&failed, &[(Submitted, 800), (Failed, 350)]);
    }

    #[test]
    fn a_subtask_does_not_wait_while_another_worker_runs_it() {
        let speculative = [(Start, 10, 900), (Start, 11, 950), (End, 11, 1_300)];
        waited(&speculative, &[(Submitted, 800)]);
        let failed = [(Start, 10, 900), (Start, 11, 950), (Fail, 11, 990), (Start, 12, 1_100)];
        waited(&failed, &[(Submitted, 800), (Lost, 100)]);
    }

    #[test]
    fn only_losses_count_for_jobs_with_max_parallel() {
        let mark =
            |(what, at)| Mark { what, job: JOB, index: 3, attempt: 1, worker: 11, at: ms(at) };
        let marks = [(Start, 9), (Fail, 10), (Start, 300)].map(mark).to_vec();
        let history = History { marks, ..History::default() };
        assert_eq!(history.waits(&BTreeMap::new(), &[]), []);
    }
}
