//! `longshore worker`: runs subtasks for the fleet.

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

/// The name that RabbitMQ shows for it.
const NAME: &str = "longshore worker";

/// How long a good-bye to RabbitMQ may take when somebody wants us gone.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Run a worker until SIGTERM, SIGHUP or Ctrl-C
///
/// The first signal drains it: nothing new starts, what runs may go on for --grace, the rest is handed back. A second
/// one stops it at once. Waits for RabbitMQ and Redis while they are not there; gives up only if they refuse the login.
///
/// The worker is a child of a process that watches it: when it crashes, its work goes on elsewhere at once with what the
/// system said of the crash, and it is started anew.
#[derive(Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    fleet: FleetFlags,
    /// Run in one process, which nobody watches and starts anew
    #[arg(long)]
    unsupervised: bool,
    /// Know the task of the benchmark that keeps a core busy
    #[arg(long, hide = true)]
    bench: bool,
}

impl Worker {
    /// Of all layers.
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
                return Err(supervisor::become_one());
            };
            drain = supervised.drain.clone();
            worker = worker.supervised(supervised);
        }
        let mut requests = StopRequests::follow(drain).map_err(Failure::other)?;
        metrics::serve(settings.http_listen, longshore_worker::metrics::describe)?;
        let services = Services::start(&settings, NAME)?;
        let outcome = work(worker, &services, &mut requests).await;
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
