//! Starts the log of a worker program, and serves its metrics where that is built in.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{Config, Error};

/// Starts to log to standard error: what `RUST_LOG` selects, or else `info`. Does nothing if the
/// program has set up logging itself.
pub(crate) fn log() {
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::new(wanted),
        // What made a connection says which server's certificate was refused.
        _ => EnvFilter::new("info,rustls_platform_verifier=off"),
    };
    let has_colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours);
    // An error means that the program has set up logging.
    let _ = lines.try_init();
}

/// Serves metrics for Prometheus, if the configuration has an address for that.
#[cfg(feature = "metrics")]
pub(crate) fn serve_metrics(config: &Config) -> Result<(), Error> {
    use longshore_protocol::ErrorKind;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tracing::info;

    let Some(address) = config.http_listen else { return Ok(()) };
    let exporter = PrometheusBuilder::new().with_http_listener(address);
    exporter.install().map_err(|error| {
        Error::new(ErrorKind::BadConfig, format!("http_listen: {address}: {error}"))
    })?;
    longshore_worker::metrics::describe();
    info!(%address, "serving metrics");
    Ok(())
}

/// Refuses a configuration that asks for metrics.
#[cfg(not(feature = "metrics"))]
pub(crate) fn serve_metrics(config: &Config) -> Result<(), Error> {
    let Some(address) = config.http_listen else { return Ok(()) };
    let text = format!("http_listen: {address}: built without the feature `metrics`");
    Err(Error::new(longshore_protocol::ErrorKind::BadConfig, text))
}
