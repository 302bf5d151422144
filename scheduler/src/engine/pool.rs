//! Divides the jobs of a queue into pools, each with the workers that can run its jobs.
//!
//! A pool has the capacity of these workers, what waits for them, and whose turn it is.
//!
//! A queue is one pool while each of its workers can run all of its jobs. A job whose task some of
//! the workers lack is in a pool of its own, with the workers that have the task, so that it
//! neither reaches the others nor blocks what they can run. Whatever else makes a worker unable to
//! run a job belongs into [`PoolKey`] and [`Fleet::takers`].

use std::collections::{BTreeMap, BTreeSet};

use longshore_protocol::{BlockedScope, JobId};

use super::fair_queue::FairQueue;
use super::fleet::Fleet;
use super::job::Job;
use super::placement::Placer;
use super::window::{Capacity, Load};

/// Identifies a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolKey {
    /// The queue of the pool's jobs.
    pub(super) queue: String,
    /// The task of the pool's jobs, if some workers of the queue can't run it. `None`: all workers
    /// of the queue can run what the pool's jobs need.
    pub(super) task: Option<String>,
}

impl PoolKey {
    /// The pool of what each worker of the queue can run.
    pub(super) fn shared(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), task: None }
    }

    /// The pool of the jobs with a task that some workers of the queue lack.
    pub(super) fn with_task(queue: impl Into<String>, task: impl Into<String>) -> Self {
        Self { queue: queue.into(), task: Some(task.into()) }
    }

    /// The pool's jobs, as reports of what blocks them name these.
    pub(super) fn scope(&self) -> BlockedScope {
        self.task.clone().map_or(BlockedScope::Queue, BlockedScope::Task)
    }

    /// The pool of a job that needs this task now, or of one whose task is not known yet.
    pub(super) fn of(queue: &str, task: Option<&str>, fleet: &Fleet) -> Self {
        let task = task.filter(|task| fleet.lacks(queue, task));
        Self { queue: queue.to_owned(), task: task.map(str::to_owned) }
    }
}

/// What this scheduler feeds to one set of workers.
#[derive(Debug)]
pub(super) struct Pool {
    /// The live workers and their slots.
    pub(super) capacity: Capacity,
    /// The open chunks of the pool's jobs.
    pub(super) load: Load,
    /// Whose chunk is next.
    pub(super) fair_queue: FairQueue,
    /// Where a chunk goes.
    pub(super) placer: Placer,
    jobs: BTreeSet<JobId>,
}

impl Pool {
    /// A pool without jobs.
    pub(super) fn new(key: &PoolKey, fleet: &Fleet) -> Self {
        let mut pool = Self {
            capacity: Capacity::default(),
            load: Load::default(),
            fair_queue: FairQueue::default(),
            placer: Placer::new(key),
            jobs: BTreeSet::new(),
        };
        pool.update_capacity(key, fleet);
        pool
    }

    /// The pool's jobs.
    pub(super) fn jobs(&self) -> &BTreeSet<JobId> {
        &self.jobs
    }

    /// Workers came or went; returns whether that changed anything here.
    fn update_capacity(&mut self, key: &PoolKey, fleet: &Fleet) -> bool {
        let (capacity, live) = fleet.takers(key);
        let is_changed = capacity != self.capacity || live != self.placer.live();
        self.capacity = capacity;
        self.placer.set_live(live);
        is_changed
    }
}

/// All pools that have jobs. A job of this scheduler is in one of them, the one that its `pool`
/// field names.
#[derive(Debug, Default)]
pub(super) struct Pools {
    by_key: BTreeMap<PoolKey, Pool>,
    /// Pools in which something changed, so that their windows may have room.
    changed: BTreeSet<PoolKey>,
}

impl Pools {
    pub(super) fn get(&self, key: &PoolKey) -> Option<&Pool> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PoolKey) -> Option<&mut Pool> {
        self.by_key.get_mut(key)
    }

    /// Whether a queue has jobs here.
    pub(super) fn has_queue(&self, queue: &str) -> bool {
        let first = self.by_key.range(PoolKey::shared(queue)..).next();
        first.is_some_and(|(key, _)| key.queue == queue)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PoolKey, &Pool)> {
        self.by_key.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.by_key.values_mut()
    }

    /// The pool's window has to be filled again.
    pub(super) fn mark_changed(&mut self, key: &PoolKey) {
        self.changed.insert(key.clone());
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<PoolKey> {
        std::mem::take(&mut self.changed)
    }

    /// Puts a job of this scheduler into the pool of the workers that can run it.
    pub(super) fn join(&mut self, id: JobId, job: &mut Job, fleet: &Fleet) {
        let key = PoolKey::of(&job.summary.queue, job.task(), fleet);
        let pool = self.by_key.entry(key.clone()).or_insert_with(|| Pool::new(&key, fleet));
        pool.jobs.insert(id);
        pool.fair_queue.join(id, &job.summary.tenant, job.summary.priority);
        (job.pool, job.counted_load) = (key, Load::default());
    }

    /// Takes a job out of its pool.
    pub(super) fn leave(&mut self, id: JobId, job: &Job) {
        let key = &job.pool;
        let Some(pool) = self.by_key.get_mut(key) else { return };
        pool.fair_queue.leave(id);
        pool.load.replace(job.counted_load, Load::default());
        pool.jobs.remove(&id);
        self.changed.insert(key.clone());
        if pool.jobs.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// Workers came or went. Returns the jobs of each pool, with whether its capacity changed.
    pub(super) fn update_capacities(&mut self, fleet: &Fleet) -> Vec<(JobId, bool)> {
        let mut jobs = Vec::new();
        for (key, pool) in &mut self.by_key {
            let is_changed = pool.update_capacity(key, fleet);
            if is_changed {
                self.changed.insert(key.clone());
            }
            jobs.extend(pool.jobs.iter().map(|id| (*id, is_changed)));
        }
        jobs
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
