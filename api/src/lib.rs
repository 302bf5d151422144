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
//! servers may run.

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
use longshore_producer::{AllowedRoots, Client};
pub use longshore_tls::{Acceptor, ServerFiles};
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
    /// The certificate with which the server speaks TLS; without it, it doesn't.
    pub tls: Option<Arc<Acceptor>>,
    /// Renders `GET /metrics`; without it the process has no metrics.
    pub metrics: Option<RenderMetrics>,
    /// Where results may be read from that are not in the ledger.
    pub allow_roots: AllowedRoots,
    /// What clients are granted.
    pub limits: Limits,
}

impl Config {
    /// A server with this exposure, without TLS and metrics, and with the usual limits.
    pub fn new(exposure: Exposure) -> Self {
        let (allow_roots, limits) = (AllowedRoots::default(), Limits::default());
        Self { exposure, tls: None, metrics: None, allow_roots, limits }
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
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    guard: Guard,
    hub: Arc<Hub>,
    tls: Option<Arc<Acceptor>>,
    metrics: Option<RenderMetrics>,
    limits: Limits,
    /// Ends streams when the server stops.
    stop: CancellationToken,
}

impl Shared {
    fn ledger(&self) -> &dyn Ledger {
        self.ledger.as_ref()
    }

    fn broker(&self) -> &dyn Broker {
        self.broker.as_ref()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

impl Api {
    /// A server of the jobs of this broker and ledger. Once `stop` is cancelled, streams end and no
    /// further connections are accepted.
    pub fn new(
        broker: Arc<dyn Broker>,
        ledger: Arc<dyn Ledger>,
        config: Config,
        stop: CancellationToken,
    ) -> Self {
        let client = Client::new(Arc::clone(&broker), Arc::clone(&ledger));
        let client = client.within(config.allow_roots);
        let guard = Guard::new(Arc::clone(&ledger), config.exposure);
        let hub = Hub::new(Arc::clone(&ledger));
        let Config { tls, metrics, limits, .. } = config;
        let shared = Shared { client, broker, ledger, guard, hub, tls, metrics, limits, stop };
        Self { shared: Arc::new(shared) }
    }

    /// The routes, for a server of the caller's own. Requests without a peer address, which the
    /// server of [`Self::serve`] adds, count as coming from one unknown address.
    pub fn router(&self) -> axum::Router {
        router::router(&self.shared)
    }

    /// Serves a listener until the server is stopped; then lets requests end, for some seconds.
    pub async fn serve(&self, listener: tokio::net::TcpListener) {
        let Shared { tls, limits, stop, .. } = &*self.shared;
        let tls = tls.clone();
        server::serve(listener, tls, self.router(), limits.clone(), stop.clone()).await;
    }
}
