//! Names what is wrong with a certificate, and what to set or renew.
//!
//! The problem is told by the types of the errors. Deliberately absent: problems of the network.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::FileError;

/// What is wrong with the certificate of a server, or with ours.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// No authority that is trusted has signed the certificate of the server.
    UnknownAuthority,
    /// The certificate of the server has expired.
    Expired,
    /// The certificate of the server is not valid yet.
    NotYetValid,
    /// The certificate of the server is for these names, and not for the one that was asked for.
    WrongName(Vec<String>),
    /// The certificate of the server can't be used for another reason.
    Unusable(String),
    /// The server demands a certificate, and none was presented.
    Demanded,
    /// The server refused the handshake without a reason. With TLS 1.2 that is what servers do that
    /// demand a certificate.
    HandshakeRefused,
    /// The server refused the certificate that was presented, with this alert.
    Refused(String),
    /// A file of ours can't be used.
    File(FileError),
}

impl CertificateProblem {
    /// Looks for a problem with a certificate in an error and in the errors that caused it.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Self::of(error);
        }
        if let Some(error) = error.downcast_ref::<FileError>() {
            return Some(Self::File(error.clone()));
        }
        // The source of an I/O error is that of the error inside, which would be passed over.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inside {
            Some(inside) => Self::find(inside),
            None => Self::find(error.source()?),
        }
    }

    fn of(error: &rustls::Error) -> Option<Self> {
        use AlertDescription as Alert;
        use CertificateError as Certificate;
        Some(match error {
            rustls::Error::InvalidCertificate(error) => match error {
                // Another authority of the same name signed it: the old one and its successor.
                Certificate::UnknownIssuer | Certificate::BadSignature => Self::UnknownAuthority,
                Certificate::Expired | Certificate::ExpiredContext { .. } => Self::Expired,
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                Certificate::NotValidForName => Self::WrongName(Vec::new()),
                Certificate::NotValidForNameContext { presented, .. } => {
                    Self::WrongName(presented.iter().map(|name| bare(name).to_owned()).collect())
                }
                other => Self::Unusable(other.to_string()),
            },
            rustls::Error::AlertReceived(Alert::CertificateRequired) => Self::Demanded,
            rustls::Error::AlertReceived(Alert::HandshakeFailure) => Self::HandshakeRefused,
            rustls::Error::AlertReceived(
                alert @ (Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError),
            ) => Self::Refused(format!("{alert:?}")),
            _ => return None,
        })
    }

    /// The problem with `server` (a host and a port), and what to do about it.
    pub fn describe(&self, server: &str) -> String {
        match self {
            Self::UnknownAuthority => format!(
                "the certificate of {server} was not signed by a trusted authority; set tls_ca to \
                 the authority's certificate"
            ),
            Self::Expired => format!("the certificate of {server} has expired; renew it there"),
            Self::NotYetValid => format!(
                "the certificate of {server} is not valid yet; see whether this machine's clock is \
                 right"
            ),
            Self::WrongName(names) if names.is_empty() => format!(
                "the certificate of {server} is for another name; use a name of the certificate in \
                 the URL"
            ),
            Self::WrongName(names) => format!(
                "the certificate of {server} is for other names ({}); use one of them in the URL",
                names.join(", ")
            ),
            Self::Unusable(reason) => {
                format!("the certificate of {server} can't be used: {reason}; replace it there")
            }
            Self::Demanded => {
                format!("{server} demands a client certificate; set tls_cert and tls_key")
            }
            Self::HandshakeRefused => format!(
                "{server} refused the TLS handshake and gave no reason, as servers do that demand \
                 a client certificate; set tls_cert and tls_key"
            ),
            Self::Refused(alert) => format!(
                "{server} refused the client certificate in tls_cert ({alert}); use one that the \
                 server trusts"
            ),
            Self::File(error) => error.to_string(),
        }
    }
}

/// A name without its type: rustls gives `DnsName("redis.example")` and `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_found_behind_other_errors() {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown()));
        assert_eq!(
            CertificateProblem::find(&unknown()),
            Some(CertificateProblem::UnknownAuthority)
        );
        assert_eq!(CertificateProblem::find(&nested), Some(CertificateProblem::UnknownAuthority));
        let file = FileError { setting: "tls_ca", reason: "/ca.pem: no such file".into() };
        let found = CertificateProblem::find(&io::Error::from(file.clone()));
        assert_eq!(found, Some(CertificateProblem::File(file)));
    }

    #[test]
    fn names_are_shown_without_their_types() {
        for (name, shown) in [
            ("DnsName(\"*.redis.example\")", "*.redis.example"),
            ("IpAddress(192.0.2.1)", "192.0.2.1"),
            ("redis.example", "redis.example"),
        ] {
            assert_eq!(bare(name), shown);
        }
    }

    #[test]
    fn failures_that_concern_no_certificate_are_left_alone() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(CertificateProblem::find(&refused), None);
        let alert = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
        assert_eq!(CertificateProblem::find(&io::Error::other(alert)), None);
    }
}
