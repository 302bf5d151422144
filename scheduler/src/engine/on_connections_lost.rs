//! The event `ConnectionsLost`: declares dead workers lost, and takes over from dead schedulers.
//!
//! The ledger makes the declaration, at the engine's request.

use std::collections::BTreeSet;

use longshore_protocol::{NodeId, SchedulerId, Timestamp};

use super::Engine;
use super::event::Action;

impl Engine {
    pub(super) fn on_connections_lost(
        &mut self,
        now: Timestamp,
        workers: &BTreeSet<NodeId>,
        schedulers: &BTreeSet<SchedulerId>,
    ) {
        let queues_of_dead = self.fleet.connections_lost(now, workers);
        if !queues_of_dead.is_empty() {
            self.declare_dead_lost(now);
            self.suspect_queues(now, &queues_of_dead, false);
            self.update_capacities(now);
        }
        let died = self.peers.connections_lost(now, schedulers);
        if !died.is_empty() {
            self.reassign_queues(now);
        }
        let deregister =
            died.into_iter().map(|scheduler| Action::DeregisterScheduler { scheduler });
        self.actions.extend(deregister);
    }
}
