//! Decides when the ledger is asked for slow chunks of a job, and which nodes may run them, too.
//!
//! That is when a job has nothing left to open, slots are idle, and a chunk takes much longer than
//! the others. The first commit decides; the ledger sees to that.
//!
//! Deliberately absent: which chunks are slow. The ledger knows since when each is held.

use std::time::Duration;

use longshore_ledger::SpeculationRequest;

use longshore_protocol::{NodeId, Timestamp};

use super::Engine;
use super::fleet::Fleet;
use super::job::Job;

/// A chunk is slow when it takes this many times as long as usual, ...
const SLOW_FACTOR: u32 = 3;

/// ... but not before this time: a machine that stalls for a moment is no reason to run anything
/// twice.
const SLOW_AFTER_AT_LEAST: Duration = Duration::from_secs(2);

/// A chunk that no worker has claimed within this time is offered to another one.
const OFFER_FOR: Duration = Duration::from_secs(5);

/// The ledger is asked this many times within the time after which a chunk is slow, but neither
/// more often nor more rarely than the bounds say.
const ASKED_WITHIN: u32 = 4;
const EVERY: Duration = Duration::from_secs(1);
const EVERY_LONGEST: Duration = Duration::from_secs(10);

/// After which time a chunk that usually takes `usual` is slow.
pub(super) fn slow_after(usual: Duration) -> Duration {
    usual.saturating_mul(SLOW_FACTOR).max(SLOW_AFTER_AT_LEAST)
}

/// The pause before the ledger is asked again for chunks that are slow after `slow_after`.
pub(super) fn pause(slow_after: Duration) -> Duration {
    (slow_after / ASKED_WITHIN).clamp(EVERY, EVERY_LONGEST)
}

impl Engine {
    /// Which slow chunks of a job the ledger is to offer, if that is due and workers are idle.
    pub(super) fn speculation_request(
        &self,
        now: Timestamp,
        job: &Job,
    ) -> Option<SpeculationRequest> {
        let pool = self.pools.get(&job.pool)?;
        if !job.speculation_is_due(now) {
            return None;
        }
        let busy = pool.load.running + pool.load.waiting;
        let idle = pool.capacity.slots.saturating_sub(busy).min(job.summary.running_chunks);
        let chunks = u32::try_from(idle).unwrap_or(u32::MAX);
        let mut nodes = speculation_targets(&self.fleet, job);
        if chunks == 0 || nodes.is_empty() {
            return None;
        }
        let held_for = job.slow_after(pool.capacity.slots)?;
        if self.ledger_writes.work_for(now) < held_for {
            // In an outage of the ledger every chunk is held for long.
            return None;
        }
        let only = (nodes.len() == 1).then(|| nodes.remove(0).0);
        Some(SpeculationRequest { held_for, offer_for: OFFER_FOR, chunks, only })
    }
}

/// The nodes that could run a chunk of the job beside its holder, with their idle slots; none if
/// the job's task must not run twice.
pub(super) fn speculation_targets(fleet: &Fleet, job: &Job) -> Vec<(NodeId, u32)> {
    let Some(task) = job.task() else { return Vec::new() };
    let takers = fleet.takers(&job.pool).1;
    let infos = || takers.iter().filter_map(|id| fleet.info(id));
    let names = |tasks: &[String]| tasks.iter().any(|name| name == task);
    if infos().any(|info| names(&info.non_speculative)) {
        return Vec::new();
    }
    let idle = infos().filter(|info| names(&info.tasks));
    let idle = idle.map(|info| (info.id.clone(), info.slots.saturating_sub(info.busy)));
    idle.filter(|(_, idle)| *idle > 0).collect()
}

impl Job {
    /// Whether workers hold all that is left of the job, so that others may be idle because of it.
    fn is_at_its_tail(&self) -> bool {
        let runs = self.summary.state.is_in_progress();
        runs && self.summary.running_chunks > 0
            && self.summary.queued_chunks == 0
            && self.unopened() == 0
    }

    /// Whether the ledger is to be asked for slow chunks.
    fn speculation_is_due(&self, now: Timestamp) -> bool {
        self.next_speculation().is_some_and(|at| at <= now)
    }

    /// When the ledger is to be asked for slow chunks; never where a second execution would break
    /// `max_parallel`.
    pub(super) fn next_speculation(&self) -> Option<Timestamp> {
        let is_free = self.spec.as_ref().is_some_and(|spec| spec.max_parallel.is_none());
        (is_free && self.is_at_its_tail() && self.mean_us().is_some())
            .then_some(self.next_speculation)
    }
}
