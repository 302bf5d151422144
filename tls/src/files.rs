//! Reads `tls_ca`, `tls_cert` and `tls_key`, and says which of them can't be used and why.
//!
//! Deliberately absent: keys with a password, which would have to be in a file as well.

use std::io;
use std::path::{Path, PathBuf};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, InconsistentKeys, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// The files of the settings `tls_ca`, `tls_cert` and `tls_key`, in PEM, all of them optional.
///
/// They are read for each new connection, so that a renewed certificate is used by the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that may sign for servers, in place of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that is presented to servers, followed by those between it and its
    /// authority. Only together with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, without a password.
    pub key: Option<PathBuf>,
}

/// The certificate of a client and its key, as they are in their files (PEM).
#[derive(Clone)]
pub struct Identity {
    /// The certificate and those between it and its authority.
    pub cert: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

/// Why a file with a certificate or a key can't be used. Shows no part of its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The name of the setting.
    pub setting: &'static str,
    /// The path, and what is wrong with the file.
    pub reason: String,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.setting, self.reason)
    }
}

impl std::error::Error for FileError {}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

impl TlsFiles {
    /// Whether no file is named: servers are judged by the system's root certificates, and no
    /// certificate is presented to them.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that each file can be read and used, and that the key belongs to the certificate.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn check(&self) -> Result<(), FileError> {
        crate::install_crypto_provider();
        let roots = self.roots()?.unwrap_or_else(RootCertStore::empty);
        self.presenting(ClientConfig::builder().with_root_certificates(roots))?;
        Ok(())
    }

    /// The contents of `tls_ca`.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn ca(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.ca.as_deref().map(|path| read("tls_ca", path)).transpose()
    }

    /// The contents of `tls_cert` and `tls_key`.
    ///
    /// # Errors
    /// If one of them can't be read, or is named without the other.
    pub fn identity(&self) -> Result<Option<Identity>, FileError> {
        let alone = |setting, missing| {
            let reason = format!("is set without {missing}; set both or neither");
            Err(FileError { setting, reason })
        };
        match (self.cert.as_deref(), self.key.as_deref()) {
            (None, None) => Ok(None),
            (Some(_), None) => alone("tls_cert", "tls_key"),
            (None, Some(_)) => alone("tls_key", "tls_cert"),
            (Some(cert), Some(key)) => {
                Ok(Some(Identity { cert: read("tls_cert", cert)?, key: read("tls_key", key)? }))
            }
        }
    }

    /// The configuration of a client that uses the files as they are now.
    ///
    /// # Errors
    /// `InvalidInput` with a [`FileError`] if a file can't be used; others if the system's root
    /// certificates can't.
    pub fn client_config(&self) -> io::Result<ClientConfig> {
        crate::install_crypto_provider();
        let config = ClientConfig::builder();
        let config = match self.roots()? {
            Some(roots) => config.with_root_certificates(roots),
            None => config.with_platform_verifier().map_err(io::Error::other)?,
        };
        Ok(self.presenting(config)?)
    }

    /// Completes a configuration by the certificate to present.
    fn presenting(
        &self,
        config: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, FileError> {
        let (Some(identity), Some(cert), Some(key)) = (self.identity()?, &self.cert, &self.key)
        else {
            return Ok(config.with_no_client_auth());
        };
        let (cert, key) = (("tls_cert", cert.as_path()), ("tls_key", key.as_path()));
        let chain = certificates(cert.0, cert.1, &identity.cert)?;
        let secret = private_key(key.0, key.1, &identity.key)?;
        config.with_client_auth_cert(chain, secret).map_err(|error| misfit(&error, cert, key))
    }

    fn roots(&self) -> Result<Option<RootCertStore>, FileError> {
        let Some((path, pem)) = self.ca.as_deref().zip(self.ca()?) else { return Ok(None) };
        roots("tls_ca", path, &pem).map(Some)
    }
}

/// The contents of a file.
pub(crate) fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong(setting, path, "no such file"),
        io::ErrorKind::PermissionDenied => wrong(setting, path, "permission denied"),
        io::ErrorKind::IsADirectory => wrong(setting, path, "is a directory; name a file"),
        _ => wrong(setting, path, &error.to_string()),
    })
}

/// The authorities in a file.
pub(crate) fn roots(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path, pem)? {
        roots.add(certificate).map_err(|error| wrong(setting, path, &error.to_string()))?;
    }
    Ok(roots)
}

/// The private key in a file.
pub(crate) fn private_key(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let reason = "holds no private key in PEM; use one that begins with \
                      -----BEGIN PRIVATE KEY----- and has no password";
        wrong(setting, path, reason)
    })
}

/// Why a certificate and a key, of each of which the setting and the path are given, can't be used
/// together.
pub(crate) fn misfit(
    error: &rustls::Error,
    cert: (&'static str, &Path),
    key: (&'static str, &Path),
) -> FileError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let reason = format!("does not belong to the certificate in {}", cert.0);
            wrong(key.0, key.1, &reason)
        }
        rustls::Error::InvalidCertificate(_) => wrong(cert.0, cert.1, &error.to_string()),
        _ => wrong(key.0, key.1, &error.to_string()),
    }
}

/// The certificates in a file.
pub(crate) fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        let reason = "holds no certificate in PEM; use one that begins with \
                      -----BEGIN CERTIFICATE-----";
        wrong(setting, path, reason)
    })
}

fn wrong(setting: &'static str, path: &Path, reason: &str) -> FileError {
    FileError { setting, reason: format!("{}: {reason}", path.display()) }
}
