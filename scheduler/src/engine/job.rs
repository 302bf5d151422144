//! One job that this scheduler feeds: what can be opened of it, what that costs, when it is read.
//!
//! The summary is what the ledger said last, brought up to date with what was opened since.
//! Deliberately absent: other jobs.

use std::time::Duration;

use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::state::JobState;
use longshore_protocol::{Backoff, JobSummary, NodeId, ReasonCode, ReduceTree, Timestamp};

use super::chunk_size::{Meter, Sizer};
use super::event::{JobSpec, RoutedChunk};
use super::fleet::Fleet;
use super::pool::PoolKey;
use super::speculation;
use super::window::{AHEAD_EACH, Load, UNMEASURED};

/// The time between two sweeps of a job with open chunks.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The time between two reads of a job without open chunks. Hints tell sooner; this is for hints
/// that get lost.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Among many jobs each is read more rarely, so that jobs that only wait for their turn cost the
/// ledger at most 200 reads a second; where hints are known to be lost, 500.
const READS_APART: Duration = Duration::from_millis(5);
const READS_APART_AFTER_GAP: Duration = Duration::from_millis(2);

/// After a hint the next sweep comes this long after the last one: soon for chunks that were
/// released, rare enough for a job that closes thousands of chunks a second.
const SWEEP_AFTER_HINT: Duration = Duration::from_millis(50);

/// After something that loses messages (the scheduler that published them died, or a node that may
/// have fetched them) this many sweeps in a row, this far apart, publish again what no worker has
/// claimed. Several, because what is published again may be fetched by the next node that is about
/// to be found dead.
const SUSPECT_SWEEPS: u32 = 3;
const SUSPECT_SWEEPS_APART: Duration = Duration::from_millis(300);

/// The time between two reads of a job's holders, besides those after each loss. Long, since they
/// only find chunks that were claimed after their worker was lost, or that are held unknowingly.
const HOLDERS_EVERY: Duration = Duration::from_secs(5);

/// The pauses after the ledger opened nothing though the summary promised something.
const OPEN_BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(20), Duration::from_secs(1));

/// The time between two calls that fail a job, until it has failed.
const FAIL_EVERY: Duration = Duration::from_secs(1);

/// What a chunk is charged at before anything was measured. Little, so that little has to be paid
/// back; a chunk that takes longer is charged for as long as it has been running.
const FIRST_COST: Duration = Duration::from_millis(10);

/// More than any chunk takes, small enough that the sum over all jobs of a queue fits: three years.
const LONGEST_WORK_US: f64 = 1e14;

/// What could be opened of a job now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// The most chunks.
    pub(super) chunks: u64,
    /// The most subtasks in each of them.
    pub(super) size: u64,
}

/// Chunks that the ledger was asked to open and has not answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// The number of chunks.
    pub(super) chunks: u64,
    /// The subtasks in each of them.
    pub(super) size: u64,
}

/// A job of a queue that this scheduler feeds.
#[derive(Debug)]
pub(super) struct Job {
    /// What the ledger said last, plus what was opened since.
    pub(super) summary: JobSummary,
    /// From the job's document; `None` until that was read.
    pub(super) spec: Option<JobSpec>,
    /// The pool that the job is in.
    pub(super) pool: PoolKey,
    /// The nodes whose failures do not use up attempts of the job, as the ledger was last told.
    pub(super) refunded_nodes: Vec<NodeId>,
    /// The part of the pool's load that comes from this job.
    pub(super) counted_load: Load,
    meter: Meter,
    sizer: Sizer,
    in_reduce: bool,
    /// The worker time that the job had used when this scheduler first saw it.
    used_before: Duration,
    /// The worker time that the job was charged, in µs.
    charged_us: f64,
    next_sweep: Timestamp,
    swept_at: Timestamp,
    /// How many more sweeps take unclaimed messages for lost.
    suspect_sweeps: u32,
    next_suspect_sweep: Timestamp,
    next_holders: Timestamp,
    /// The holders have to be read, whatever the time.
    wants_holders: bool,
    /// Nothing is opened before this time.
    no_open_until: Timestamp,
    open_backoff: Backoff,
    no_fail_until: Timestamp,
    pub(super) next_speculation: Timestamp,
}

impl Job {
    /// A job that this scheduler sees for the first time; `jobs` is the number of all jobs.
    pub(super) fn new(now: Timestamp, jobs: u32, summary: JobSummary) -> Self {
        // An earlier scheduler may have died before it published what it opened.
        let is_open = summary.queued_chunks + summary.running_chunks > 0;
        let mut job = Self {
            spec: None,
            pool: PoolKey::shared(&summary.queue),
            refunded_nodes: Vec::new(),
            counted_load: Load::default(),
            meter: Meter::default(),
            sizer: Sizer::new(),
            in_reduce: false,
            used_before: summary.busy,
            charged_us: 0.0,
            next_sweep: if is_open { now } else { now.plus(read_every(jobs)) },
            swept_at: Timestamp::default(),
            suspect_sweeps: if is_open { SUSPECT_SWEEPS } else { 0 },
            next_suspect_sweep: now,
            next_holders: now.plus(HOLDERS_EVERY),
            // Holders may have been lost before this scheduler knew of the job.
            wants_holders: is_open,
            no_open_until: Timestamp::default(),
            open_backoff: OPEN_BACKOFF,
            no_fail_until: Timestamp::default(),
            next_speculation: now.plus(speculation::slow_after(Duration::ZERO)),
            summary,
        };
        job.measure();
        job
    }

    /// The ledger said how the job stands.
    pub(super) fn update(&mut self, summary: JobSummary) {
        let was_open = self.is_open();
        self.summary = summary;
        // Another scheduler opened chunks, or this one did and the answer was lost.
        self.wants_holders |= !was_open && self.is_open();
        self.measure();
    }

    /// Learns from the counters of the summary how long a subtask takes.
    fn measure(&mut self) {
        let in_reduce = self.summary.cursor >= self.summary.counts.total
            && self.summary.counts.open() == 0
            && self.summary.reduce.total > 0;
        let is_measured = self.meter.observe(self.summary.busy, self.summary.attempts);
        if in_reduce != self.in_reduce {
            // To combine results takes another time than to make them.
            self.in_reduce = in_reduce;
            self.meter.forget();
            self.sizer = Sizer::new();
        } else if let (true, Some(mean)) = (is_measured, self.meter.mean_us()) {
            self.sizer.learn(mean);
        }
    }

    /// The ledger opened chunks. Returns whether the summary still says all; if not, the job has to
    /// be read.
    pub(super) fn opened(&mut self, now: Timestamp, asked: u64, chunks: &[RoutedChunk]) -> bool {
        let mut is_complete = chunks.len() as u64 == asked;
        for RoutedChunk { message, .. } in chunks {
            let summary = &mut self.summary;
            let counts = if message.from < summary.counts.total {
                &mut summary.counts
            } else {
                &mut summary.reduce
            };
            let count = message.to - message.from;
            if message.from >= summary.cursor {
                counts.waiting = counts.waiting.saturating_sub(count);
                summary.cursor = message.to;
            } else {
                counts.retrying = counts.retrying.saturating_sub(count);
                is_complete = false;
            }
            counts.queued += count;
            summary.queued_chunks += 1;
        }
        if chunks.is_empty() {
            self.no_open_until = now.plus(self.open_backoff.next_pause());
        } else {
            self.open_backoff.reset();
            // While it had no open chunks, and was one of many, the next sweep was far away.
            self.next_sweep = self.next_sweep.min(now.plus(SWEEP_EVERY));
            self.next_speculation = now.plus(speculation::slow_after(Duration::ZERO));
        }
        is_complete
    }

    /// The subtasks of the present level (of the reduce, or of the job itself) that were never in a
    /// chunk.
    pub(super) fn unopened(&self) -> u64 {
        let summary = &self.summary;
        let total = summary.counts.total;
        if summary.cursor < total {
            return summary.counts.waiting.min(total - summary.cursor);
        }
        let Some(fan_in) = self.spec.as_ref().and_then(|spec| spec.fan_in) else { return 0 };
        let unsettled = [&summary.counts, &summary.reduce]
            .iter()
            .map(|counts| counts.queued + counts.running + counts.retrying)
            .sum::<u64>();
        match ReduceTree::new(total, fan_in).levels().find(|l| l.contains(&summary.cursor)) {
            // At the start of a level whose inputs are not all there.
            Some(level) if level.start == summary.cursor && unsettled > 0 => 0,
            Some(level) => summary.reduce.waiting.min(level.end - summary.cursor),
            None => 0,
        }
    }

    /// What could be opened now, with this many slots in the pool, or what blocks the job. An offer
    /// of no chunk says that nothing is left to open, or that it is not known yet.
    pub(super) fn offer(
        &self,
        now: Timestamp,
        ledger_now: Option<Timestamp>,
        slots: u64,
    ) -> Result<Offer, ReasonCode> {
        let state = self.summary.state;
        if state.is_paused() {
            return Err(ReasonCode::Paused);
        }
        let may_open = state.feeds() && now >= self.no_open_until;
        let Some(spec) = self.spec.as_ref().filter(|_| may_open) else {
            return Ok(Offer::default());
        };
        let unopened = self.unopened();
        let retrying = self.summary.counts.retrying + self.summary.reduce.retrying;
        let due = match (self.summary.next_retry_at, ledger_now) {
            (Some(at), Some(ledger_now)) if at <= ledger_now => retrying,
            _ => 0,
        };
        let slots = spec.max_parallel.map_or(slots, |most| most.min(slots));
        let size = match (self.is_placed_by_key(), self.in_reduce) {
            // Neighbours have other keys.
            (true, false) => 1,
            (_, true) => self.sizer.reduce_size(unopened + due, slots),
            (false, false) => self.sizer.size(spec.chunk, unopened + due, slots),
        };
        let open = self.summary.queued_chunks + self.summary.running_chunks;
        let fit = spec.max_parallel.map_or(u64::MAX, |most| most.saturating_sub(open));
        match unopened.div_ceil(size) + due {
            0 if retrying > 0 => Err(ReasonCode::Backoff),
            chunks if chunks > 0 && fit == 0 => Err(ReasonCode::MaxParallel),
            chunks => Ok(Offer { chunks: chunks.min(fit), size }),
        }
    }

    /// What one more chunk is charged at first, in µs of worker time.
    pub(super) fn estimated_cost_us(&self, size: u64, ledger_now: Option<Timestamp>) -> f64 {
        match self.meter.mean_us() {
            Some(mean) => mean * size as f64,
            None => self.unmeasured_us(FIRST_COST, ledger_now),
        }
    }

    /// While no attempt has ended, a chunk takes at least as long as the first has been running.
    fn unmeasured_us(&self, at_least: Duration, ledger_now: Option<Timestamp>) -> f64 {
        let is_running = self.summary.running_chunks > 0 && self.summary.attempts == 0;
        let elapsed = match (is_running, self.summary.started_at, ledger_now) {
            (true, Some(started), Some(ledger_now)) => ledger_now.since(started),
            _ => Duration::ZERO,
        };
        elapsed.max(at_least).as_secs_f64() * 1e6
    }

    /// The fair queue has charged the job for one more chunk.
    pub(super) fn charge(&mut self, cost_us: f64) {
        self.charged_us += cost_us;
    }

    /// What the fair queue has to charge now, in µs: the worker time that the job has used since it
    /// is known here, and will use for its open chunks, less what it was charged before.
    pub(super) fn take_debt_us(&mut self, ledger_now: Option<Timestamp>) -> f64 {
        let summary = &self.summary;
        let used = summary.busy.saturating_sub(self.used_before).as_secs_f64() * 1e6;
        let open = match self.meter.mean_us() {
            Some(mean) => {
                let subtasks = summary.counts.queued
                    + summary.counts.running
                    + summary.reduce.queued
                    + summary.reduce.running;
                mean * subtasks as f64
            }
            None => {
                let chunks = summary.queued_chunks + summary.running_chunks;
                chunks as f64 * self.unmeasured_us(FIRST_COST, ledger_now)
            }
        };
        let debt = used + open - self.charged_us;
        self.charged_us += debt;
        debt
    }

    /// Whether the document says how large the present chunks are.
    fn has_fixed_size(&self) -> bool {
        let is_fixed = |spec: &JobSpec| {
            matches!((spec.chunk, &spec.placement), (Chunk::Fixed(_), Placement::Shared))
        };
        !self.in_reduce && self.spec.as_ref().is_some_and(is_fixed)
    }

    /// The task that runs now: the job's own, or the one that combines results. `None` if the spec
    /// that names the latter was not loaded.
    pub(super) fn task(&self) -> Option<&str> {
        if self.in_reduce {
            return self.spec.as_ref()?.reduce_task.as_deref();
        }
        Some(&self.summary.task)
    }

    /// The mean time that a subtask takes, in µs.
    pub(super) fn mean_us(&self) -> Option<f64> {
        self.meter.mean_us()
    }

    /// After which time a chunk of the job is slow.
    pub(super) fn slow_after(&self, slots: u64) -> Option<Duration> {
        let chunk = match &self.spec {
            Some(spec) if !self.in_reduce => spec.chunk,
            _ => Chunk::Auto,
        };
        Some(speculation::slow_after(Sizer::usual(chunk, self.meter.mean_us()?, slots)))
    }

    /// The ledger was asked for slow chunks.
    pub(super) fn speculation_offered(&mut self, now: Timestamp, slots: u64) {
        let slow_after = self.slow_after(slots).unwrap_or_default();
        self.next_speculation = now.plus(speculation::pause(slow_after));
    }

    /// What the job adds to the load of its pool.
    pub(super) fn load(&self, opening: Option<Opening>, ledger_now: Option<Timestamp>) -> Load {
        let summary = &self.summary;
        let opening = opening.unwrap_or(Opening { chunks: 0, size: 0 });
        let waiting = summary.queued_chunks + opening.chunks;
        let work = match self.meter.mean_us() {
            Some(mean) => {
                let opened = opening.chunks.saturating_mul(opening.size);
                let subtasks = summary.counts.queued.saturating_add(summary.reduce.queued);
                mean * subtasks.saturating_add(opened) as f64
            }
            None => waiting as f64 * self.unmeasured_us(UNMEASURED, ledger_now),
        };
        // Many short chunks wait only for jobs whose documents want them short; those of other jobs
        // would have grown meanwhile.
        let at_least = if self.has_fixed_size() { Duration::ZERO } else { AHEAD_EACH };
        let work = work.max(waiting as f64 * at_least.as_secs_f64() * 1e6);
        Load { waiting, running: summary.running_chunks, work_us: work.min(LONGEST_WORK_US) as u64 }
    }

    /// Whether the deadline has passed and the job is to be failed now.
    pub(super) fn has_missed_deadline(
        &self,
        now: Timestamp,
        ledger_now: Option<Timestamp>,
    ) -> bool {
        let is_past = self.summary.deadline_at.zip(ledger_now).is_some_and(|(at, is)| at <= is);
        is_past && now >= self.no_fail_until
    }

    /// The job is being failed.
    pub(super) fn failing(&mut self, now: Timestamp) {
        self.no_fail_until = now.plus(FAIL_EVERY);
    }

    /// Whether the job is to be swept.
    pub(super) fn sweep_is_due(&self, now: Timestamp) -> bool {
        now >= self.next_sweep
    }

    /// The job was swept, as one of `jobs`; `is_hinted` if it has changed meanwhile.
    pub(super) fn swept(&mut self, now: Timestamp, is_hinted: bool, jobs: u32) {
        self.swept_at = now;
        let pause = match (is_hinted, self.is_open()) {
            (true, _) => SWEEP_AFTER_HINT,
            (false, true) => SWEEP_EVERY,
            (false, false) => read_every(jobs),
        };
        self.next_sweep = now.plus(pause);
        if self.suspect_sweeps > 0 {
            self.next_sweep = self.next_sweep.min(self.next_suspect_sweep);
        }
    }

    /// Messages of the job may have been lost: the next sweep is due now, and some more treat
    /// unclaimed messages as lost.
    pub(super) fn suspect_lost(&mut self, now: Timestamp) {
        (self.suspect_sweeps, self.next_suspect_sweep) = (SUSPECT_SWEEPS, now);
        self.next_sweep = now;
    }

    /// Messages of the job may wait in the wrong queue: one sweep treats unclaimed
    /// messages as lost.
    pub(super) fn suspect_lost_once(&mut self, now: Timestamp) {
        self.suspect_sweeps = self.suspect_sweeps.max(1);
        self.next_sweep = self.next_sweep.min(self.next_suspect_sweep.max(now));
    }

    /// Whether a sweep now treats unclaimed messages as lost.
    pub(super) fn suspects_are_due(&self, now: Timestamp) -> bool {
        self.suspect_sweeps > 0 && now >= self.next_suspect_sweep
    }

    /// A sweep that treated unclaimed messages as lost was answered.
    pub(super) fn suspects_swept(&mut self, now: Timestamp) {
        self.suspect_sweeps = self.suspect_sweeps.saturating_sub(1);
        self.next_suspect_sweep = now.plus(SUSPECT_SWEEPS_APART);
    }

    /// Whether the workers that can run what the job needs now are not those of its pool.
    pub(super) fn is_misplaced(&self, fleet: &Fleet) -> bool {
        let task = self.task().filter(|task| fleet.lacks(&self.summary.queue, task));
        self.pool.task.as_deref() != task
    }

    /// Whether chunks are placed by key.
    pub(super) fn is_placed_by_key(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| matches!(spec.placement, Placement::Hash(_)))
    }

    /// Whether the job's chunks wait in the queue that all workers share.
    pub(super) fn is_shared(&self) -> bool {
        self.pool.task.is_none()
            && self.spec.as_ref().is_none_or(|spec| spec.placement == Placement::Shared)
    }

    /// Whether attempts at the job's subtasks have failed.
    pub(super) fn has_failures(&self) -> bool {
        self.summary.last_error.is_some()
    }

    /// Whether the job has open chunks.
    pub(super) fn is_open(&self) -> bool {
        self.summary.queued_chunks + self.summary.running_chunks > 0
    }

    /// Hints were missed, so the job may have changed; `before` other jobs are read first.
    pub(super) fn hints_missed(&mut self, now: Timestamp, before: u32) {
        self.next_sweep = self.next_sweep.min(now.plus(READS_APART_AFTER_GAP * before));
    }

    /// Whether the ledger is to be asked who holds chunks of the job.
    pub(super) fn holders_are_due(&self, now: Timestamp) -> bool {
        self.wants_holders || self.summary.running_chunks > 0 && now >= self.next_holders
    }

    /// The holders are to be read as soon as possible.
    pub(super) fn want_holders(&mut self) {
        self.wants_holders = true;
    }

    /// The holders are being read. Whatever makes another read necessary comes after that.
    pub(super) fn reading_holders(&mut self, now: Timestamp) {
        self.wants_holders = false;
        self.next_holders = now.plus(HOLDERS_EVERY);
    }

    /// Takes in a hint that the job is in this state. Returns whether that was expected, so that
    /// the job need not be read: the job was just admitted as queued, or its first chunk was
    /// claimed and it has nothing left to open. Short jobs come by the thousand, and to read each
    /// would take as long as they do.
    pub(super) fn expects(&mut self, state: JobState) -> bool {
        if !self.summary.state.is_queued() {
            return false;
        }
        if state.is_running() && self.unopened() == 0 {
            self.summary.state = state;
            return true;
        }
        state.is_queued()
    }

    /// The job changed in the ledger.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.no_open_until = now.min(self.no_open_until);
        self.next_sweep = self.next_sweep.min(self.swept_at.plus(SWEEP_AFTER_HINT));
    }

    /// The next time after `now` at which there is something to do without any event.
    pub(super) fn next_wake(
        &self,
        now: Timestamp,
        ledger_now: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let local = |at: Option<Timestamp>| {
            let (at, ledger_now) = at.zip(ledger_now)?;
            // One millisecond later, since the ledger's clock is known to about that.
            (at > ledger_now).then(|| now.plus(at.since(ledger_now) + Duration::from_millis(1)))
        };
        let is_paused = self.summary.state.is_paused();
        [
            Some(self.next_sweep),
            Some(self.next_holders).filter(|_| self.summary.running_chunks > 0),
            Some(self.no_open_until),
            Some(self.no_fail_until),
            self.next_speculation(),
            local(self.summary.deadline_at),
            local(self.summary.next_retry_at).filter(|_| !is_paused),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }
}

/// The time between two reads of a job without open chunks, as one of this many jobs.
fn read_every(jobs: u32) -> Duration {
    READ_EVERY.max(READS_APART * jobs)
}
