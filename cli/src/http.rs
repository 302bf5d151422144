//! Serves the HTTP API, and with it the metrics of this process, at `http_listen`.
//!
//! Deliberately absent: the API itself, which is the crate `longshore-api`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use longshore_api::{Acceptor, Api, Config, Exposure, RenderMetrics};
use longshore_broker::Broker;
use longshore_ledger::Ledger;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::failure::Failure;
use crate::metrics;
use crate::settings::Settings;

/// The address where `longshore api` and `longshore dev` listen unless another one is set.
pub(crate) const USUAL_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700);

/// A listener with the metrics of this process, before it serves.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
}

/// A server that runs.
pub(crate) struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens at an address; `describe` registers the metrics of this process.
    pub(crate) fn bind(
        address: SocketAddr,
        settings: &Settings,
        describe: impl FnOnce(),
    ) -> Result<Self, Failure> {
        let tls = acceptor(settings)?;
        let wrong = |error: std::io::Error| {
            Failure::usage(format!("http_listen: {address} can't be listened on: {error}"))
        };
        let listener = std::net::TcpListener::bind(address).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let listener = TcpListener::from_std(listener).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let metrics = metrics::record(describe)?;
        let render: RenderMetrics = Arc::new(move || metrics.render());
        let mut config = Config::new(exposure(address, settings));
        config.metrics = Some(render);
        config.tls = tls;
        config.allow_roots.clone_from(&settings.restrictions.allow_roots);
        Ok(Self { listener, address, config })
    }

    /// The URL of the server.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The address with its port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether jobs are served, and not metrics alone.
    pub(crate) fn serves_jobs(&self) -> bool {
        self.config.exposure != Exposure::Network
    }

    /// Starts to serve.
    pub(crate) fn serve(self, broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Server {
        let serves_jobs = self.serves_jobs();
        let Self { listener, address, config } = self;
        if !serves_jobs {
            warn!(
                %address,
                "serving metrics alone: without TLS the API is not served to other machines; set \
                 http_tls_cert and http_tls_key, or put it behind a proxy and set \
                 http_behind_proxy = true"
            );
        } else {
            info!(%address, tls = config.tls.is_some(), "serving the HTTP API and metrics");
        }
        let stop = CancellationToken::new();
        let api = Api::new(broker, ledger, config, stop.clone());
        let task = tokio::spawn(async move { api.serve(listener).await });
        Server { stop, task }
    }
}

impl Server {
    /// Stops: requests that run may end, streams end at once.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // The server bounds the time itself; a panic in it was logged.
        let _ = self.task.await;
    }
}

/// Binds at `http_listen`, if it is set.
pub(crate) fn bind_if_set(
    settings: &Settings,
    describe: impl FnOnce(),
) -> Result<Option<Listener>, Failure> {
    let bind = |address| Listener::bind(address, settings, describe);
    settings.http_listen.map(bind).transpose()
}

/// Refuses to serve other machines while nobody could call: there are no API tokens. A ledger that
/// does not answer says nothing about them, and requests are refused until it does.
pub(crate) async fn check_tokens(
    address: SocketAddr,
    settings: &Settings,
    ledger: &dyn Ledger,
) -> Result<(), Failure> {
    if exposure(address, settings) != Exposure::NetworkTls {
        return Ok(());
    }
    match ledger.api_tokens().await {
        Ok(tokens) if tokens.is_empty() => Err(Failure::usage(format!(
            "http_listen: {address} can be reached from other machines, and there are no API \
             tokens; make the first one with `longshore token create NAME --role admin`"
        ))),
        _ => Ok(()),
    }
}

/// The certificate with which this process serves HTTP, if it speaks TLS.
pub(crate) fn acceptor(settings: &Settings) -> Result<Option<Arc<Acceptor>>, Failure> {
    let acceptor = settings.http_tls.clone().map(Acceptor::new).transpose();
    let bad_file = |error| Failure::usage(error).of_settings();
    Ok(acceptor.map_err(bad_file)?.map(Arc::new))
}

/// From where an address can be reached.
pub(crate) fn exposure(address: SocketAddr, settings: &Settings) -> Exposure {
    if settings.http_behind_proxy {
        Exposure::BehindProxy
    } else if address.ip().is_loopback() {
        Exposure::Loopback
    } else if settings.http_tls.is_some() {
        Exposure::NetworkTls
    } else {
        Exposure::Network
    }
}
