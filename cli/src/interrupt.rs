//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Follows both signals from the moment that it is made.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(crate) fn follow() -> Result<Self, Failure> {
        let follow = |kind| {
            signal(kind)
                .map_err(|error| Failure::other(format_args!("can't follow signals: {error}")))
        };
        Ok(Self {
            interrupt: follow(SignalKind::interrupt())?,
            terminate: follow(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
