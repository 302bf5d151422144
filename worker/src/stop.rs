//! Waits for requests to stop a worker program, by signals or from its supervisor.
//!
//! The first drains the program, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Requests by SIGTERM, Ctrl-C and SIGHUP, and in a supervised process those that its supervisor
/// passes on.
#[derive(Debug)]
pub struct StopRequests {
    terminate: Signal,
    interrupt: Signal,
    /// `None` for a program that ignores SIGHUP, as `nohup` has it.
    hangup: Option<Signal>,
    quit: Signal,
    drain: CancellationToken,
    asked: bool,
    signals: u32,
}

impl StopRequests {
    /// Follows the requests from now on. `drain` is the supervisor's
    /// ([`Supervised::drain`](crate::Supervised::drain)), or a token that is never cancelled.
    ///
    /// # Errors
    /// When the operating system refuses to deliver signals.
    pub fn follow(drain: CancellationToken) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: stops_on_hangup().then(|| signal(SignalKind::hangup())).transpose()?,
            quit: signal(SignalKind::quit())?,
            drain,
            asked: false,
            signals: 0,
        })
    }

    /// Waits for the next request. A signal that reaches supervisor and worker alike is one
    /// request, though the supervisor passes it on; SIGQUIT is always the second.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.quit.recv() => return,
                _ = self.terminate.recv() => self.signals += 1,
                _ = self.interrupt.recv() => self.signals += 1,
                () = hung_up(self.hangup.as_mut()) => self.signals += 1,
                () = self.drain.cancelled(), if !self.asked => {}
            }
            if !self.asked {
                self.asked = true;
                return;
            }
            if self.signals >= 2 {
                return;
            }
        }
    }
}

async fn hung_up(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process is to stop on SIGHUP: `nohup` starts programs that ignore it, and they have
/// to go on ignoring it.
pub fn stops_on_hangup() -> bool {
    // A mask in hexadecimal digits; SIGHUP is the first signal.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & 1 == 0)
}
