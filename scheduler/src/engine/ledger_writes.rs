//! Decides whether the ledger takes writes, by whether this scheduler can register.
//!
//! While the ledger is away, or answers but refuses writes (full memory, a read-only replica), no
//! worker can send a heartbeat or commit an outcome. So in an outage silence proves nothing about a
//! worker, and a chunk is not slow because it is held for long. A scheduler registers twice a
//! second, which is a write: where that fails, the heartbeats of workers fail too.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// Bounds of the time between two registrations that counts as an outage: a few times the usual
/// time, and so short that a worker has enough of `dead_after` left.
const SHORTEST: Duration = Duration::from_millis(750);
const LONGEST: Duration = Duration::from_millis(1_500);

/// The registrations of this scheduler.
#[derive(Debug)]
pub(super) struct LedgerWrites {
    /// This much time without a registration is an outage.
    outage: Duration,
    registered_at: Option<Timestamp>,
    /// The first registration since the last outage.
    since: Timestamp,
}

impl LedgerWrites {
    /// No registration yet.
    pub(super) fn new(dead_after: Duration) -> Self {
        let outage = (dead_after * 3 / 10).clamp(SHORTEST, LONGEST);
        Self { outage, registered_at: None, since: Timestamp::default() }
    }

    /// A registration worked; returns whether it ends an outage.
    pub(super) fn registered(&mut self, now: Timestamp) -> bool {
        let is_back = !self.work(now);
        if is_back || self.registered_at.is_none() {
            self.since = now;
        }
        self.registered_at = Some(now);
        is_back
    }

    /// Whether the ledger takes writes. Before the first registration nothing says otherwise.
    pub(super) fn work(&self, now: Timestamp) -> bool {
        self.registered_at.is_none_or(|at| now.since(at) < self.outage)
    }

    /// How long the ledger has been taking writes without an outage.
    pub(super) fn work_for(&self, now: Timestamp) -> Duration {
        now.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_that_fail_for_a_while_are_an_outage_until_the_next_one() {
        let at = Timestamp::from_millis;
        let mut writes = LedgerWrites::new(Duration::from_secs(5));
        assert!(writes.work(at(100)), "nothing is known yet");
        assert!(!writes.registered(at(100)));
        assert!(!writes.registered(at(1_500)));
        assert_eq!(writes.work_for(at(1_500)), Duration::from_millis(1_400));
        assert!(writes.work(at(2_999)));
        assert!(!writes.work(at(3_000)));
        assert!(writes.registered(at(9_000)));
        assert!(writes.work(at(9_000)));
        assert_eq!(writes.work_for(at(9_500)), Duration::from_millis(500));
    }
}
