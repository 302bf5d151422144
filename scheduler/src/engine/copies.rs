//! Second copies of what lags: when a job has nothing left to hand out, slots are idle, and a chunk takes much longer than its like,
//! another worker may run it too. Whichever ends first decides; the ledger sees to that.
//!
//! Deliberately absent: which chunks lag. The ledger knows since when each is held.

use std::time::Duration;

use longshore_broker::Queue;
use longshore_ledger::{SpeculationRequest, SpeculativeChunk};
use longshore_protocol::{JobId, NodeId, Timestamp};

use super::event::{Action, Keyed};
use super::fleet::Fleet;
use super::job::Job;
use super::{Engine, Entry, Known};

/// So many times what a chunk takes usually is too long, ...
const TOO_LONG: u32 = 3;

/// ... but less than this never is: a machine that hiccups is no reason to run anything twice.
const AT_LEAST: Duration = Duration::from_secs(2);

/// A copy that nobody took within this time is offered to somebody else.
const OFFER_FOR: Duration = Duration::from_secs(5);

/// How often the ledger is asked: a few times within what is too long, but neither more often than the first nor more rarely
/// than the second.
const ASKED_WITHIN: u32 = 4;
const EVERY: Duration = Duration::from_secs(1);
const EVERY_LONGEST: Duration = Duration::from_secs(10);

/// From when on a chunk that takes this long, usually, lags.
pub(super) fn too_long(usual: Duration) -> Duration {
    usual.saturating_mul(TOO_LONG).max(AT_LEAST)
}

/// When to ask again.
pub(super) fn pause(too_long: Duration) -> Duration {
    (too_long / ASKED_WITHIN).clamp(EVERY, EVERY_LONGEST)
}

impl Engine {
    /// The call that offers copies of what lags of a job, if that is due and somebody has nothing better to do.
    pub(super) fn offer_copies(&self, now: Timestamp, id: JobId, job: &Job) -> Option<Action> {
        let pool = self.pools.get(&job.pool)?;
        if !job.copies_are_due(now) {
            return None;
        }
        let busy = pool.load.running + pool.load.waiting;
        let idle = pool.hands.slots.saturating_sub(busy).min(job.summary.running_chunks);
        let chunks = u32::try_from(idle).unwrap_or(u32::MAX);
        let mut nodes = understudies(&self.fleet, job);
        if chunks == 0 || nodes.is_empty() {
            return None;
        }
        let held_for = job.too_long(pool.hands.slots)?;
        if self.contact.lasts(now) < held_for {
            // In an outage of the ledger every chunk is held too long.
            return None;
        }
        let only = (nodes.len() == 1).then(|| nodes.remove(0).0);
        let lagging = SpeculationRequest { held_for, offer_for: OFFER_FOR, chunks, only };
        Some(Action::Copy { job: id, lagging })
    }

    /// The ledger said what lags: each goes to the node with the most idle slots that has not got it.
    pub(super) fn copied(
        &mut self,
        now: Timestamp,
        id: JobId,
        stragglers: Vec<SpeculativeChunk>,
        tried: Vec<Vec<NodeId>>,
    ) {
        self.answered(id);
        let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) else { return };
        let slots = self.pools.get(&job.pool).map_or(0, |pool| pool.hands.slots);
        job.copies_asked(now, slots);
        let mut nodes = understudies(&self.fleet, job);
        for (SpeculativeChunk { message, holder }, tried) in stragglers.into_iter().zip(tried) {
            let may = |node: &NodeId| *node != holder && !tried.contains(node);
            let others = nodes.iter_mut().filter(|(node, idle)| *idle > 0 && may(node));
            let Some((node, idle)) = others.max_by_key(|(_, idle)| *idle) else { continue };
            *idle -= 1;
            let (queue, chunk) =
                (Queue::Node(node.clone()), Keyed { message, key: None, tried: Vec::new() });
            self.actions.push(Action::Publish { queue, chunk });
        }
        self.reconsider(now, id);
    }
}

/// Who could run a copy, with the number of idle slots; nobody if the job's task must not run twice.
fn understudies(fleet: &Fleet, job: &Job) -> Vec<(NodeId, u32)> {
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
    /// Whether all that is left of it is in the hands of workers, so that others may be idle for its sake.
    fn is_at_its_tail(&self) -> bool {
        let moves = self.summary.state.is_in_progress();
        moves
            && self.summary.running_chunks > 0
            && self.summary.queued_chunks == 0
            && self.fresh() == 0
    }

    /// Whether the ledger is to be asked what lags.
    pub(super) fn copies_are_due(&self, now: Timestamp) -> bool {
        self.next_copies().is_some_and(|at| at <= now)
    }

    /// When the ledger is to be asked what lags; never where a copy would break `max_parallel`.
    pub(super) fn next_copies(&self) -> Option<Timestamp> {
        let free = self.terms.as_ref().is_some_and(|terms| terms.max_parallel.is_none());
        (free && self.is_at_its_tail() && self.mean_us().is_some()).then_some(self.next_copies)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::World;
    use super::super::tests::ends;

    /// Two nodes of two slots, of which one takes a hundred times as long as the other.
    fn uneven() -> World {
        let mut world = World::new(2, 2);
        world.slow_down(1, 100);
        world
    }

    #[test]
    fn what_a_slow_node_holds_at_the_end_is_run_by_an_idle_one_too() {
        let mut world = uneven();
        let job = world.submit(40, 500_000, "");
        // The slow one takes 50 s for a subtask, and holds two chunks.
        ends(&mut world, 25_000, job);
        assert_eq!(world.summary(job).speculative_chunks, 2);
        assert_eq!(world.summary(job).attempts, 40, "each counted once");
    }

    #[test]
    fn nothing_is_copied_that_takes_as_long_as_its_like() {
        let mut world = World::new(2, 2);
        let jobs = [
            world.submit(5, 60_000_000, ""),
            world.submit(40, 700_000, r#","chunk":10"#),
            world.submit(1, 300_000_000, ""),
        ];
        for job in jobs {
            ends(&mut world, 600_000, job);
            assert_eq!(world.summary(job).speculative_chunks, 0);
        }
    }

    #[test]
    fn nothing_is_offered_to_the_one_who_has_it() {
        let mut world = World::new(1, 2);
        let job = world.submit(21, 500_000, "");
        world.run_until(9_000, "the last to come", |world| world.summary(job).counts.done == 18);
        world.slow_down(0, 1_000);
        world.run_for(30_000);
        assert_eq!(world.summary(job).counts.done, 20, "one slot is idle, and the other hangs");
        assert_eq!(world.offered, 0);
    }

    #[test]
    fn nothing_is_copied_while_others_have_something_to_do() {
        let mut world = uneven();
        let job = world.submit(8, 500_000, "");
        world.run_for(1_000);
        world.submit(10_000, 500_000, "");
        world.run_for(20_000);
        assert_eq!(world.summary(job).speculative_chunks, 0);
    }

    #[test]
    fn nothing_is_copied_that_must_not_run_twice() {
        let mut world = uneven();
        world.non_speculative = vec!["noop".into()];
        let jobs = [world.submit(8, 500_000, ""), world.submit(8, 500_000, r#","max_parallel":3"#)];
        world.run_for(30_000);
        world.non_speculative.clear();
        let copies = jobs.map(|job| world.summary(job).speculative_chunks);
        assert_eq!(copies, [0, 0]);
        world.run_for(5_000);
        let copies = jobs.map(|job| world.summary(job).speculative_chunks > 0);
        assert_eq!(copies, [true, false], "of the first it may now");
    }
}
