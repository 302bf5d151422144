//! `longshore scheduler`: decides for the fleet.

use clap::Args;
use longshore_broker::Broker;
use tokio_util::sync::CancellationToken;

use crate::embedded::scheduler_id;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::services::{self, CLOSE_WITHIN};
use crate::settings::Settings;

/// Run a scheduler until SIGTERM or Ctrl-C; any number may run at once
///
/// Waits for RabbitMQ and Redis while they are not there; gives up only if they refuse the login.
#[derive(Args)]
pub(crate) struct Scheduler {}

impl Scheduler {
    pub(crate) async fn perform(self, settings: &Settings) -> Result<(), Failure> {
        let mut interrupts = Interrupts::follow()?;
        let (broker, ledger) = tokio::select! {
            services = services::fleet(settings, "longshore scheduler") => services?,
            () = interrupts.next() => return Ok(()),
        };
        let mut config = longshore_scheduler::Config::new(scheduler_id());
        config.dead_after = settings.dead_after;
        let scheduler = longshore_scheduler::Scheduler::new(config, broker.clone(), ledger);
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
        broker.close(CLOSE_WITHIN).await;
        outcome.map_err(Failure::other)
    }
}
