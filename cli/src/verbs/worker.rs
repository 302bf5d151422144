//! `longshore worker`: runs a worker; the first signal drains it, the second stops it at once.

use std::time::Duration;

use clap::Args;
use longshore_worker::StopRequests;
use tokio_util::sync::CancellationToken;

use crate::embedded;
use crate::environment::environment;
use crate::failure::Failure;
use crate::metrics;
use crate::output::talk;
use crate::services::{self, Services};
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};
use crate::supervisor;

/// The name of the connection in RabbitMQ.
const NAME: &str = "longshore worker";

/// The longest wait for the close of the RabbitMQ connection after a second signal.
const QUICK_CLOSE: Duration = Duration::from_millis(500);

/// Run a worker until SIGTERM, SIGHUP or Ctrl-C
///
/// The first signal drains the worker: no new subtask starts, running subtasks get --grace to end,
/// and the rest is released to other workers. A second signal stops it at once. The worker waits
/// while RabbitMQ or Redis is unavailable, and exits only if they refuse the login.
///
/// A supervisor process watches the worker: after a crash, other workers take over its work at
/// once, and the supervisor records the cause and restarts the worker.
///
/// Example: longshore worker --slots 8 --queues default,gpu
#[derive(Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    fleet: FleetFlags,
    /// Run without a supervisor, which would restart the worker after a crash
    #[arg(long)]
    unsupervised: bool,
    /// Offer the tasks of the benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Worker {
    /// Loads the settings from all layers.
    pub(crate) fn settings(&self, flags: &Flags) -> Result<Settings, Failure> {
        Settings::load(flags, &self.worker, &self.fleet, &environment())
    }

    pub(crate) async fn perform(self, flags: &Flags) -> Result<(), Failure> {
        let settings = self.settings(flags)?;
        let mut worker =
            embedded::worker(&settings, settings.queues.clone(), settings.grace, self.bench)?;
        services::rabbit_config(&settings, NAME).check()?;
        let mut drain = CancellationToken::new();
        if !self.unsupervised {
            let Some(supervised) = longshore_worker::supervised().map_err(Failure::other)? else {
                services::ledger(&settings)?;
                return Err(supervisor::become_supervisor());
            };
            drain = supervised.drain.clone();
            worker = worker.supervised(supervised);
        }
        let mut requests = StopRequests::follow(drain).map_err(Failure::other)?;
        metrics::serve(&settings, longshore_worker::metrics::describe)?;
        let services = Services::start(&settings, NAME)?;
        let outcome = work(worker, &services, &mut requests).await;
        if matches!(outcome, Err(Failure::Interrupted)) {
            // The second signal leaves no time for a service that may not answer.
            let _ = tokio::time::timeout(QUICK_CLOSE, services.close()).await;
        } else {
            services.close().await;
        }
        outcome
    }
}

async fn work(
    worker: longshore_worker::Worker,
    services: &Services,
    requests: &mut StopRequests,
) -> Result<(), Failure> {
    tokio::select! {
        ready = services.ready() => ready?,
        () = requests.next() => return Ok(()),
    }
    let stop = CancellationToken::new();
    let running = worker.run(services.broker.clone(), services.ledger.clone(), stop.clone());
    tokio::pin!(running);
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        () = requests.next() => {
            stop.cancel();
            talk("draining; once more to stop at once");
            tokio::select! {
                outcome = &mut running => outcome,
                () = requests.next() => return Err(Failure::Interrupted),
            }
        }
    };
    outcome.map_err(|error| match error {
        longshore_worker::Error::Broker(error) => error.into(),
        longshore_worker::Error::Ledger(error) => error.into(),
        other => Failure::other(other),
    })
}
