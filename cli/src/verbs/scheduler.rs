//! `longshore scheduler`: waits for the services, then runs a scheduler until a signal.

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::embedded::scheduler_id;
use crate::failure::Failure;
use crate::http;
use crate::interrupt::Interrupts;
use crate::services::Services;
use crate::settings::Settings;

/// Run a scheduler until SIGTERM, SIGHUP or Ctrl-C; any number may run at once
///
/// With `http_listen` set it also serves its metrics and the HTTP API there. Waits while RabbitMQ
/// or Redis is unavailable, and exits only if they refuse the login.
#[derive(Args)]
pub(crate) struct Scheduler {}

impl Scheduler {
    pub(crate) async fn perform(self, settings: &Settings) -> Result<(), Failure> {
        let mut interrupts = Interrupts::follow()?;
        let listener = http::bind_if_set(settings, longshore_scheduler::metrics::describe)?;
        let services = Services::start(settings, "longshore scheduler")?;
        let server = listener
            .map(|listener| listener.serve(services.broker.clone(), services.ledger.clone()));
        let outcome = schedule(settings, &services, &mut interrupts).await;
        if let Some(server) = server {
            server.stop().await;
        }
        services.close().await;
        outcome
    }
}

async fn schedule(
    settings: &Settings,
    services: &Services,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    tokio::select! {
        ready = services.ready() => ready?,
        () = interrupts.next() => return Ok(()),
    }
    if let Some(address) = settings.http_listen
        && let Err(failure) = http::check_tokens(address, settings, &*services.ledger).await
    {
        // Jobs are more important than who may look at them.
        warn!(%failure, "the HTTP API answers nobody");
    }
    let mut config = longshore_scheduler::Config::new(scheduler_id());
    config.dead_after = settings.dead_after;
    config.allow_roots = settings.restrictions.allow_roots.clone();
    let (broker, ledger) = (services.broker.clone(), services.ledger.clone());
    let scheduler = longshore_scheduler::Scheduler::new(config, broker, ledger);
    let stop = CancellationToken::new();
    let running = scheduler.run(stop.clone());
    tokio::pin!(running);
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        () = interrupts.next() => {
            stop.cancel();
            running.await
        }
    };
    outcome.map_err(Failure::other)
}
