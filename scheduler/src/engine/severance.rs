//! From a severed heart to a death.

use std::time::Duration;

use longshore_protocol::Timestamp;

/// A heart that is severed for so long is no mere blip of its connection: a process that lives notices at once and has
/// replaced it by then.
const SEVERED_FOR: Duration = Duration::from_millis(100);

/// Since when one heart has been severed in every look, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Severance(Option<Timestamp>);

impl Severance {
    /// A look at `now`; tells whether its process is dead.
    pub(super) fn look(&mut self, now: Timestamp, is_severed: bool) -> bool {
        if !is_severed {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= SEVERED_FOR
    }
}
