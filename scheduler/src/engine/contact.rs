//! Whether the ledger takes writes, as far as this scheduler knows.
//!
//! While the ledger is away, or answers but refuses writes (full memory, a read-only replica), no
//! worker can send a heartbeat or commit an outcome. So an outage is no silence of theirs, and a
//! chunk is not held too long because of it. A scheduler signs in twice a second, which is a write:
//! where that fails, so do the heartbeats of workers.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// Bounds of the time between two sign-ins that is an outage: a few times their usual distance, and
/// so short that a worker has enough of `dead_after` left.
const SHORTEST: Duration = Duration::from_millis(750);
const LONGEST: Duration = Duration::from_millis(1_500);

/// The sign-ins of this scheduler.
#[derive(Debug)]
pub(super) struct Contact {
    /// So much time without a sign-in is an outage.
    outage: Duration,
    signed_in_at: Option<Timestamp>,
    /// The first sign-in since the last outage.
    since: Timestamp,
}

impl Contact {
    /// No sign-in yet.
    pub(super) fn new(dead_after: Duration) -> Self {
        let outage = (dead_after * 3 / 10).clamp(SHORTEST, LONGEST);
        Self { outage, signed_in_at: None, since: Timestamp::default() }
    }

    /// A sign-in worked; tells whether it ends an outage.
    pub(super) fn signed_in(&mut self, now: Timestamp) -> bool {
        let is_back = !self.is_up(now);
        if is_back || self.signed_in_at.is_none() {
            self.since = now;
        }
        self.signed_in_at = Some(now);
        is_back
    }

    /// Whether the ledger takes writes. Before the first sign-in nothing says otherwise.
    pub(super) fn is_up(&self, now: Timestamp) -> bool {
        self.signed_in_at.is_none_or(|at| now.since(at) < self.outage)
    }

    /// How long the ledger has been taking writes without an outage.
    pub(super) fn lasts(&self, now: Timestamp) -> Duration {
        now.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_ins_that_fail_for_a_while_are_an_outage_until_the_next_one() {
        let at = Timestamp::from_millis;
        let mut contact = Contact::new(Duration::from_secs(5));
        assert!(contact.is_up(at(100)), "nothing is known yet");
        assert!(!contact.signed_in(at(100)));
        assert!(!contact.signed_in(at(1_500)));
        assert_eq!(contact.lasts(at(1_500)), Duration::from_millis(1_400));
        assert!(contact.is_up(at(2_999)));
        assert!(!contact.is_up(at(3_000)));
        assert!(contact.signed_in(at(9_000)));
        assert!(contact.is_up(at(9_000)));
        assert_eq!(contact.lasts(at(9_500)), Duration::from_millis(500));
    }
}
