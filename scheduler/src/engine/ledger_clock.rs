//! Converts times of this process to times of the ledger, and notices jumps of the ledger's clock.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// The ledger's clock counts as changed when it differs by more than this from what is expected.
/// Smaller differences are the delay of an answer.
const JUMP: Duration = Duration::from_millis(100);

/// Both clocks at the same moment, as the ledger said last.
#[derive(Debug, Default)]
pub(super) struct LedgerClock {
    /// The time of this process, and that of the ledger.
    read: Option<(Timestamp, Timestamp)>,
}

impl LedgerClock {
    /// Takes in the ledger's time; returns whether it is not what was expected.
    pub(super) fn set(&mut self, now: Timestamp, ledger: Timestamp) -> bool {
        let expected = self.at(now);
        self.read = Some((now, ledger));
        expected.is_none_or(|at| at.since(ledger).max(ledger.since(at)) > JUMP)
    }

    /// The ledger's time at a time of this process; `None` before the ledger has said it.
    pub(super) fn at(&self, now: Timestamp) -> Option<Timestamp> {
        self.read.map(|(ours, ledger)| ledger.plus(now.since(ours)))
    }
}
