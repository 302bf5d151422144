//! Keeps the ledger's time: the time of Redis without the jumps of its clock.
//!
//! Times in the ledger are absolute (a retry is due, a chunk was claimed, a deadline passes), and
//! are compared with later readings of the server's clock. That clock may jump: an operator sets
//! it, or another server with another clock takes over. So each process keeps the ledger's time by
//! its own monotonic clock, and passes it with each call of a function. A function uses the
//! server's clock as long as the two agree, and the caller's time where they differ by more than
//! [`TOLERANCE`].
//!
//! The difference between the ledger's time and that of the server is stored in Redis
//! (`longshore:clock`), for processes that start later. A scheduler that finds a jump when it
//! registers corrects the difference; the function `clock` lets only the first scheduler do so, and
//! lowers the difference to 0 slowly.
//!
//! Deliberately absent: small steps and drift, which are the server's; jumps while no process runs
//! that could notice them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore_protocol::Timestamp;
use parking_lot::Mutex;
use redis::cmd;

use super::call::Call;
use super::jobs::{clock_millis, hget};
use super::reply::{optional_word, parse};
use super::{RedisLedger, millis};
use crate::Error;

/// Times that differ by no more than this agree: a call may take some seconds to arrive. `_job.lua`
/// has the same number.
const TOLERANCE: Duration = Duration::from_secs(10);

/// How often the server's time is read, since clocks drift apart.
const READ_EVERY: Duration = Duration::from_secs(5);

/// A jump that no scheduler has corrected within this time is accepted as the ledger's time.
const ACCEPT_AFTER: Duration = Duration::from_secs(60);

/// The ledger's time as one process keeps it.
#[derive(Debug, Default)]
pub(super) struct LedgerClock {
    state: Mutex<State>,
    /// Whether this process is a scheduler, which corrects the ledger's time for all.
    corrects: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    anchor: Option<Anchor>,
    asked_at: Option<Instant>,
    /// Since when the server's time has disagreed.
    disagrees_since: Option<Instant>,
}

/// A reading of the ledger's time, with the local time at which it was taken.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Instant,
    /// How long the machine had been up, including the time in which it was suspended.
    uptime: Option<Duration>,
    time: u64,
}

/// The meaning of a reading of the server's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The reading is the ledger's time.
    Right,
    /// The server's clock jumped; the ledger's time is this.
    Jumped(u64),
}

impl LedgerClock {
    /// The ledger's time, ms; `None` before the server's time was read for the first time.
    pub(super) fn now(&self) -> Option<u64> {
        self.state.lock().anchor.map(Anchor::now)
    }

    /// Marks this process as a scheduler.
    pub(super) fn corrects(&self) {
        self.corrects.store(true, Ordering::Relaxed);
    }

    /// The ledger's time given the server's time, by the rule of the functions.
    pub(super) fn agreed(&self, server: u64) -> u64 {
        self.now().filter(|now| now.abs_diff(server) > millis(TOLERANCE)).unwrap_or(server)
    }

    /// Whether the server's time is to be read; if so, marks it as being read.
    fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let is_due = state.asked_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
        if is_due {
            state.asked_at = Some(Instant::now());
        }
        is_due
    }

    /// Takes in a reading of the server's time.
    fn take_reading(&self, time: u64, uptime: Option<Duration>) -> Reading {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.asked_at = Some(now);
        let anchor = Anchor { at: now, uptime, time };
        let Some(known) = state.anchor else {
            state.anchor = Some(anchor);
            return Reading::Right;
        };
        let expected = known.now();
        // After a suspension the local clock is behind.
        let slept = known.suspended(now, uptime);
        let is_close = |it: u64| it.abs_diff(time) <= millis(TOLERANCE);
        let since = *state.disagrees_since.get_or_insert(now);
        if is_close(expected)
            || is_close(expected + millis(slept))
            || since.elapsed() >= ACCEPT_AFTER
        {
            *state = State { anchor: Some(anchor), disagrees_since: None, ..*state };
            return Reading::Right;
        }
        Reading::Jumped(expected)
    }

    /// Takes in a correction of the ledger's time.
    fn set(&self, time: u64, uptime: Option<Duration>) {
        let mut state = self.state.lock();
        let anchor = Anchor { at: Instant::now(), uptime, time };
        *state = State { anchor: Some(anchor), disagrees_since: None, ..*state };
    }
}

impl Anchor {
    fn now(self) -> u64 {
        self.time + millis(self.at.elapsed())
    }

    /// How long the machine has been suspended since this reading.
    fn suspended(self, now: Instant, uptime: Option<Duration>) -> Duration {
        let awake = now - self.at;
        let up = uptime.zip(self.uptime).map(|(now, then)| now.saturating_sub(then));
        up.unwrap_or(awake).saturating_sub(awake)
    }
}

/// How long this machine has been up, including the time in which it was suspended.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}

impl RedisLedger {
    /// The last argument of every call of a function: the ledger's time.
    pub(super) async fn stamp(&self) -> String {
        if self.ledger_clock().now().is_none() && self.ledger_clock().is_due() {
            // Without a time, the function uses the server's clock.
            let _ = self.read_server_time("now").await;
        }
        stamp(self.ledger_clock().now())
    }

    /// Reads the time if it was not read recently.
    pub(super) async fn keep_time(&self, operation: &'static str) -> Result<(), Error> {
        if self.ledger_clock().is_due() {
            self.read_server_time(operation).await?;
        }
        Ok(())
    }

    /// The ledger's time. If the server's clock jumped, a scheduler corrects the ledger's time for
    /// all.
    pub(super) async fn read_clock(&self) -> Result<Timestamp, Error> {
        const OPERATION: &str = "now";
        if !self.ledger_clock().corrects.load(Ordering::Relaxed) {
            return Ok(Timestamp::from_millis(self.read_server_time(OPERATION).await?));
        }
        let (mut time, is_servers) = self.read_both_times(OPERATION).await?;
        if !is_servers {
            let call = Call::new("clock", [self.keys().clock()]).arg(time).arg(millis(TOLERANCE));
            time = self.call(&call).await?.parse()?;
            self.ledger_clock().set(time, uptime());
        }
        Ok(Timestamp::from_millis(time))
    }

    async fn read_server_time(&self, operation: &'static str) -> Result<u64, Error> {
        let (time, _) = self.read_both_times(operation).await?;
        Ok(time)
    }

    /// The ledger's time, and whether it equals that of the server.
    async fn read_both_times(&self, operation: &'static str) -> Result<(u64, bool), Error> {
        let told = self.transport().run_anywhere(&cmd("TIME")).await;
        let told = told.map_err(|failure| self.error(operation, &failure))?;
        let server = clock_millis(operation, told)?;
        let offset = self.send(operation, &hget(self.keys().clock(), "offset")).await?;
        let offset = optional_word(operation, offset)?;
        let offset = offset.map_or(Ok(0_i64), |offset| parse(operation, &offset))?;
        let time = server.saturating_add_signed(offset);
        Ok(match self.ledger_clock().take_reading(time, uptime()) {
            Reading::Right => (time, offset == 0),
            Reading::Jumped(expected) => (expected, false),
        })
    }
}

/// A time as an argument of functions.
fn stamp(now: Option<u64>) -> String {
    format!("now:{}", now.map_or(String::new(), |now| now.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[track_caller]
    fn check_reading(clock: &LedgerClock, time: u64, jumped: bool) {
        let told = clock.take_reading(time, None);
        assert_eq!(matches!(told, Reading::Jumped(_)), jumped, "{time}: {told:?}");
    }

    #[test]
    fn a_jump_is_rejected_and_a_small_step_is_accepted() {
        let clock = LedgerClock::default();
        assert_eq!(clock.now(), None);
        check_reading(&clock, 10 * HOUR, false);
        check_reading(&clock, 11 * HOUR, true);
        check_reading(&clock, 9 * HOUR, true);
        check_reading(&clock, 10 * HOUR + 9_000, false);
        let now = clock.now().expect("it was told");
        assert!((10 * HOUR + 9_000..10 * HOUR + 10_000).contains(&now), "{now}");
    }

    #[test]
    fn a_machine_that_was_suspended_accepts_the_time_of_the_server() {
        let clock = LedgerClock::default();
        let up = |seconds| Some(Duration::from_secs(seconds));
        clock.take_reading(10 * HOUR, up(1_000));
        assert_eq!(clock.take_reading(11 * HOUR, up(1_000 + 3_600)), Reading::Right);
        assert!(matches!(clock.take_reading(12 * HOUR, up(1_000 + 3_600)), Reading::Jumped(_)));
    }

    #[test]
    fn a_stamp_without_a_time_is_empty() {
        assert_eq!((stamp(None), stamp(Some(7))), ("now:".to_owned(), "now:7".to_owned()));
    }
}
