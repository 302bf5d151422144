//! Serves metrics over HTTP, in the text format of Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::PrometheusBuilder;
use tracing::info;

use crate::failure::Failure;

/// Starts to serve `GET /metrics` (any path will do) at `address`, if there is one. Must be called within a runtime.
pub(crate) fn serve(address: Option<SocketAddr>) -> Result<(), Failure> {
    let Some(address) = address else { return Ok(()) };
    // The exporter reports a port that is taken only in its log.
    drop(std::net::TcpListener::bind(address).map_err(|error| {
        Failure::usage(format!("http_listen: {address} can't be listened on: {error}"))
    })?);
    let exporter = PrometheusBuilder::new().with_http_listener(address);
    exporter.install().map_err(|error| Failure::other(format_args!("http_listen: {error}")))?;
    longshore_scheduler::metrics::describe();
    longshore_worker::metrics::describe();
    info!(%address, "serving metrics");
    Ok(())
}
