//! Waits for Ctrl-C, SIGTERM and SIGHUP.

use longshore_worker::stops_on_hangup;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Receives these signals from its creation on.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`.
    hangup: Option<Signal>,
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
            hangup: stops_on_hangup().then(|| follow(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hung_up => {}
        }
    }
}
