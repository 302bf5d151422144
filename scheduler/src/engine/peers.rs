//! Which schedulers live: those that signed in lately, less those whose process is gone.
//!
//! Silence is the ledger's to judge, which lists who signed in within some seconds. A severed heart tells sooner. Being wrong is
//! harmless either way: for a moment two schedulers feed a queue, or none. Deliberately absent: who feeds what (see `ring`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_protocol::{SchedulerId, SchedulerRecord, Timestamp};

use super::severance::Severance;

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
    severance: Severance,
    dead: bool,
}

impl Peers {
    /// Nobody yet, not even itself: it feeds nothing before it has signed in.
    pub(super) fn new(me: SchedulerId) -> Self {
        Self { me, listed: BTreeMap::new(), living: Vec::new() }
    }

    /// Those that live, sorted.
    pub(super) fn living(&self) -> &[SchedulerId] {
        &self.living
    }

    /// Takes in the ledger's list; tells whether others live than before.
    pub(super) fn observe(&mut self, records: Vec<SchedulerRecord>) -> bool {
        let mut before = std::mem::take(&mut self.listed);
        for SchedulerRecord { id, beat_at, round_trip, .. } in records {
            // Whoever signs in again lives, whatever became of its heart.
            let known = before.remove(&id).filter(|peer| peer.beat_at == beat_at);
            let severance = Severance::default();
            let new = || Peer { beat_at, round_trip, severance, dead: false };
            self.listed.insert(id, known.unwrap_or_else(new));
        }
        self.count()
    }

    /// Takes in whose hearts are severed as of `now`; gives those that died of it. This scheduler itself is not among them: it
    /// knows better.
    pub(super) fn severed(
        &mut self,
        now: Timestamp,
        severed: &BTreeSet<SchedulerId>,
    ) -> Vec<SchedulerId> {
        let mut died = Vec::new();
        let others = self.listed.iter_mut().filter(|(id, peer)| **id != self.me && !peer.dead);
        for (id, peer) in others {
            peer.dead = peer.severance.look(now, severed.contains(id), peer.round_trip);
            died.extend(peer.dead.then(|| id.clone()));
        }
        self.count();
        died
    }

    fn count(&mut self) -> bool {
        let living = self.listed.iter().filter(|(_, peer)| !peer.dead);
        let living: Vec<SchedulerId> = living.map(|(id, _)| id.clone()).collect();
        let changed = living != self.living;
        self.living = living;
        changed
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

    /// One look in which all of these are severed; gives those that died.
    fn look(peers: &mut Peers, ms: u64, severed: &[&str]) -> Vec<SchedulerId> {
        let severed = severed.iter().map(|name| SchedulerId::new(*name)).collect();
        peers.severed(Timestamp::from_millis(ms), &severed)
    }

    #[test]
    fn a_scheduler_whose_heart_stays_severed_is_dead_until_it_signs_in_again() {
        let mut peers = peers();
        let [me, other] = ["me", "other"].map(SchedulerId::new);
        assert_eq!(look(&mut peers, 0, &["other"]), []);
        assert_eq!(look(&mut peers, 50, &["other"]), []);
        assert_eq!(look(&mut peers, 100, &["other"]), std::slice::from_ref(&other));
        assert_eq!(look(&mut peers, 150, &["other"]), [], "it died once");
        assert_eq!(peers.living(), std::slice::from_ref(&me));
        assert!(!peers.observe(vec![record("me", 2), record("other", 1)]), "an old sign of life");
        assert_eq!(peers.living(), std::slice::from_ref(&me));
        assert!(peers.observe(vec![record("me", 3), record("other", 3)]));
        assert_eq!(peers.living(), [me, other]);
        assert_eq!(look(&mut peers, 200, &["other"]), [], "it counts from anew");
    }

    #[test]
    fn a_heart_that_was_replaced_is_a_blip() {
        let mut peers = peers();
        for (ms, severed) in [(0, true), (99, true), (120, false), (140, true), (230, true)] {
            let severed: &[&str] = if severed { &["other"] } else { &[] };
            assert_eq!(look(&mut peers, ms, severed), [], "at {ms} ms");
        }
        assert_eq!(peers.living().len(), 2);
    }

    #[test]
    fn nobody_takes_itself_for_dead() {
        let mut peers = peers();
        look(&mut peers, 0, &["me"]);
        assert_eq!(look(&mut peers, 5_000, &["me"]), []);
        assert_eq!(peers.living().len(), 2);
    }

    #[test]
    fn who_is_off_the_list_is_gone() {
        let mut peers = peers();
        assert!(peers.observe(vec![record("me", 2)]));
        assert!(!peers.observe(vec![record("me", 3)]));
        assert_eq!(peers.living(), [SchedulerId::new("me")]);
    }
}
