//! `longshore worker`: runs subtasks for the fleet.

use clap::Args;
use longshore_broker::Broker;
use tokio_util::sync::CancellationToken;

use super::environment;
use crate::embedded;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::talk;
use crate::services::{self, CLOSE_WITHIN};
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};

/// Run a worker until SIGTERM or Ctrl-C
///
/// The first signal drains it: nothing new starts, what runs may go on for --grace, the rest is handed back. A second
/// one stops it at once. Waits for RabbitMQ and Redis while they are not there; gives up only if they refuse the login.
#[derive(Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    fleet: FleetFlags,
}

impl Worker {
    pub(crate) async fn perform(self, flags: &Flags) -> Result<(), Failure> {
        let settings = Settings::load(flags, &self.worker, &self.fleet, environment)?;
        let worker = embedded::worker(&settings, settings.queues.clone(), settings.grace)?;
        let mut interrupts = Interrupts::follow()?;
        let (broker, ledger) = tokio::select! {
            services = services::fleet(&settings, "longshore worker") => services?,
            () = interrupts.next() => return Ok(()),
        };
        let stop = CancellationToken::new();
        let running = worker.run(broker.clone(), ledger, stop.clone());
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            () = interrupts.next() => {
                stop.cancel();
                talk("draining; once more to stop at once");
                tokio::select! {
                    outcome = &mut running => outcome,
                    () = interrupts.next() => return Err(Failure::Interrupted),
                }
            }
        };
        broker.close(CLOSE_WITHIN).await;
        outcome.map_err(|error| match error {
            longshore_worker::Error::Broker(error) => error.into(),
            longshore_worker::Error::Ledger(error) => error.into(),
            other => Failure::other(other),
        })
    }
}
