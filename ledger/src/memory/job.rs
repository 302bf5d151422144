//! One job with its open chunks: how it is admitted, restored, controlled, retried and ended.
//!
//! It is pure and synchronous. The operations on chunks are in `chunks.rs`, the revocation of
//! chunks of lost nodes in `revoking.rs`, the audit in `audit.rs`. Every operation takes the time
//! as an argument and adds its hints to a list of events. Deliberately absent: clocks, locks and
//! expiry (see `memory.rs` and `store.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use longshore_protocol::state::{ChunkState, JobEvent, JobState};
use longshore_protocol::{
    ChunkId, ChunkMessage, Counts, Death, Digest, Epoch, Hint, JobId, JobSummary, NodeId,
    ReduceTree, Timestamp, Token,
};

use super::bitmap::Bitmap;
use super::recoveries::Recoveries;
use super::results::{Errors, Results};
use super::retries::{Retries, Waiting};
use crate::op::{Admission, Event, MAX_RETRY_INDICES};
use crate::poison::SUSPECT;
use crate::{ControlError, PriorState};

/// How long a rejected job is kept.
const KEEP_REJECTED: Duration = Duration::from_secs(24 * 60 * 60);

/// The time constant of the moving average of the rate, in seconds.
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
    /// The indices of the current level: the subtasks, or a level of the reduce.
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
    pub(super) speculative_chunks: u64,
    pub(super) crashes: u64,
    pub(super) fenced: u64,
    pub(super) recoveries: Recoveries,
    pub(super) submitted_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) rate: RateMeter,
    pub(super) error: Option<String>,
    pub(super) last_error: Option<String>,
    /// The nodes whose failures don't count as attempts.
    pub(super) refunded: Vec<NodeId>,
    /// When the job was restored from the journal, which holds its counts only.
    pub(super) restored_at: Option<Timestamp>,
}

/// An open chunk: a range of subtasks that is handed out and not settled.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) range: Range<u64>,
    pub(super) attempt: u32,
    pub(super) deferrals: u32,
    pub(super) epoch: Epoch,
    /// The nodes on which attempts at all of its subtasks failed, oldest first, once for each
    /// attempt.
    pub(super) tried: Vec<NodeId>,
    /// The nodes that died while they held the chunk, or the chunk from which it was cut, oldest
    /// first.
    pub(super) deaths: Vec<Death>,
    /// The number of the recovery that queued the chunk, until it is claimed.
    pub(super) recovery: Option<u64>,
    /// When the chunk entered its state: was opened, claimed, released or revoked.
    pub(super) since: Timestamp,
    pub(super) state: ChunkState,
    /// The speculative execution of the chunk, while it is offered or held.
    pub(super) speculation: Option<Speculation>,
}

/// The execution of a chunk by a second node, beside its holder.
#[derive(Clone, Debug)]
pub(super) enum Speculation {
    /// The claim of the chunk's epoch by another node is granted.
    Offered {
        /// When it was offered.
        at: Timestamp,
    },
    /// A second node holds the chunk.
    Held {
        /// The token of the second node.
        token: Token,
        /// The second node.
        node: NodeId,
        /// When the second node claimed the chunk.
        since: Timestamp,
    },
}

/// Measures how many subtasks are settled a second, as a moving average.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter {
    value: f64,
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

impl RateMeter {
    fn measure(&mut self, settled: u64, now: Timestamp) {
        let seconds = now.since(self.at).as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        // A retry lowers the number of failures, which counts neither as progress nor as its
        // opposite.
        let current = settled.saturating_sub(self.settled) as f64 / seconds;
        let weight = 1.0 - (-seconds / RATE_SECONDS).exp();
        self.value =
            if self.value == 0.0 { current } else { self.value + (current - self.value) * weight };
        self.settled = settled;
        self.at = now;
    }
}

impl Job {
    /// A job that was just accepted.
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
            speculative_chunks: 0,
            crashes: 0,
            fenced: 0,
            recoveries: Recoveries::default(),
            submitted_at: now,
            started_at: None,
            finished_at: None,
            deadline_at: admission.deadline.map(|deadline| now.plus(deadline)),
            rate: RateMeter { at: now, ..RateMeter::default() },
            error: None,
            last_error: None,
            refunded: Vec::new(),
            restored_at: None,
            admission: admission.clone(),
        }
    }

    /// The record of a job that was rejected.
    pub(super) fn reject(job: JobId, error: &str, now: Timestamp) -> Self {
        let nothing = Admission {
            digest: Digest::new(""),
            document: String::new(),
            task: String::new(),
            queue: String::new(),
            tenant: String::new(),
            priority: 0,
            keep_for: KEEP_REJECTED,
            ..Admission::plain(job, 0)
        };
        Self {
            state: JobState::Rejected,
            finished_at: Some(now),
            error: Some(error.to_owned()),
            ..Self::admit(&nothing, now)
        }
    }

    /// A job as the journal describes it.
    pub(super) fn restore(admission: &Admission, prior: &PriorState, now: Timestamp) -> Self {
        let (submitted_at, ending) = match prior {
            PriorState::Open { submitted_at, .. } => (*submitted_at, None),
            PriorState::Ended(ending) => (ending.submitted_at, Some(ending)),
        };
        let fresh = Self::admit(admission, submitted_at);
        let Some(ending) = ending else {
            let paused = matches!(prior, PriorState::Open { paused: true, .. });
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

    /// When the job expires; `None` while it has not ended.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.finished_at.map(|at| at.plus(self.admission.keep_for))
    }

    /// Whether chunks are handed out: the job is neither paused nor ended.
    pub(super) fn feeds(&self) -> bool {
        self.state.feeds()
    }

    pub(super) fn summary(&self) -> JobSummary {
        let queued = self.chunks.values().filter(|chunk| is_queued(chunk)).count() as u64;
        let moves = self.state.is_in_progress();
        let open = (self.counts.open() + self.reduce.open()) as f64;
        JobSummary {
            id: self.id(),
            state: self.state,
            task: self.admission.task.clone(),
            queue: self.admission.queue.clone(),
            tenant: self.admission.tenant.clone(),
            name: self.admission.name.clone(),
            labels: self.admission.labels.clone(),
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
            speculative_chunks: self.speculative_chunks,
            fenced: self.fenced,
            left_out: self.admission.left_out.clone(),
            next_retry_at: self.retries.next_due(),
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            deadline_at: self.deadline_at,
            restored_at: self.restored_at,
            rate: self.rate.value,
            // A rate of 0 gives no duration.
            eta: Duration::try_from_secs_f64(open / self.rate.value).ok().filter(|_| moves),
            error: self.error.clone(),
            last_error: self.last_error.clone(),
        }
    }

    /// Updates the rate.
    pub(super) fn measure(&mut self, now: Timestamp) {
        let settled = [self.counts, self.reduce].map(|counts| counts.done + counts.failed);
        self.rate.measure(settled.into_iter().sum(), now);
    }

    // Levels

    /// Whether the current level is the level of the subtasks.
    pub(super) fn at_leaves(&self) -> bool {
        self.level.start == 0
    }

    /// The counts to which the current level belongs: those of the subtasks, or those of all levels
    /// of the reduce.
    pub(super) fn level_counts(&mut self) -> &mut Counts {
        if self.at_leaves() { &mut self.counts } else { &mut self.reduce }
    }

    /// The number of reduce nodes in the levels above the current one.
    pub(super) fn above(&self) -> u64 {
        self.counts.total + self.reduce.total - self.level.end
    }

    /// The counts of the current level alone. The levels above it are all waiting or all cancelled.
    pub(super) fn own_counts(&self) -> Counts {
        if self.at_leaves() {
            return self.counts;
        }
        let mut counts = self.reduce;
        counts.waiting = counts.waiting.saturating_sub(self.above());
        counts.cancelled = counts.cancelled.saturating_sub(self.above());
        counts
    }

    // The end

    /// Ends the job in `state`, as the table of transitions gave it.
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
        Event::Hint(Hint::Job { job: self.id(), state: self.state })
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
                    if self.own_counts().cancelled == 0 {
                        self.reset_above();
                    }
                }
                self.retry_failed(&indices, now);
            }
            None if ended => {
                self.reopen(next);
                if self.restored_at.take().is_some() {
                    self.forget_outcomes();
                }
                self.reset_level();
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

    /// Sets all of the level that is not done to waiting, and the levels above.
    fn reset_level(&mut self) {
        self.failed.clear_range(self.level.clone());
        self.errors.clear();
        self.cursor = self.level.start;
        for counts in [&mut self.counts, &mut self.reduce] {
            counts.waiting += counts.failed + counts.cancelled;
            (counts.failed, counts.cancelled) = (0, 0);
        }
    }

    /// Sets the subtasks of a restored job, of which only counts are known, to failed, so that they
    /// run again.
    fn forget_outcomes(&mut self) {
        for counts in [&mut self.counts, &mut self.reduce] {
            counts.failed += std::mem::take(&mut counts.done);
        }
    }

    /// Sets the levels above, which were cancelled when the job ended, to waiting.
    fn reset_above(&mut self) {
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
        let counts = self.level_counts();
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
