//! One job that this scheduler feeds: what is left to open, what it costs, and when to look at it
//! again.
//!
//! The summary is the ledger's as last seen, brought up to date with what was opened since.
//! Deliberately absent: other jobs.

use std::time::Duration;

use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::state::JobState;
use longshore_protocol::{JobSummary, NodeId, ReduceTree, Timestamp};

use super::chunk::{Meter, Sizer};
use super::copies;
use super::event::{Keyed, Terms};
use super::pool::PoolKey;
use super::window::{AHEAD_EACH, Load, UNMEASURED};

/// How often a job with open chunks is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often a job without open chunks is looked at. Hints tell sooner; this is for those that get
/// lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Among many jobs each is looked at more rarely, so that those that only wait for their turn cost
/// the ledger at most 200 looks a second; where hints are known to be lost, 500.
const LOOKS_APART: Duration = Duration::from_millis(5);
const SUSPECTS_APART: Duration = Duration::from_millis(2);

/// After a hint the next sweep comes this long after the last: soon for what was handed back, rare
/// enough for a job that closes thousands of chunks a second.
const SWEEP_AFTER_HINT: Duration = Duration::from_millis(50);

/// After something that loses messages (the scheduler that published them died, or a node that may have fetched them) so many
/// sweeps in a row, this far apart, doubt those that nobody has claimed. Several, because what is published again may be fetched by
/// the next node that is about to be found dead.
const DOUBTS: u32 = 3;
const DOUBTS_APART: Duration = Duration::from_millis(300);

/// How often the ledger is asked who holds chunks of a job, besides after each loss. Rarely: what is
/// found so was claimed after its worker was lost, or is held unknowingly.
const HOLDERS_EVERY: Duration = Duration::from_secs(5);

/// First and longest wait after the ledger opened nothing though the summary promised something.
const DRY: Duration = Duration::from_millis(20);
const DRY_LONGEST: Duration = Duration::from_secs(1);

/// A job is asked to fail once a second until it has.
const FAIL_EVERY: Duration = Duration::from_secs(1);

/// What a chunk is charged at before anything was measured. Little, so that little has to be paid
/// back; a chunk that takes longer is charged for as long as it has been running.
const FIRST_PRICE: Duration = Duration::from_millis(10);

/// More than any chunk takes, small enough that the sum over all jobs of a queue fits: three years.
const LONGEST_WORK_US: f64 = 1e14;

/// What could be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// At most so many chunks.
    pub(super) chunks: u64,
    /// Of at most so many subtasks.
    pub(super) size: u64,
}

/// Chunks that the ledger was asked to open and has not answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// How many.
    pub(super) chunks: u64,
    /// Of how many subtasks.
    pub(super) size: u64,
}

/// A job of a queue that this scheduler feeds.
#[derive(Debug)]
pub(super) struct Job {
    /// As the ledger last said, plus what was opened since.
    pub(super) summary: JobSummary,
    /// From its document; `None` until that was read.
    pub(super) terms: Option<Terms>,
    /// The pool that it is in.
    pub(super) pool: PoolKey,
    /// The nodes whose failures use up no attempts of it, as the ledger was last told.
    pub(super) absolved: Vec<NodeId>,
    /// What the pool's load contains of it.
    pub(super) counted: Load,
    meter: Meter,
    sizer: Sizer,
    in_reduce: bool,
    /// What it had used when we first saw it.
    used_before: Duration,
    /// What it was charged, µs of worker time.
    charged_us: f64,
    next_sweep: Timestamp,
    swept_at: Timestamp,
    /// So many more sweeps doubt, the next one at this time.
    doubts: u32,
    next_doubt: Timestamp,
    next_holders: Timestamp,
    /// Its holders are to be asked for, whatever the time.
    wants_holders: bool,
    dry_until: Timestamp,
    dry: Duration,
    fail_from: Timestamp,
    pub(super) next_copies: Timestamp,
}

impl Job {
    /// Seen for the first time, as one of `jobs`.
    pub(super) fn new(now: Timestamp, jobs: u32, summary: JobSummary) -> Self {
        // What an earlier scheduler opened it may not have published.
        let open = summary.queued_chunks + summary.running_chunks > 0;
        let mut job = Self {
            terms: None,
            pool: PoolKey::shared(&summary.queue),
            absolved: Vec::new(),
            counted: Load::default(),
            meter: Meter::default(),
            sizer: Sizer::new(),
            in_reduce: false,
            used_before: summary.busy,
            charged_us: 0.0,
            next_sweep: if open { now } else { now.plus(look_every(jobs)) },
            swept_at: Timestamp::default(),
            doubts: if open { DOUBTS } else { 0 },
            next_doubt: now,
            next_holders: now.plus(HOLDERS_EVERY),
            // Holders may have been lost before we knew of it.
            wants_holders: open,
            dry_until: Timestamp::default(),
            dry: DRY,
            fail_from: Timestamp::default(),
            next_copies: now.plus(copies::too_long(Duration::ZERO)),
            summary,
        };
        job.learn();
        job
    }

    /// The ledger said how it stands.
    pub(super) fn update(&mut self, summary: JobSummary) {
        let was_open = self.is_open();
        self.summary = summary;
        // Another scheduler opened its chunks, or we did and were not told.
        self.wants_holders |= !was_open && self.is_open();
        self.learn();
    }

    fn learn(&mut self) {
        let in_reduce = self.summary.cursor >= self.summary.counts.total
            && self.summary.counts.open() == 0
            && self.summary.reduce.total > 0;
        let measured = self.meter.observe(self.summary.busy, self.summary.attempts);
        if in_reduce != self.in_reduce {
            // What combines results takes another time than what makes them.
            self.in_reduce = in_reduce;
            self.meter.forget();
            self.sizer = Sizer::new();
        } else if let (true, Some(mean)) = (measured, self.meter.mean_us()) {
            self.sizer.learn(mean);
        }
    }

    /// The ledger opened chunks; tells whether the summary still says all, or a look is needed.
    pub(super) fn opened(&mut self, now: Timestamp, asked: u64, chunks: &[Keyed]) -> bool {
        let mut complete = chunks.len() as u64 == asked;
        for Keyed { message, .. } in chunks {
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
                complete = false;
            }
            counts.queued += count;
            summary.queued_chunks += 1;
        }
        if chunks.is_empty() {
            self.dry_until = now.plus(self.dry);
            self.dry = (self.dry * 2).min(DRY_LONGEST);
        } else {
            self.dry = DRY;
            // Among many jobs it was not to be looked at for long.
            self.next_sweep = self.next_sweep.min(now.plus(SWEEP_EVERY));
            self.next_copies = now.plus(copies::too_long(Duration::ZERO));
        }
        complete
    }

    /// How many subtasks of the level in work were never handed out.
    pub(super) fn fresh(&self) -> u64 {
        let summary = &self.summary;
        let total = summary.counts.total;
        if summary.cursor < total {
            return summary.counts.waiting.min(total - summary.cursor);
        }
        let Some(fan_in) = self.terms.as_ref().and_then(|terms| terms.fan_in) else { return 0 };
        let unsettled = [&summary.counts, &summary.reduce]
            .iter()
            .map(|counts| counts.queued + counts.running + counts.retrying)
            .sum::<u64>();
        match ReduceTree::new(total, fan_in).levels().find(|l| l.contains(&summary.cursor)) {
            // At the start of a level whose inputs are still being made.
            Some(level) if level.start == summary.cursor && unsettled > 0 => 0,
            Some(level) => summary.reduce.waiting.min(level.end - summary.cursor),
            None => 0,
        }
    }

    /// What could be opened now, with `slots` in the pool.
    pub(super) fn offer(&self, now: Timestamp, ledger_now: Option<Timestamp>, slots: u64) -> Offer {
        let feeds = self.summary.state.feeds();
        let Some(terms) = self.terms.as_ref().filter(|_| feeds && now >= self.dry_until) else {
            return Offer::default();
        };
        let fresh = self.fresh();
        let due = match (self.summary.next_retry_at, ledger_now) {
            (Some(at), Some(ledger_now)) if at <= ledger_now => {
                self.summary.counts.retrying + self.summary.reduce.retrying
            }
            _ => 0,
        };
        let by_key = matches!(terms.placement, Placement::Hash(_));
        let slots = terms.max_parallel.map_or(slots, |most| most.min(slots));
        let size = match (by_key, self.in_reduce) {
            // Neighbours have other keys.
            (true, false) => 1,
            (_, true) => self.sizer.reduce_size(fresh + due, slots),
            (false, false) => self.sizer.size(terms.chunk, fresh + due, slots),
        };
        let open = self.summary.queued_chunks + self.summary.running_chunks;
        let fit = terms.max_parallel.map_or(u64::MAX, |most| most.saturating_sub(open));
        Offer { chunks: (fresh.div_ceil(size) + due).min(fit), size }
    }

    /// What one more chunk is charged at first.
    pub(super) fn price_us(&self, size: u64, ledger_now: Option<Timestamp>) -> f64 {
        match self.meter.mean_us() {
            Some(mean) => mean * size as f64,
            None => self.unmeasured_us(FIRST_PRICE, ledger_now),
        }
    }

    /// A chunk of which no attempt has ended takes at least as long as the first has been running.
    fn unmeasured_us(&self, at_least: Duration, ledger_now: Option<Timestamp>) -> f64 {
        let running = self.summary.running_chunks > 0 && self.summary.attempts == 0;
        let elapsed = match (running, self.summary.started_at, ledger_now) {
            (true, Some(started), Some(ledger_now)) => ledger_now.since(started),
            _ => Duration::ZERO,
        };
        elapsed.max(at_least).as_secs_f64() * 1e6
    }

    /// Charged with another chunk by whoever hands out.
    pub(super) fn pay(&mut self, price_us: f64) {
        self.charged_us += price_us;
    }

    /// What it used since we know it, and will use with what is open, less what it was charged: to
    /// be charged now.
    pub(super) fn owes_us(&mut self, ledger_now: Option<Timestamp>) -> f64 {
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
                chunks as f64 * self.unmeasured_us(FIRST_PRICE, ledger_now)
            }
        };
        let owed = used + open - self.charged_us;
        self.charged_us += owed;
        owed
    }

    /// Whether the size of its chunks is what the document says.
    fn wants_its_size(&self) -> bool {
        let is_fixed = |terms: &Terms| {
            matches!((terms.chunk, &terms.placement), (Chunk::Fixed(_), Placement::Shared))
        };
        !self.in_reduce && self.terms.as_ref().is_some_and(is_fixed)
    }

    /// What runs now: its task, or the one that combines results.
    pub(super) fn task(&self) -> Option<&str> {
        if self.in_reduce {
            return self.terms.as_ref()?.reduce_task.as_deref();
        }
        Some(&self.summary.task)
    }

    /// How long a subtask takes, on the average.
    pub(super) fn mean_us(&self) -> Option<f64> {
        self.meter.mean_us()
    }

    /// From when on a chunk of it lags behind its like.
    pub(super) fn too_long(&self, slots: u64) -> Option<Duration> {
        let chunk = match &self.terms {
            Some(terms) if !self.in_reduce => terms.chunk,
            _ => Chunk::Auto,
        };
        Some(copies::too_long(Sizer::usual(chunk, self.meter.mean_us()?, slots)))
    }

    /// The ledger was asked what lags.
    pub(super) fn copies_asked(&mut self, now: Timestamp, slots: u64) {
        let too_long = self.too_long(slots).unwrap_or_default();
        self.next_copies = now.plus(copies::pause(too_long));
    }

    /// What it adds to the load of its pool.
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
        // Many short chunks ahead are for jobs that want them short; the others' would have grown meanwhile.
        let at_least = if self.wants_its_size() { Duration::ZERO } else { AHEAD_EACH };
        let work = work.max(waiting as f64 * at_least.as_secs_f64() * 1e6);
        Load { waiting, running: summary.running_chunks, work_us: work.min(LONGEST_WORK_US) as u64 }
    }

    /// Whether its deadline has passed and it should be told so.
    pub(super) fn is_overdue(&self, now: Timestamp, ledger_now: Option<Timestamp>) -> bool {
        let passed = self.summary.deadline_at.zip(ledger_now).is_some_and(|(at, is)| at <= is);
        passed && now >= self.fail_from
    }

    /// It is being told.
    pub(super) fn failing(&mut self, now: Timestamp) {
        self.fail_from = now.plus(FAIL_EVERY);
    }

    /// Whether it is to be swept.
    pub(super) fn sweep_is_due(&self, now: Timestamp) -> bool {
        now >= self.next_sweep
    }

    /// It was swept, as one of `jobs`; `hinted` if something has changed meanwhile.
    pub(super) fn swept(&mut self, now: Timestamp, hinted: bool, jobs: u32) {
        self.swept_at = now;
        let usual = match (hinted, self.is_open()) {
            (true, _) => SWEEP_AFTER_HINT,
            (false, true) => SWEEP_EVERY,
            (false, false) => look_every(jobs),
        };
        self.next_sweep = now.plus(usual);
        if self.doubts > 0 {
            self.next_sweep = self.next_sweep.min(self.next_doubt);
        }
    }

    /// Messages of it may have been lost: they are looked for as soon as can be, and some more times.
    pub(super) fn doubt(&mut self, now: Timestamp) {
        (self.doubts, self.next_doubt) = (DOUBTS, now);
        self.next_sweep = now;
    }

    /// Messages of it may wait in the wrong place.
    pub(super) fn doubt_once(&mut self, now: Timestamp) {
        self.doubts = self.doubts.max(1);
        self.next_sweep = self.next_sweep.min(self.next_doubt.max(now));
    }

    /// Whether a sweep is to doubt.
    pub(super) fn doubts(&self, now: Timestamp) -> bool {
        self.doubts > 0 && now >= self.next_doubt
    }

    /// A sweep that doubted was answered.
    pub(super) fn doubted(&mut self, now: Timestamp) {
        self.doubts = self.doubts.saturating_sub(1);
        self.next_doubt = now.plus(DOUBTS_APART);
    }

    /// Whether its chunks wait in the queue that all workers share.
    pub(super) fn is_shared(&self) -> bool {
        self.pool.task.is_none()
            && self.terms.as_ref().is_none_or(|terms| terms.placement == Placement::Shared)
    }

    /// Whether attempts at its subtasks have failed.
    pub(super) fn has_failures(&self) -> bool {
        self.summary.last_error.is_some()
    }

    /// Whether it has chunks open.
    pub(super) fn is_open(&self) -> bool {
        self.summary.queued_chunks + self.summary.running_chunks > 0
    }

    /// Something about it may have changed; `before` others are looked at first.
    pub(super) fn suspected(&mut self, now: Timestamp, before: u32) {
        self.next_sweep = self.next_sweep.min(now.plus(SUSPECTS_APART * before));
    }

    /// Whether the ledger is to be asked who holds chunks of it.
    pub(super) fn holders_are_due(&self, now: Timestamp) -> bool {
        self.wants_holders || self.summary.running_chunks > 0 && now >= self.next_holders
    }

    /// The ledger is to be asked as soon as can be.
    pub(super) fn ask_holders(&mut self) {
        self.wants_holders = true;
    }

    /// The ledger is being asked. Whatever makes another question necessary comes after that.
    pub(super) fn asking_holders(&mut self, now: Timestamp) {
        self.wants_holders = false;
        self.next_holders = now.plus(HOLDERS_EVERY);
    }

    /// A hint says in which state it is. Tells whether that is no news: it was queued by whoever admitted it, or the first chunk was
    /// claimed of a job that has nothing left to hand out. Short jobs come by the thousand, and a look at each would take as
    /// long as they do.
    pub(super) fn goes_as_expected(&mut self, state: JobState) -> bool {
        if !self.summary.state.is_queued() {
            return false;
        }
        if state.is_queued() {
            return true;
        }
        if state.is_running() && self.fresh() == 0 {
            self.summary.state = state;
            return true;
        }
        false
    }

    /// Something about it changed.
    pub(super) fn hinted(&mut self, now: Timestamp) {
        self.dry_until = now.min(self.dry_until);
        self.next_sweep = self.next_sweep.min(self.swept_at.plus(SWEEP_AFTER_HINT));
    }

    /// When there is something to do for it without any event, after `now`.
    pub(super) fn wake(&self, now: Timestamp, ledger_now: Option<Timestamp>) -> Option<Timestamp> {
        let local = |at: Option<Timestamp>| {
            let (at, ledger_now) = at.zip(ledger_now)?;
            // A millisecond more, since the ledger's clock is known to about that.
            (at > ledger_now).then(|| now.plus(at.since(ledger_now) + Duration::from_millis(1)))
        };
        let paused = self.summary.state.is_paused();
        [
            Some(self.next_sweep),
            Some(self.next_holders).filter(|_| self.summary.running_chunks > 0),
            Some(self.dry_until),
            Some(self.fail_from),
            self.next_copies(),
            local(self.summary.deadline_at),
            local(self.summary.next_retry_at).filter(|_| !paused),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }
}

/// How often one of so many jobs is looked at while it has no open chunks.
fn look_every(jobs: u32) -> Duration {
    LOOK_EVERY.max(LOOKS_APART * jobs)
}
