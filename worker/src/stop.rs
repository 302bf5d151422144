//! Requests to stop a worker: the first drains it, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and Ctrl-C, and in a supervised process what its supervisor passes on.
#[derive(Debug)]
pub struct StopRequests {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    drain: CancellationToken,
    asked: bool,
    signals: u32,
}

impl StopRequests {
    /// Follows them from now on. `drain` is the supervisor's ([`Watched::drain`](crate::Watched::drain)), or one that nobody
    /// cancels.
    ///
    /// # Errors
    /// When the system does not let us follow signals.
    pub fn follow(drain: CancellationToken) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            drain,
            asked: false,
            signals: 0,
        })
    }

    /// Waits for the next request. A signal that comes to supervisor and worker alike is one request, though the
    /// supervisor passes it on; SIGQUIT is always the second.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.quit.recv() => return,
                _ = self.terminate.recv() => self.signals += 1,
                _ = self.interrupt.recv() => self.signals += 1,
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
