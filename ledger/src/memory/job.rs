//! One job's books, pure and synchronous: what is kept of it, and what controls do to it.
//!
//! `chunks.rs` hands out and settles, `revoking.rs` takes back from lost nodes, `audit.rs` recounts. Every operation takes the time as an argument and pushes
//! what it wants told onto a list of events. Deliberately absent: clocks, locks and retention, which belong to the shell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use longshore_protocol::state::{ChunkState, JobEvent, JobState};
use longshore_protocol::{
    ChunkId, ChunkMessage, Counts, Death, Digest, Epoch, JobId, JobSummary, LeftOut, NodeId,
    ReduceTree, Timestamp, Token,
};

use super::bitmap::Bitmap;
use super::recoveries::Recoveries;
use super::results::{Errors, Results};
use super::retries::{Retries, Waiting};
use crate::op::{Admission, Event, MAX_RETRY_INDICES};
use crate::poison::SUSPECT;
use crate::{ControlError, PriorState};

/// How long a rejected job is shown.
const KEEP_REJECTED: Duration = Duration::from_secs(24 * 60 * 60);

/// The rate follows a change to two thirds within this time.
const RATE_SECONDS: f64 = 10.0;

/// A job as the ledger keeps it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) admission: Admission,
    pub(super) tree: Option<ReduceTree>,
    pub(super) state: JobState,
    pub(super) resume_to: JobState,
    pub(super) counts: Counts,
    pub(super) reduce: Counts,
    /// The indices that are worked on now: the subtasks, or a level of the reduce.
    pub(super) level: Range<u64>,
    pub(super) cursor: u64,
    pub(super) last_chunk: u64,
    pub(super) chunks: BTreeMap<ChunkId, Chunk>,
    pub(super) retries: Retries,
    pub(super) done: Bitmap,
    pub(super) failed: Bitmap,
    pub(super) results: Results,
    pub(super) errors: Errors,
    pub(super) generation: u64,
    pub(super) attempts: u64,
    pub(super) busy: Duration,
    pub(super) lost: u64,
    pub(super) orphaned: u64,
    pub(super) reissued: u64,
    pub(super) copies: u64,
    pub(super) crashes: u64,
    pub(super) fenced: u64,
    pub(super) recoveries: Recoveries,
    pub(super) submitted_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) pace: Pace,
    pub(super) error: Option<String>,
    pub(super) last_error: Option<String>,
    /// The nodes whose failures use up no attempts.
    pub(super) absolved: Vec<NodeId>,
    /// When it was put back from the journal, which knows its numbers and nothing else.
    pub(super) restored_at: Option<Timestamp>,
}

/// A range of subtasks that is handed out and not settled.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) range: Range<u64>,
    pub(super) attempt: u32,
    pub(super) deferrals: u32,
    pub(super) epoch: Epoch,
    /// Where attempts at all of its subtasks failed, oldest first, once for each attempt.
    pub(super) tried: Vec<NodeId>,
    /// The nodes that died while they held it, or what it was cut from, oldest first.
    pub(super) deaths: Vec<Death>,
    /// The number of the recovery that queued it, until it is claimed.
    pub(super) recovery: Option<u64>,
    /// When it came into its state: was opened, claimed, released or revoked.
    pub(super) since: Timestamp,
    pub(super) state: ChunkState,
    /// What became of the second one that was offered, while it runs.
    pub(super) copy: Option<Copy>,
}

/// The chance of a second node to run what another one has been running for too long.
#[derive(Clone, Debug)]
pub(super) enum Copy {
    /// Whoever claims the chunk's epoch has it.
    Offered {
        /// Since when.
        at: Timestamp,
    },
    /// It runs.
    Held {
        /// Whoever shows this token may commit, too.
        token: Token,
        /// Who runs it.
        node: NodeId,
        /// When it was claimed.
        since: Timestamp,
    },
}

/// How fast subtasks are settled.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    rate: f64,
    settled: u64,
    at: Timestamp,
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(super) fn crashes(&self) -> u32 {
        self.deaths.len() as u32
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.crashes() >= SUSPECT
    }

    pub(super) fn message(&self, job: JobId, chunk: ChunkId) -> ChunkMessage {
        let v = ChunkMessage::VERSION;
        let Range { start: from, end: to } = self.range;
        ChunkMessage { v, job, chunk, from, to, epoch: self.epoch }
    }
}

impl Pace {
    fn measure(&mut self, settled: u64, now: Timestamp) {
        let seconds = now.since(self.at).as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        // A retry takes failures back; that is no progress, and none is lost either.
        let current = settled.saturating_sub(self.settled) as f64 / seconds;
        let weight = 1.0 - (-seconds / RATE_SECONDS).exp();
        self.rate =
            if self.rate == 0.0 { current } else { self.rate + (current - self.rate) * weight };
        self.settled = settled;
        self.at = now;
    }
}

impl Job {
    /// A job that was accepted.
    pub(super) fn admit(admission: &Admission, now: Timestamp) -> Self {
        let tree = admission.fan_in.map(|fan_in| ReduceTree::new(admission.total, fan_in));
        Self {
            tree,
            state: JobState::Queued,
            resume_to: JobState::Queued,
            counts: Counts::new(admission.total),
            reduce: tree.map(|tree| Counts::new(tree.node_count())).unwrap_or_default(),
            level: 0..admission.total,
            cursor: 0,
            last_chunk: 0,
            chunks: BTreeMap::new(),
            retries: Retries::default(),
            done: Bitmap::default(),
            failed: Bitmap::default(),
            results: Results::default(),
            errors: Errors::default(),
            generation: 0,
            attempts: 0,
            busy: Duration::ZERO,
            lost: 0,
            orphaned: 0,
            reissued: 0,
            copies: 0,
            crashes: 0,
            fenced: 0,
            recoveries: Recoveries::default(),
            submitted_at: now,
            started_at: None,
            finished_at: None,
            deadline_at: admission.deadline.map(|deadline| now.plus(deadline)),
            pace: Pace { at: now, ..Pace::default() },
            error: None,
            last_error: None,
            absolved: Vec::new(),
            restored_at: None,
            admission: admission.clone(),
        }
    }

    /// What is shown of a job that could not be accepted.
    pub(super) fn reject(job: JobId, error: &str, now: Timestamp) -> Self {
        let nothing = Admission {
            job,
            digest: Digest::new(""),
            document: String::new(),
            manifest: None,
            total: 0,
            task: String::new(),
            queue: String::new(),
            tenant: String::new(),
            priority: 0,
            fan_in: None,
            max_parallel: None,
            stop_after_failures: None,
            deadline: None,
            keep_for: KEEP_REJECTED,
            left_out: LeftOut::default(),
            open: None,
        };
        Self {
            state: JobState::Rejected,
            finished_at: Some(now),
            error: Some(error.to_owned()),
            ..Self::admit(&nothing, now)
        }
    }

    /// A job as the journal tells of it.
    pub(super) fn restore(admission: &Admission, was: &PriorState, now: Timestamp) -> Self {
        let (submitted_at, ending) = match was {
            PriorState::Open { submitted_at, .. } => (*submitted_at, None),
            PriorState::Ended(ending) => (ending.submitted_at, Some(ending)),
        };
        let fresh = Self::admit(admission, submitted_at);
        let Some(ending) = ending else {
            let paused = matches!(was, PriorState::Open { paused: true, .. });
            let state = if paused { JobState::Paused } else { JobState::Queued };
            return Self { state, ..fresh };
        };
        let [counts, reduce] = ending.counts();
        Self {
            state: ending.state,
            counts,
            reduce,
            generation: ending.generation,
            attempts: ending.attempts,
            busy: Duration::from_millis(ending.busy_ms),
            lost: ending.lost,
            started_at: ending.started_at,
            finished_at: Some(ending.finished_at),
            error: ending.error.clone(),
            restored_at: Some(now),
            ..fresh
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.admission.job
    }

    /// When it is forgotten; never while it has not ended.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.finished_at.map(|at| at.plus(self.admission.keep_for))
    }

    /// Nothing is handed out of a job that is paused or ended.
    pub(super) fn feeds(&self) -> bool {
        self.state != JobState::Paused && !self.state.is_terminal()
    }

    pub(super) fn summary(&self) -> JobSummary {
        let queued = self.chunks.values().filter(|chunk| is_queued(chunk)).count() as u64;
        let moves = matches!(self.state, JobState::Running | JobState::Reducing);
        let open = (self.counts.open() + self.reduce.open()) as f64;
        JobSummary {
            id: self.id(),
            state: self.state,
            task: self.admission.task.clone(),
            queue: self.admission.queue.clone(),
            tenant: self.admission.tenant.clone(),
            priority: self.admission.priority,
            counts: self.counts,
            reduce: self.reduce,
            cursor: self.cursor,
            queued_chunks: queued,
            running_chunks: self.chunks.len() as u64 - queued,
            generation: self.generation,
            attempts: self.attempts,
            busy: self.busy,
            lost: self.lost,
            recoveries: self.recoveries.count(),
            crashes: self.crashes,
            orphaned: self.orphaned,
            reissued: self.reissued,
            copies: self.copies,
            fenced: self.fenced,
            left_out: self.admission.left_out.clone(),
            next_retry_at: self.retries.next_due(),
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            deadline_at: self.deadline_at,
            restored_at: self.restored_at,
            rate: self.pace.rate,
            // A rate of 0 gives no duration.
            eta: Duration::try_from_secs_f64(open / self.pace.rate).ok().filter(|_| moves),
            error: self.error.clone(),
            last_error: self.last_error.clone(),
        }
    }

    /// Brings the rate up to date.
    pub(super) fn measure(&mut self, now: Timestamp) {
        let settled = [self.counts, self.reduce].map(|counts| counts.done + counts.failed);
        self.pace.measure(settled.into_iter().sum(), now);
    }

    // Levels

    /// Whether the level is the subtasks themselves.
    pub(super) fn at_leaves(&self) -> bool {
        self.level.start == 0
    }

    /// The books that the current level is part of: those of the reduce count all its levels.
    pub(super) fn level_books(&mut self) -> &mut Counts {
        if self.at_leaves() { &mut self.counts } else { &mut self.reduce }
    }

    /// How many reduce nodes lie in levels above the current one.
    pub(super) fn above(&self) -> u64 {
        self.counts.total + self.reduce.total - self.level.end
    }

    /// The current level's own books, less the levels above it. Those are all waiting or all cancelled.
    pub(super) fn own_books(&self) -> Counts {
        if self.at_leaves() {
            return self.counts;
        }
        let mut counts = self.reduce;
        counts.waiting = counts.waiting.saturating_sub(self.above());
        counts.cancelled = counts.cancelled.saturating_sub(self.above());
        counts
    }

    // The end

    /// Ends the job in the state that the table gave.
    pub(super) fn end(
        &mut self,
        state: JobState,
        error: Option<String>,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        self.state = state;
        self.error = error;
        self.finished_at = Some(now);
        self.chunks.clear();
        self.retries.clear();
        for counts in [&mut self.counts, &mut self.reduce] {
            counts.cancelled += counts.open();
            (counts.waiting, counts.queued, counts.running, counts.retrying) = (0, 0, 0, 0);
        }
        events.push(self.changed());
    }

    pub(super) fn changed(&self) -> Event {
        Event::Job { job: self.id(), state: self.state }
    }

    // Control

    pub(super) fn pause(&mut self, events: &mut Vec<Event>) -> Result<JobState, ControlError> {
        let next = self.state.on(JobEvent::Pause, self.resume_to)?;
        if next != self.state {
            self.resume_to = self.state;
            self.state = next;
            events.push(self.changed());
        }
        Ok(next)
    }

    pub(super) fn resume(
        &mut self,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<JobState, ControlError> {
        let next = self.state.on(JobEvent::Resume, self.resume_to)?;
        if next != self.state {
            self.state = next;
            for chunk in self.chunks.values_mut() {
                if let ChunkState::Queued { due } = &mut chunk.state {
                    *due = now;
                }
            }
            events.push(self.changed());
        }
        Ok(next)
    }

    pub(super) fn cancel(
        &mut self,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<JobState, ControlError> {
        let next = self.state.on(JobEvent::Cancel, self.resume_to)?;
        if next != self.state {
            self.end(next, None, now, events);
        }
        Ok(next)
    }

    pub(super) fn fail(
        &mut self,
        error: &str,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<JobState, ControlError> {
        let next = self.state.on(JobEvent::Fail, self.resume_to)?;
        self.end(next, Some(error.to_owned()), now, events);
        Ok(next)
    }

    pub(super) fn retry(
        &mut self,
        indices: Option<&[u64]>,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<JobState, ControlError> {
        let next = self.state.on(JobEvent::Retry, self.resume_to)?;
        let ended = self.state.is_terminal();
        match indices {
            Some(indices) => {
                let indices = self.all_failed(indices)?;
                if ended {
                    self.reopen(next);
                    self.cursor = self.level.end;
                    if self.own_books().cancelled == 0 {
                        self.await_above();
                    }
                }
                self.retry_failed(&indices, now);
            }
            None if ended => {
                self.reopen(next);
                if self.restored_at.take().is_some() {
                    self.forget_outcomes();
                }
                self.await_level();
            }
            None => {
                let indices = self.first_failed();
                if indices.is_empty() {
                    return Ok(next);
                }
                self.retry_failed(&indices, now);
            }
        }
        self.generation += 1;
        events.push(self.changed());
        Ok(next)
    }

    fn reopen(&mut self, state: JobState) {
        self.state = state;
        self.finished_at = None;
        self.deadline_at = None;
        self.error = None;
    }

    /// All of the level that is not done waits again, and so do the levels above.
    fn await_level(&mut self) {
        self.failed.clear_range(self.level.clone());
        self.errors.clear();
        self.cursor = self.level.start;
        for counts in [&mut self.counts, &mut self.reduce] {
            counts.waiting += counts.failed + counts.cancelled;
            (counts.failed, counts.cancelled) = (0, 0);
        }
    }

    /// What is known by its numbers alone runs again.
    fn forget_outcomes(&mut self) {
        for counts in [&mut self.counts, &mut self.reduce] {
            counts.failed += std::mem::take(&mut counts.done);
        }
    }

    /// The levels above, cancelled when the job ended, wait again.
    fn await_above(&mut self) {
        let above = self.above();
        self.reduce.cancelled -= above;
        self.reduce.waiting += above;
    }

    fn retry_failed(&mut self, indices: &BTreeSet<u64>, now: Timestamp) {
        for &index in indices {
            self.failed.clear_range(index..index + 1);
            self.errors.forget(index);
            let tried = Vec::new();
            self.retries.insert(Waiting { attempt: 1, deferrals: 0, index, tried }, now);
        }
        let counts = self.level_books();
        counts.failed -= indices.len() as u64;
        counts.retrying += indices.len() as u64;
    }

    fn first_failed(&self) -> BTreeSet<u64> {
        let mut at = self.level.start;
        std::iter::from_fn(|| {
            let index = self.failed.next_one(at..self.level.end)?;
            at = index + 1;
            Some(index)
        })
        .take(MAX_RETRY_INDICES)
        .collect()
    }

    fn all_failed(&self, indices: &[u64]) -> Result<BTreeSet<u64>, ControlError> {
        let bad = |text: String| Err(ControlError::BadIndices(text));
        if indices.is_empty() {
            return bad("no subtasks named".into());
        }
        if indices.len() > MAX_RETRY_INDICES {
            return bad(format!("{} subtasks named; at most {MAX_RETRY_INDICES}", indices.len()));
        }
        match indices.iter().find(|index| !self.failed.get(**index)) {
            Some(index) => bad(format!("subtask {index} has not failed")),
            None => Ok(indices.iter().copied().collect()),
        }
    }
}

pub(super) fn is_queued(chunk: &Chunk) -> bool {
    matches!(chunk.state, ChunkState::Queued { .. })
}
