//! Chooses the crypto provider of all TLS connections, and makes the one to RabbitMQ.
//!
//! All of them use rustls with one crypto provider (ring) and trust the root certificates of the
//! operating system. `SSL_CERT_FILE` and `SSL_CERT_DIR` name other root certificates.
//!
//! The clients of Redis, S3 and HTTP do their handshakes themselves, so their callers only need
//! [`install_crypto_provider`]. The connection to RabbitMQ is made by [`connect`].
//!
//! Deliberately absent: client certificates and a way to skip the verification of the server.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

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
/// (IPv6 with or without brackets), and lead to a root certificate of the system. The root
/// certificates are read on each call, so a reconnect sees certificates that changed meanwhile.
///
/// # Errors
///
/// `InvalidInput` if `host` is neither a name nor an address; otherwise what the handshake or the
/// stream failed with.
pub async fn connect<S>(host: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    install_crypto_provider();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let server = ServerName::try_from(address.unwrap_or(host).to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let config = ClientConfig::builder()
        .with_platform_verifier()
        .map_err(io::Error::other)?
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(server, stream).await
}
