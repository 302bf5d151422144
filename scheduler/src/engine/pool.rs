//! One queue that this scheduler feeds: its workers, what waits for them, and whose turn it is.

use std::collections::BTreeSet;

use longshore_protocol::JobId;

use super::fleet::Fleet;
use super::placement::Placer;
use super::shares::Shares;
use super::window::{Hands, Load};

/// A queue of this scheduler.
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
    pub(super) fn new(name: &str, fleet: &Fleet) -> Self {
        let mut pool = Self {
            hands: Hands::default(),
            load: Load::default(),
            shares: Shares::default(),
            placer: Placer::new(name),
            jobs: BTreeSet::new(),
        };
        pool.count_hands(name, fleet);
        pool
    }

    /// Workers came or went; tells whether that changed anything here.
    pub(super) fn count_hands(&mut self, name: &str, fleet: &Fleet) -> bool {
        let (hands, live) = fleet.takers(name);
        let changed = hands != self.hands;
        self.hands = hands;
        self.placer.set_live(live);
        changed
    }
}
