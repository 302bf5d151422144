//! Serves connections over HTTP/1.1, with TLS or without, within limits.
//!
//! Bounded are connections, the time of a TLS handshake, the size and number of headers, the time
//! until a request has arrived, and the time for which a client reads nothing.
//!
//! Deliberately absent: HTTP/2, which a reverse proxy in front of the server can speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use longshore_tls::{Acceptor, ServerStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

/// What a server grants its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most connections at once; others wait to be accepted. A connection that waits for events
    /// takes some kilobytes.
    pub connections: usize,
    /// The longest time for a TLS handshake.
    pub handshake_within: Duration,
    /// The longest time for the headers of a request, and between two requests of a connection.
    pub headers_within: Duration,
    /// The longest time for a body that is read as a whole, and for each part of a batch.
    pub body_within: Duration,
    /// The longest time for which a client may leave an answer unread.
    pub reads_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            handshake_within: Duration::from_secs(10),
            headers_within: Duration::from_secs(15),
            body_within: Duration::from_secs(30),
            reads_within: Duration::from_secs(30),
        }
    }
}

/// The most bytes of the headers of a request.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 100;

/// The time that requests get to end after the server was stopped.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The wait after a failed accept, which usually means that no file descriptors are left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The address of the client of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    while let Some((stream, peer, slot)) = accept(&listener, &slots, &stop).await {
        let (router, limits, stop) = (router.clone(), limits.clone(), stop.clone());
        let tls = tls.clone();
        connections.spawn(async move {
            // Small answers should leave at once; a socket that refuses the option works too.
            let _ = stream.set_nodelay(true);
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(limits.reads_within));
            match tls {
                None => converse(stream, peer, router, &limits, stop).await,
                Some(tls) => {
                    let secured = secure(&tls, stream, peer, &limits, &stop).await;
                    if let Some(stream) = secured {
                        converse(stream, peer, router, &limits, stop).await;
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(ENDS_WITHIN, connections.wait()).await.is_err() {
        debug!(open = connections.len(), "connections are closed while requests run");
    }
}

/// The next connection and its slot; `None` once the server is stopped.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    loop {
        let accepted = async {
            let slot = Arc::clone(slots).acquire_owned().await.ok()?;
            Some((listener.accept().await, slot))
        };
        let (accepted, slot) = tokio::select! {
            () = stop.cancelled() => return None,
            accepted = accepted => accepted?,
        };
        match accepted {
            Ok((stream, peer)) => return Some((stream, peer, slot)),
            Err(error) => {
                warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Performs the TLS handshake; `None` if the client is too slow, or the two don't agree.
async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Acceptor,
    stream: S,
    peer: SocketAddr,
    limits: &Limits,
    stop: &CancellationToken,
) -> Option<ServerStream<S>> {
    tokio::select! {
        () = stop.cancelled() => None,
        secured = tokio::time::timeout(limits.handshake_within, tls.accept(stream)) => {
            match secured {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => debug!(%peer, "a TLS handshake took too long"),
            }
            None
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: &Limits,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers_within)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "a connection ended early");
    }
}
