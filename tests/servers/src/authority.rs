//! Makes certificates for tests: an authority, and what it signs, as files in a folder of its own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;

/// An authority, whose certificate and those that it signs are files (PEM).
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a certificate and its key (PEM).
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Overwrites the files with those of another certificate, the certificate first.
    ///
    /// # Panics
    /// When a file can't be written.
    #[track_caller]
    pub fn replace_by(&self, other: &Self) {
        copy(&other.cert, &self.cert);
        copy(&other.key, &self.key);
    }
}

/// Copies a file over another one, or to a new one.
#[track_caller]
fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

/// How a server speaks TLS: it demands certificates of its clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The authority of the clients' certificates.
    pub ca: PathBuf,
    /// The certificate of the server.
    pub own: CertificateFiles,
}

impl Authority {
    /// A new authority with this name.
    ///
    /// # Panics
    /// When its files can't be written.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-certificates-").tempdir();
        let folder = folder.unwrap_or_else(|e| panic!("a folder for certificates: {e}"));
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let own = params.self_signed(&key).unwrap_or_else(|e| panic!("{name}: {e}"));
        write(&folder.path().join("ca.pem"), &own.pem());
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The file of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for hosts (names and addresses); those of clients need none. `name` is its
    /// subject and the name of its files.
    ///
    /// # Panics
    /// When its files can't be written.
    #[track_caller]
    pub fn issue(&self, name: &str, hosts: &[&str]) -> CertificateFiles {
        self.sign(name, &params(name, hosts))
    }

    /// A certificate that has expired.
    ///
    /// # Panics
    /// When its files can't be written.
    #[track_caller]
    pub fn issue_expired(&self, name: &str, hosts: &[&str]) -> CertificateFiles {
        let mut params = params(name, hosts);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(name, &params)
    }

    /// How a server on this machine speaks TLS with clients of this authority.
    ///
    /// # Panics
    /// When its files can't be written.
    #[track_caller]
    pub fn server(&self) -> ServerTls {
        ServerTls { ca: self.ca(), own: self.issue("server", &["localhost", "127.0.0.1"]) }
    }

    #[track_caller]
    fn sign(&self, name: &str, params: &CertificateParams) -> CertificateFiles {
        let key = key();
        let signed = params.signed_by(&key, &self.issuer);
        let file = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let files = CertificateFiles { cert: file("pem"), key: file("key") };
        write(&files.cert, &signed.unwrap_or_else(|e| panic!("{name}: {e}")).pem());
        write(&files.key, &key.serialize_pem());
        files
    }
}

#[track_caller]
fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap_or_else(|e| panic!("{name}: {e}"));
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2019, 1, 1);
    params
}

#[track_caller]
fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(|e| panic!("a key: {e}"))
}

#[track_caller]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
