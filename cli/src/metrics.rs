//! Records the metrics of this process, and serves those of a worker over HTTP.
//!
//! `GET /metrics` answers in the text format of Prometheus, `GET /healthz` checks that the process
//! answers. Other requests are refused.
//!
//! Each connection serves one request; length, duration and number of connections are bounded.
//!
//! Deliberately absent: everything else of HTTP.

use std::sync::Arc;
use std::time::Duration;

use longshore_tls::Acceptor;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use crate::failure::Failure;
use crate::http::acceptor;
use crate::settings::Settings;

/// The longest head of a request, in bytes. Those of scrapers have some hundred bytes.
const LONGEST_HEAD: usize = 8 << 10;
/// The longest duration of a request.
const IN_TIME: Duration = Duration::from_secs(10);
/// The most connections at once; others wait.
const CLIENTS: usize = 64;
/// The interval at which samples are aggregated, also without requests.
const UPKEEP: Duration = Duration::from_secs(5);
/// The wait after a failed accept, which usually means that no file descriptors are left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A response: status, further header, content type, body.
type Answer = (&'static str, &'static str, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";

/// Starts to record the metrics of this process, which `describe` registers. Must be called within
/// a tokio runtime.
pub(crate) fn record(describe: impl FnOnce()) -> Result<PrometheusHandle, Failure> {
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::other(format_args!("http_listen: {error}")))?;
    describe();
    tokio::spawn(keep_up(metrics.clone()));
    Ok(metrics)
}

/// Starts to serve at `http_listen`, if it is set, with TLS if that has a certificate; `describe`
/// registers the metrics. Must be called within a tokio runtime.
pub(crate) fn serve(settings: &Settings, describe: fn()) -> Result<(), Failure> {
    let Some(address) = settings.http_listen else { return Ok(()) };
    let tls = acceptor(settings)?;
    let wrong =
        |error| Failure::usage(format!("http_listen: {address} can't be listened on: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    let listener = TcpListener::from_std(listener).map_err(wrong)?;
    let metrics = record(describe)?;
    info!(%address, tls = tls.is_some(), "serving metrics");
    tokio::spawn(accept(listener, tls, metrics));
    Ok(())
}

async fn keep_up(metrics: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Acceptor>>, metrics: PrometheusHandle) {
    let connections = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tls, metrics) = (tls.clone(), metrics.clone());
                tokio::spawn(async move {
                    let conversing = async {
                        match tls {
                            Some(tls) => converse(tls.accept(stream).await?, &metrics).await,
                            None => converse(stream, &metrics).await,
                        }
                    };
                    // A client that is slow or gone gets no answer.
                    let _ = timeout(IN_TIME, conversing).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "can't accept a connection for metrics");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    metrics: &PrometheusHandle,
) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1_024);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let (status, header, kind, body) = answer(&head, || metrics.render());
    let length = body.len();
    let is_head = head.starts_with("HEAD ");
    let mut text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{header}connection: close\r\n\r\n"
    );
    if !is_head {
        text.push_str(&body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The response to a request.
fn answer(head: &str, metrics: impl FnOnce() -> String) -> Answer {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    if !is_http || !head.contains("\r\n\r\n") {
        return ("400 Bad Request", "", TEXT, "not an HTTP request\n".to_owned());
    }
    let path = target.split('?').next().unwrap_or_default();
    if !matches!(path, "/metrics" | "/healthz") {
        return ("404 Not Found", "", TEXT, "use /metrics or /healthz\n".to_owned());
    }
    if !matches!(method, "GET" | "HEAD") {
        let allow = "allow: GET, HEAD\r\n";
        return ("405 Method Not Allowed", allow, TEXT, "use GET\n".to_owned());
    }
    if path == "/healthz" {
        return ("200 OK", "", TEXT, "ok\n".to_owned());
    }
    ("200 OK", "", "text/plain; version=0.0.4; charset=utf-8", metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, status: &str) {
        let head = format!("{request}\r\nHost: localhost\r\n\r\n");
        assert_eq!(answer(&head, || "metrics".to_owned()).0, status, "{request}");
    }

    #[test]
    fn only_what_is_served_is_answered_with_200() {
        check("GET /metrics HTTP/1.1", "200 OK");
        check("GET /metrics HTTP/1.0", "200 OK");
        check("GET /metrics?name=x HTTP/1.1", "200 OK");
        check("HEAD /metrics HTTP/1.1", "200 OK");
        check("GET /healthz HTTP/1.1", "200 OK");
        check("GET / HTTP/1.1", "404 Not Found");
        check("GET /metricsx HTTP/1.1", "404 Not Found");
        check("POST /nowhere HTTP/1.1", "404 Not Found");
        check("POST /metrics HTTP/1.1", "405 Method Not Allowed");
        check("DELETE /healthz HTTP/1.1", "405 Method Not Allowed");
        check("GET /metrics", "400 Bad Request");
        check("nonsense", "400 Bad Request");
        assert_eq!(answer("GET /metrics HTTP/1.1\r\n", String::new).0, "400 Bad Request");
    }
}
