//! Makes TLS connections: whom they trust, which certificate they present, what went wrong.
//!
//! All of them use rustls with one crypto provider (ring). They trust the authority in the file
//! `tls_ca` alone or, without it, the root certificates of the operating system (`SSL_CERT_FILE`
//! and `SSL_CERT_DIR` name others).
//!
//! The clients of S3 and HTTP do their handshakes themselves, so their callers only need
//! [`install_crypto_provider`]. The connection to RabbitMQ is made by [`connect`]; the client of
//! Redis gets the contents of the files ([`TlsFiles::ca`], [`TlsFiles::identity`]).
//!
//! Deliberately absent: a way to skip the verification of the server.

mod files;
mod problem;
mod server;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

pub use files::{FileError, Identity, TlsFiles};
pub use problem::CertificateProblem;
pub use server::{Acceptor, ServerFiles, ServerStream};

/// How long a server gets to complain about the certificate of a client.
const ALERT_WITHIN: Duration = Duration::from_millis(300);

/// Makes ring the crypto provider of this process, unless the process has one already.
///
/// Call this before a client library opens its first TLS connection. Calling it again costs one
/// atomic load. A program that embeds Longshore and prefers another provider installs that one
/// first; without a provider, rustls panics where a program is linked with two of them.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // The only error is that another thread was faster; its provider is as good.
        let _lost_race = ring::default_provider().install_default();
    }
}

/// Performs the client's side of a TLS handshake on a connected `stream`.
///
/// The certificate of the server must be valid for `host`, which is a DNS name or an IP address
/// (IPv6 with or without brackets), and lead to the authority of `files` or, without one, to a root
/// certificate of the system. Files and root certificates are read on each call, so a reconnect
/// sees certificates that changed meanwhile.
///
/// # Errors
///
/// `InvalidInput` if `host` is neither a name nor an address, or a file can't be used; otherwise
/// what the handshake or the stream failed with. [`CertificateProblem::find`] tells problems with
/// certificates from other failures.
pub async fn connect<S>(host: &str, stream: S, files: &TlsFiles) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    install_crypto_provider();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let server = ServerName::try_from(address.unwrap_or(host).to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let config = files.client_config()?;
    TlsConnector::from(Arc::new(config)).connect(server, stream).await
}

/// Connects to a server for the sole purpose of learning which certificate keeps a connection from
/// being used; `None` if none does, or the server can't be reached.
///
/// With TLS 1.3 a server judges the certificate of a client after the client has seen the end of
/// the handshake. A client that has written meanwhile may find the connection reset before it reads
/// the reason. So this writes nothing, and listens for a moment.
pub async fn examine(host: &str, port: u16, files: &TlsFiles) -> Option<CertificateProblem> {
    let stream = TcpStream::connect((host, port)).await.ok()?;
    let failed = match connect(host, stream, files).await {
        Err(error) => error,
        Ok(mut stream) => {
            let listening = tokio::time::timeout(ALERT_WITHIN, stream.read_u8());
            listening.await.ok()?.err()?
        }
    };
    CertificateProblem::find(&failed)
}
