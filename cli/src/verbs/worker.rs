//! `longshore worker`: runs subtasks for the fleet.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::environment;
use crate::embedded;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::talk;
use crate::services::Services;
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};

/// How long a good-bye to RabbitMQ may take when somebody wants us gone.
const AT_ONCE: Duration = Duration::from_millis(500);

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
        let services = Services::start(&settings, "longshore worker")?;
        let outcome = work(worker, &services, &mut interrupts).await;
        if matches!(outcome, Err(Failure::Interrupted)) {
            // "At once" leaves no time for a good-bye to a service that may not answer.
            let _ = tokio::time::timeout(AT_ONCE, services.close()).await;
        } else {
            services.close().await;
        }
        outcome
    }
}

async fn work(
    worker: longshore_worker::Worker,
    services: &Services,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    tokio::select! {
        ready = services.ready() => ready?,
        () = interrupts.next() => return Ok(()),
    }
    let stop = CancellationToken::new();
    let running = worker.run(services.broker.clone(), services.ledger.clone(), stop.clone());
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
    outcome.map_err(|error| match error {
        longshore_worker::Error::Broker(error) => error.into(),
        longshore_worker::Error::Ledger(error) => error.into(),
        other => Failure::other(other),
    })
}
