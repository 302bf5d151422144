//! How a server is reached: its URL, and the token that is presented.

use std::net::IpAddr;

use longshore_protocol::ApiSecret;
use longshore_tls::TlsFiles;
use reqwest::header::HeaderValue;
use url::{Host, Url};

use super::ServerError;

/// How to reach a server of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The URL, such as `https://jobs.example.org` or, behind a proxy, with a path.
    pub url: String,
    /// The API token; none is needed on this machine in a fleet without tokens.
    pub token: Option<ApiSecret>,
    /// Whom to trust and which certificate to present, with `https://`. The files are read once.
    pub tls: TlsFiles,
}

impl ServerSettings {
    /// A server at this URL, called without a token.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, tls: TlsFiles::default() }
    }

    /// Presents this token.
    #[must_use]
    pub fn token(self, token: Option<ApiSecret>) -> Self {
        Self { token, ..self }
    }

    /// Uses these files with TLS.
    #[must_use]
    pub fn tls(self, tls: TlsFiles) -> Self {
        Self { tls, ..self }
    }

    /// The URL, and the value of the header that identifies the client.
    pub(super) fn checked(&self) -> Result<(Url, Option<HeaderValue>), ServerError> {
        let url = parse(&self.url).map_err(ServerError::bad_settings)?;
        let Some(token) = &self.token else { return Ok((url, None)) };
        if url.scheme() == "http" && !is_loopback(&url) {
            let host = url.host_str().unwrap_or_default();
            return Err(ServerError::bad_settings(format_args!(
                "server: an API token is not sent to {host} over http://, where others can read \
                 it; use https://, or a tunnel to a port of this machine"
            )));
        }
        let value = HeaderValue::from_str(&format!("Bearer {}", token.as_str()));
        let mut value = value.expect("a secret is ASCII");
        value.set_sensitive(true);
        Ok((url, Some(value)))
    }
}

/// Checks the URL of a server.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check_server_url(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

fn parse(text: &str) -> Result<Url, String> {
    const ALLOWED: &str = "use http://HOST:PORT or https://HOST, with a path if the API has one";
    // Without the text: what is no URL may be a secret in the wrong place.
    let url =
        Url::parse(text).map_err(|error| format!("server: not a URL ({error}); {ALLOWED}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("server: a URL that begins with `{}:`; {ALLOWED}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "server: a URL with a user or a password; leave them out, and give the API token as \
             LONGSHORE_TOKEN or token_file"
                .to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("server: a URL with `?` or `#`; {ALLOWED}"));
    }
    Ok(url)
}

/// Whether the URL names this machine's loopback.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        let token = Some(ApiSecret::from_bytes([7; 32]));
        let check = |url: &str| ServerSettings::new(url).token(token.clone()).checked();
        for good in
            ["https://example.org", "http://127.0.0.1:7700", "http://[::1]", "http://LocalHost"]
        {
            let (_, value) = check(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert!(value.is_some_and(|value| value.is_sensitive()), "{good}");
        }
        for bad in ["http://example.org", "http://10.0.0.1", "http://localhost.example.org"] {
            let error = check(bad).expect_err(bad).to_string();
            assert!(error.contains("over http://") && !error.contains("longshore_07"), "{error}");
            assert!(ServerSettings::new(bad).checked().is_ok(), "{bad}: without a token");
        }
        let settings = ServerSettings::new("https://h").token(token);
        assert!(!format!("{settings:?}").contains("0707"), "{settings:?}");
    }

    #[test]
    fn mistakes_in_a_url_are_named() {
        for (url, says) in [
            ("", "not a URL"),
            ("example.org", "not a URL"),
            ("ftp://example.org", "begins with `ftp:`"),
            ("http://u:p@example.org", "a user or a password"),
            ("http://example.org/?a=b", "`?` or `#`"),
        ] {
            let error = check_server_url(url).expect_err(url);
            assert!(error.starts_with("server: ") && error.contains(says), "{error}");
        }
    }
}
