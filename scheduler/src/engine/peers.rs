//! Decides which schedulers are alive, and thereby which queues and workers this one owns.
//!
//! Alive are those that registered lately, less those whose process is gone.
//!
//! The ledger judges silence: it lists the schedulers that registered within some seconds. Lost
//! connections tell sooner. To be wrong is harmless either way: for a moment two schedulers feed a
//! queue, or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_protocol::{SchedulerId, SchedulerRecord, Timestamp, rendezvous};

use super::disconnect_timer::DisconnectTimer;

/// The schedulers as far as one of them knows.
#[derive(Debug)]
pub(super) struct Peers {
    me: SchedulerId,
    listed: BTreeMap<SchedulerId, Peer>,
    living: Vec<SchedulerId>,
}

#[derive(Debug)]
struct Peer {
    beat_at: Timestamp,
    round_trip: Duration,
    disconnect: DisconnectTimer,
    is_dead: bool,
}

impl Peers {
    /// No scheduler yet, not even this one: it feeds nothing before it has registered.
    pub(super) fn new(me: SchedulerId) -> Self {
        Self { me, listed: BTreeMap::new(), living: Vec::new() }
    }

    /// The schedulers that are alive, sorted.
    #[cfg(test)]
    pub(super) fn living(&self) -> &[SchedulerId] {
        &self.living
    }

    /// Whether this scheduler owns the queue or the worker of this name.
    pub(super) fn owns(&self, name: &str) -> bool {
        rendezvous::owner(name, &self.living) == Some(&self.me)
    }

    /// Takes in the ledger's list; returns whether other schedulers are alive than before.
    pub(super) fn observe(&mut self, records: Vec<SchedulerRecord>) -> bool {
        let mut before = std::mem::take(&mut self.listed);
        for SchedulerRecord { id, beat_at, round_trip, .. } in records {
            // A scheduler that registers again is alive, whatever became of its connections.
            let known = before.remove(&id).filter(|peer| peer.beat_at == beat_at);
            let disconnect = DisconnectTimer::default();
            let new = || Peer { beat_at, round_trip, disconnect, is_dead: false };
            self.listed.insert(id, known.unwrap_or_else(new));
        }
        self.update_living()
    }

    /// Takes in whose connections were gone at `now`; returns the schedulers that are dead because
    /// of that. This scheduler itself is not among them: it knows better.
    pub(super) fn connections_lost(
        &mut self,
        now: Timestamp,
        gone: &BTreeSet<SchedulerId>,
    ) -> Vec<SchedulerId> {
        let mut died = Vec::new();
        let others = self.listed.iter_mut().filter(|(id, peer)| **id != self.me && !peer.is_dead);
        for (id, peer) in others {
            peer.is_dead = peer.disconnect.check(now, gone.contains(id), peer.round_trip);
            died.extend(peer.is_dead.then(|| id.clone()));
        }
        self.update_living();
        died
    }

    fn update_living(&mut self) -> bool {
        let living = self.listed.iter().filter(|(_, peer)| !peer.is_dead);
        let living: Vec<SchedulerId> = living.map(|(id, _)| id.clone()).collect();
        let is_changed = living != self.living;
        self.living = living;
        is_changed
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn record(name: &str, beat_at: u64) -> SchedulerRecord {
        let beat_at = Timestamp::from_millis(beat_at);
        SchedulerRecord {
            id: SchedulerId::new(name),
            beat_at,
            connections: None,
            round_trip: Duration::ZERO,
        }
    }

    fn peers() -> Peers {
        let mut peers = Peers::new(SchedulerId::new("me"));
        assert_eq!(peers.living(), []);
        assert!(peers.observe(vec![record("me", 1), record("other", 1)]));
        peers
    }

    /// A check that finds the connections of these gone; returns those that died.
    fn check(peers: &mut Peers, ms: u64, lost: &[&str]) -> Vec<SchedulerId> {
        let lost = lost.iter().map(|name| SchedulerId::new(*name)).collect();
        peers.connections_lost(Timestamp::from_millis(ms), &lost)
    }

    #[test]
    fn a_scheduler_without_connections_is_dead_until_it_registers_again() {
        let mut peers = peers();
        let [me, other] = ["me", "other"].map(SchedulerId::new);
        assert_eq!(check(&mut peers, 0, &["other"]), []);
        assert_eq!(check(&mut peers, 50, &["other"]), []);
        assert_eq!(check(&mut peers, 100, &["other"]), std::slice::from_ref(&other));
        assert_eq!(check(&mut peers, 150, &["other"]), [], "it died once");
        assert_eq!(peers.living(), std::slice::from_ref(&me));
        assert!(!peers.observe(vec![record("me", 2), record("other", 1)]), "an old registration");
        assert_eq!(peers.living(), std::slice::from_ref(&me));
        assert!(peers.observe(vec![record("me", 3), record("other", 3)]));
        assert_eq!(peers.living(), [me, other]);
        assert_eq!(check(&mut peers, 200, &["other"]), [], "the timer starts again");
    }

    #[test]
    fn connections_that_are_replaced_in_time_prove_nothing() {
        let mut peers = peers();
        for (ms, lost) in [(0, true), (99, true), (120, false), (140, true), (230, true)] {
            let lost: &[&str] = if lost { &["other"] } else { &[] };
            assert_eq!(check(&mut peers, ms, lost), [], "at {ms} ms");
        }
        assert_eq!(peers.living().len(), 2);
    }

    #[test]
    fn no_scheduler_takes_itself_for_dead() {
        let mut peers = peers();
        check(&mut peers, 0, &["me"]);
        assert_eq!(check(&mut peers, 5_000, &["me"]), []);
        assert_eq!(peers.living().len(), 2);
    }

    #[test]
    fn a_scheduler_that_is_off_the_list_is_gone() {
        let mut peers = peers();
        assert!(peers.observe(vec![record("me", 2)]));
        assert!(!peers.observe(vec![record("me", 3)]));
        assert_eq!(peers.living(), [SchedulerId::new("me")]);
    }
}
