//! Performs the server's side of handshakes, with certificates that are read when they change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::server::TlsStream as ServerStream;
use tracing::{info, warn};

use crate::files::{FileError, certificates, misfit, private_key, read, roots};

/// How often the files are read again, at most.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The files of the settings `http_tls_cert`, `http_tls_key` and `http_tls_client_ca`, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate of the server, followed by those between it and its authority.
    pub cert: PathBuf,
    /// The private key of `cert`, without a password.
    pub key: PathBuf,
    /// The certificates of the authorities one of which must have signed the certificate of each
    /// client; without it clients need none.
    pub client_ca: Option<PathBuf>,
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

const CERT: &str = "http_tls_cert";
const KEY: &str = "http_tls_key";
const CLIENT_CA: &str = "http_tls_client_ca";

impl ServerFiles {
    fn read(&self) -> Result<Contents, FileError> {
        let client_ca = self.client_ca.as_deref().map(|path| read(CLIENT_CA, path));
        Ok(Contents {
            cert: read(CERT, &self.cert)?,
            key: read(KEY, &self.key)?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn config(&self, contents: &Contents) -> Result<Arc<ServerConfig>, FileError> {
        let config = ServerConfig::builder();
        let config = match self.client_ca.as_deref().zip(contents.client_ca.as_deref()) {
            Some((path, pem)) => {
                let authorities = Arc::new(roots(CLIENT_CA, path, pem)?);
                let verifier = WebPkiClientVerifier::builder(authorities).build();
                let verifier = verifier.map_err(|error| {
                    let reason = format!("{}: {error}", path.display());
                    FileError { setting: CLIENT_CA, reason }
                })?;
                config.with_client_cert_verifier(verifier)
            }
            None => config.with_no_client_auth(),
        };
        let (cert, key) = ((CERT, self.cert.as_path()), (KEY, self.key.as_path()));
        let chain = certificates(CERT, cert.1, &contents.cert)?;
        let secret = private_key(KEY, key.1, &contents.key)?;
        let config = config.with_single_cert(chain, secret);
        let mut config = config.map_err(|error| misfit(&error, cert, key))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Performs the server's side of handshakes.
pub struct Acceptor {
    files: ServerFiles,
    current: Mutex<Current>,
}

struct Current {
    /// What was read last, also if it can't be used.
    seen: Result<Contents, FileError>,
    read_at: Instant,
    /// Made from the last contents that can be used.
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn new(files: ServerFiles) -> Result<Self, FileError> {
        crate::install_crypto_provider();
        let contents = files.read()?;
        let config = files.config(&contents)?;
        let current = Current { seen: Ok(contents), read_at: Instant::now(), config };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// Performs the handshake on a connected stream, for as long as the client takes.
    ///
    /// # Errors
    /// What the handshake or the stream failed with.
    pub async fn accept<S>(&self, stream: S) -> io::Result<ServerStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config();
        TlsAcceptor::from(config).accept(stream).await
    }

    /// The configuration for a new connection. Files that changed and can't be used, because they
    /// are replaced one after the other, leave the last one in force.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        if current.read_at.elapsed() < READ_EVERY {
            return Arc::clone(&current.config);
        }
        current.read_at = Instant::now();
        let found = self.files.read();
        if found != current.seen {
            match found.as_ref().map_err(Clone::clone).and_then(|found| self.files.config(found)) {
                Ok(config) => {
                    info!(cert = %self.files.cert.display(), "certificate of the server changed");
                    current.config = config;
                }
                Err(error) => {
                    warn!(%error, "a changed certificate can't be used; the last one stays");
                }
            }
            current.seen = found;
        }
        Arc::clone(&current.config)
    }
}
