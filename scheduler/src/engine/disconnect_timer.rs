//! Decides when a process has been without connections long enough to count as dead.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// A process all of whose connections are gone for this long is dead: one that is alive notices at
/// once and has replaced them by then.
const GONE_FOR: Duration = Duration::from_millis(100);

/// Round trips to the ledger that it takes to replace the connections: to connect twice, ask what
/// the server calls the connections, subscribe to hints, and send a heartbeat. They are about ten.
const TO_REPLACE: u32 = 12;

/// Since when every check found the connections of one process gone, if they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DisconnectTimer(Option<Timestamp>);

impl DisconnectTimer {
    /// A check at `now` found the connections gone or there. Returns whether the process, which is
    /// `round_trip` away from the ledger, is dead.
    pub(super) fn check(&mut self, now: Timestamp, is_gone: bool, round_trip: Duration) -> bool {
        if !is_gone {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= GONE_FOR.max(TO_REPLACE * round_trip)
    }
}
