//! Jobs of one queue that the same workers can run: these workers, what waits for them, and whose turn it is.
//!
//! A queue is one pool while each of its workers can run all of its jobs. A job whose task some of the workers lack is in a pool
//! of its own with the workers that have it, so that it neither reaches the others nor blocks what they can run. Whatever else
//! a worker may be unable to serve belongs into [`PoolKey`] and [`Fleet::takers`].

use std::collections::BTreeSet;

use longshore_protocol::JobId;

use super::fleet::Fleet;
use super::placement::Placer;
use super::shares::Shares;
use super::window::{Hands, Load};

/// Identifies a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolKey {
    /// The queue of its jobs.
    pub(super) queue: String,
    /// The task of its jobs, if some workers of the queue can't run it. `None`: all of them can run what the pool's jobs need.
    pub(super) task: Option<String>,
}

impl PoolKey {
    /// The pool of what each worker of the queue can run.
    pub(super) fn shared(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), task: None }
    }
}

/// What this scheduler hands out to one set of workers.
#[derive(Debug)]
pub(super) struct Pool {
    /// Its live workers.
    pub(super) hands: Hands,
    /// What its jobs have open.
    pub(super) load: Load,
    /// Whose chunk is next.
    pub(super) shares: Shares,
    /// Where a chunk goes.
    pub(super) placer: Placer,
    /// Its jobs.
    pub(super) jobs: BTreeSet<JobId>,
}

impl Pool {
    /// Without jobs.
    pub(super) fn new(key: &PoolKey, fleet: &Fleet) -> Self {
        let mut pool = Self {
            hands: Hands::default(),
            load: Load::default(),
            shares: Shares::default(),
            placer: Placer::new(key),
            jobs: BTreeSet::new(),
        };
        pool.count_hands(key, fleet);
        pool
    }

    /// Workers came or went; tells whether that changed anything here.
    pub(super) fn count_hands(&mut self, key: &PoolKey, fleet: &Fleet) -> bool {
        let (hands, live) = fleet.takers(key);
        let changed = hands != self.hands || live != self.placer.live();
        self.hands = hands;
        self.placer.set_live(live);
        changed
    }
}
