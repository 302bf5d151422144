//! Writes log lines to standard error, as text or as JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line of text.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

/// It logs each certificate that it refuses as an error of its own, without saying which server's.
/// What made the connection says that, once.
const WITHOUT_VERIFIER: &str = "rustls_platform_verifier=off";

/// Starts logging with the filter of RUST_LOG, or with `default`.
pub(crate) fn start(default: &str, format: Format) {
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::new(wanted),
        _ => EnvFilter::new(format!("{default},{WITHOUT_VERIFIER}")),
    };
    let has_colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours);
    match format {
        Format::Text => lines.init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
}
