//! `longshore api`: serves the HTTP API of the fleet.

use clap::Args;
use longshore_api::Exposure;

use crate::failure::Failure;
use crate::http::{self, Listener, USUAL_ADDRESS, exposure};
use crate::interrupt::Interrupts;
use crate::services::{self, Services};
use crate::settings::Settings;

/// Serve the HTTP API until SIGTERM, SIGHUP or Ctrl-C; any number may run at once
///
/// Listens at `http_listen`, by default 127.0.0.1:7700. Keeps no state, so several may stand behind
/// a load balancer. Other machines are served with TLS (http_tls_cert, http_tls_key) once there is
/// an API token, or through a reverse proxy that terminates TLS (http_behind_proxy = true). Waits
/// while RabbitMQ or Redis is unavailable: GET /readyz tells.
#[derive(Args)]
pub(crate) struct ApiServer {}

impl ApiServer {
    pub(crate) async fn perform(self, settings: &Settings) -> Result<(), Failure> {
        let address = settings.http_listen.unwrap_or(USUAL_ADDRESS);
        if exposure(address, settings) == Exposure::Network {
            return Err(Failure::usage(format!(
                "http_listen: {address} can be reached from other machines, and the API has no TLS; \
                 set http_tls_cert and http_tls_key, listen on 127.0.0.1, or put the API behind a \
                 proxy that terminates TLS and set http_behind_proxy = true"
            )));
        }
        let mut interrupts = Interrupts::follow()?;
        let listener = Listener::bind(address, settings, || ())?;
        http::check_tokens(address, settings, &services::ledger(settings)?).await?;
        let services = Services::start(settings, "longshore api")?;
        let server = listener.serve(services.broker.clone(), services.ledger.clone());
        let outcome = tokio::select! {
            // Logs each change, and fails only if waiting can't help.
            refused = services.refused() => Err(refused),
            () = interrupts.next() => Ok(()),
        };
        server.stop().await;
        services.close().await;
        outcome
    }
}
