//! The HTTP API under `/v1`: jobs, results, workers, live events, and the audit trail.
//!
//! ```text
//! listener ─> server (limits, timeouts) ─> router ─> dispatch ─> handler ─> producer, ledger
//!                                             │          └ token, role, tenant, audit trail
//!                              one table of endpoints ─> OpenAPI document, test matrix
//! ```
//!
//! Every endpoint is one entry of the [table](endpoints()): method, path, the role that it needs,
//! its parameters and answers, and its handler. The router, the OpenAPI document and the tests of
//! access are made from it, so that none of them can know an endpoint that the others don't.
//!
//! Deliberately absent: state. A server keeps a copy of the list of API tokens for a second, and
//! the latest events for clients that reconnect; all else is in the ledger, so that any number of
//! servers may run. Also absent: TLS, which a reverse proxy in front of the server terminates.

mod access;
mod call;
mod endpoint;
mod endpoints;
mod events;
mod handlers;
mod lines;
mod openapi;
mod params;
mod reference;
mod refusal;
mod router;
mod server;

use std::fmt;
use std::sync::Arc;

use longshore_broker::Broker;
use longshore_ledger::Ledger;
use longshore_producer::Client;
use tokio_util::sync::CancellationToken;

pub use access::Exposure;
pub use endpoint::{Access, Endpoint, Scope, Verb};
pub use endpoints::endpoints;
pub use openapi::document as openapi_document;
pub use reference::page as reference_page;
pub use server::Limits;

use access::Guard;
use events::Hub;

/// Renders the metrics of this process in the text format of Prometheus.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How a server is reached, and what it serves beside the API.
#[derive(Clone)]
pub struct Config {
    /// From where the server can be reached.
    pub exposure: Exposure,
    /// Renders `GET /metrics`; without it the process has no metrics.
    pub metrics: Option<RenderMetrics>,
    /// What clients are granted.
    pub limits: Limits,
}

impl Config {
    /// A server with this exposure, without metrics, and with the usual limits.
    pub fn new(exposure: Exposure) -> Self {
        Self { exposure, metrics: None, limits: Limits::default() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("exposure", &self.exposure).finish_non_exhaustive()
    }
}

/// A server of the API. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

/// The parts of a server that its requests share.
struct Shared {
    client: Client,
    guard: Guard,
    hub: Arc<Hub>,
    metrics: Option<RenderMetrics>,
    limits: Limits,
    /// Ends streams when the server stops.
    stop: CancellationToken,
}

impl Shared {
    fn ledger(&self) -> &dyn Ledger {
        self.client.jobs().ledger().as_ref()
    }

    fn broker(&self) -> &dyn Broker {
        self.client.broker().as_ref()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

impl Api {
    /// A server that submits and reads through `client`. Once `stop` is cancelled, streams end and
    /// no further connections are accepted.
    pub fn new(client: Client, config: Config, stop: CancellationToken) -> Self {
        let ledger = Arc::clone(client.jobs().ledger());
        let guard = Guard::new(Arc::clone(&ledger), config.exposure);
        let hub = Hub::new(client.jobs().clone());
        let Config { metrics, limits, .. } = config;
        Self { shared: Arc::new(Shared { client, guard, hub, metrics, limits, stop }) }
    }

    /// The routes, for a server of the caller's own. Requests without a peer address, which the
    /// server of [`Self::serve`] adds, count as coming from one unknown address.
    pub fn router(&self) -> axum::Router {
        router::router(&self.shared)
    }

    /// Serves a listener until the server is stopped; then lets requests end, for some seconds.
    pub async fn serve(&self, listener: tokio::net::TcpListener) {
        let Shared { limits, stop, .. } = &*self.shared;
        server::serve(listener, self.router(), limits.clone(), stop.clone()).await;
    }
}
