//! From connections that are gone to a death.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// A process all of whose connections are gone for so long is dead: one that lives notices at once
/// and has replaced them by then.
const SEVERED_FOR: Duration = Duration::from_millis(100);

/// Round trips to the ledger that it takes to replace them: to connect twice, ask what the server
/// calls the connections, follow the hints, and beat. It is about ten.
const TO_REPLACE: u32 = 12;

/// Since when the connections of one process have been gone in every look, if they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Severance(Option<Timestamp>);

impl Severance {
    /// A look at `now`; tells whether its process, which is so far from the ledger, is dead.
    pub(super) fn look(&mut self, now: Timestamp, is_severed: bool, round_trip: Duration) -> bool {
        if !is_severed {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= SEVERED_FOR.max(TO_REPLACE * round_trip)
    }
}
