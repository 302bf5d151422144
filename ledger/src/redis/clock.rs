//! The ledger's time: the time of Redis, less the jumps of its clock.
//!
//! Times in the ledger are absolute (a retry is due, a chunk was claimed, a deadline passes), and are
//! compared with what the server's clock says later. That clock jumps: somebody sets it, or another
//! server with another clock takes over. So each process keeps the ledger's time by its own monotonic
//! clock, and tells it with each call of a function. A function goes by the server's clock as
//! long as the two agree, and by the caller's where they differ by more than [`TOLERANCE`].
//!
//! How far the ledger's time is from that of the server is kept in Redis (`longshore:clock`), for those
//! who come later. A scheduler that finds a jump when it signs in corrects it there; the function
//! `clock` sees to it that only the first one does, and lets the difference go down to 0 slowly.
//!
//! Deliberately absent: small steps and drift, which are the server's; jumps while no process is
//! there to notice them.

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

/// Times that differ by no more than this agree. A call may be on its way for some seconds. The same
/// number stands in `_job.lua`.
const TOLERANCE: Duration = Duration::from_secs(10);

/// The server is asked so often, since clocks drift apart.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A jump that no scheduler has corrected after this time is believed.
const BELIEVE_AFTER: Duration = Duration::from_secs(60);

/// What one process knows of the ledger's time.
#[derive(Debug, Default)]
pub(super) struct LedgerClock {
    state: Mutex<State>,
    /// This is a scheduler's, which corrects the ledger's time for all.
    corrects: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    anchor: Option<Anchor>,
    asked_at: Option<Instant>,
    /// Since when the server has told another time.
    disagrees_since: Option<Instant>,
}

/// The ledger's time at a moment of this process.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Instant,
    /// How long the machine had been up, suspended or not.
    uptime: Option<Duration>,
    time: u64,
}

/// What to make of the time that the server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is the ledger's time.
    Right,
    /// The server's clock jumped; the ledger's time is this.
    Jumped(u64),
}

impl LedgerClock {
    /// The ledger's time, ms; `None` before the server told it for the first time.
    pub(super) fn now(&self) -> Option<u64> {
        self.state.lock().anchor.map(Anchor::now)
    }

    /// From now on it is a scheduler's.
    pub(super) fn corrects(&self) {
        self.corrects.store(true, Ordering::Relaxed);
    }

    /// The ledger's time where the server told this one, as functions decide it.
    pub(super) fn agreed(&self, server: u64) -> u64 {
        self.now().filter(|now| now.abs_diff(server) > millis(TOLERANCE)).unwrap_or(server)
    }

    /// Whether it is time to ask the server; tells others that it is being asked.
    fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let is_due = state.asked_at.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        if is_due {
            state.asked_at = Some(Instant::now());
        }
        is_due
    }

    /// Takes in what the server tells.
    fn hear(&self, time: u64, uptime: Option<Duration>) -> Told {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.asked_at = Some(now);
        let anchor = Anchor { at: now, uptime, time };
        let Some(known) = state.anchor else {
            state.anchor = Some(anchor);
            return Told::Right;
        };
        let expected = known.now();
        // A machine that was suspended is late itself.
        let slept = known.suspended(now, uptime);
        let is_close = |it: u64| it.abs_diff(time) <= millis(TOLERANCE);
        let since = *state.disagrees_since.get_or_insert(now);
        if is_close(expected)
            || is_close(expected + millis(slept))
            || since.elapsed() >= BELIEVE_AFTER
        {
            *state = State { anchor: Some(anchor), disagrees_since: None, ..*state };
            return Told::Right;
        }
        Told::Jumped(expected)
    }

    /// Takes in what the ledger's time was corrected to.
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

    /// How long the machine has been suspended since.
    fn suspended(self, now: Instant, uptime: Option<Duration>) -> Duration {
        let awake = now - self.at;
        let up = uptime.zip(self.uptime).map(|(now, then)| now.saturating_sub(then));
        up.unwrap_or(awake).saturating_sub(awake)
    }
}

/// How long this machine has been up, with the time in which it was suspended.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}

impl RedisLedger {
    /// The last argument of each call of a function.
    pub(super) async fn stamp(&self) -> String {
        if self.ledger_clock().now().is_none() && self.ledger_clock().is_due() {
            // Without it the server's clock counts.
            let _ = self.ask_time("now").await;
        }
        stamp(self.ledger_clock().now())
    }

    /// Asks for the time if it has not been asked for lately.
    pub(super) async fn keep_time(&self, operation: &'static str) -> Result<(), Error> {
        if self.ledger_clock().is_due() {
            self.ask_time(operation).await?;
        }
        Ok(())
    }

    /// The ledger's time. Where the server's clock jumped a scheduler corrects it for all.
    pub(super) async fn read_clock(&self) -> Result<Timestamp, Error> {
        const OPERATION: &str = "now";
        if !self.ledger_clock().corrects.load(Ordering::Relaxed) {
            return Ok(Timestamp::from_millis(self.ask_time(OPERATION).await?));
        }
        let (mut time, is_servers) = self.hear_time(OPERATION).await?;
        if !is_servers {
            let call = Call::new("clock", [self.keys().clock()]).arg(time).arg(millis(TOLERANCE));
            time = self.call(&call).await?.parse()?;
            self.ledger_clock().set(time, uptime());
        }
        Ok(Timestamp::from_millis(time))
    }

    async fn ask_time(&self, operation: &'static str) -> Result<u64, Error> {
        let (time, _) = self.hear_time(operation).await?;
        Ok(time)
    }

    /// The ledger's time, and whether it is that of the server.
    async fn hear_time(&self, operation: &'static str) -> Result<(u64, bool), Error> {
        let told = self.transport().run_anywhere(&cmd("TIME")).await;
        let told = told.map_err(|failure| self.error(operation, &failure))?;
        let server = clock_millis(operation, told)?;
        let offset = self.send(operation, &hget(self.keys().clock(), "offset")).await?;
        let offset = optional_word(operation, offset)?;
        let offset = offset.map_or(Ok(0_i64), |offset| parse(operation, &offset))?;
        let time = server.saturating_add_signed(offset);
        Ok(match self.ledger_clock().hear(time, uptime()) {
            Told::Right => (time, offset == 0),
            Told::Jumped(expected) => (expected, false),
        })
    }
}

/// A time as functions are told it.
fn stamp(now: Option<u64>) -> String {
    format!("now:{}", now.map_or(String::new(), |now| now.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[track_caller]
    fn hears(clock: &LedgerClock, time: u64, jumped: bool) {
        let told = clock.hear(time, None);
        assert_eq!(matches!(told, Told::Jumped(_)), jumped, "{time}: {told:?}");
    }

    #[test]
    fn a_jump_either_way_is_not_believed_and_a_small_step_is() {
        let clock = LedgerClock::default();
        assert_eq!(clock.now(), None);
        hears(&clock, 10 * HOUR, false);
        hears(&clock, 11 * HOUR, true);
        hears(&clock, 9 * HOUR, true);
        hears(&clock, 10 * HOUR + 9_000, false);
        let now = clock.now().expect("it was told");
        assert!((10 * HOUR + 9_000..10 * HOUR + 10_000).contains(&now), "{now}");
    }

    #[test]
    fn a_machine_that_was_suspended_believes_the_server() {
        let clock = LedgerClock::default();
        let up = |seconds| Some(Duration::from_secs(seconds));
        clock.hear(10 * HOUR, up(1_000));
        assert_eq!(clock.hear(11 * HOUR, up(1_000 + 3_600)), Told::Right);
        assert!(matches!(clock.hear(12 * HOUR, up(1_000 + 3_600)), Told::Jumped(_)));
    }

    #[test]
    fn a_stamp_without_a_time_leaves_it_to_the_server() {
        assert_eq!((stamp(None), stamp(Some(7))), ("now:".to_owned(), "now:7".to_owned()));
    }
}
