//! Parses RabbitMQ's URL, sets default heartbeat and frame size, explains failed connections.
//!
//! The address is shown as host and port, without the password.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};
use longshore_protocol::ErrorKind;
use tokio::time::timeout;
use url::Url;

use crate::Error;

use super::Config;
use super::failure::{ACCESS_REFUSED, Failure, NOT_ALLOWED};

/// Seconds between heartbeats unless the URL says otherwise. RabbitMQ recommends 5 to 20. With
/// RabbitMQ's own default of 60, a cut cable would go unnoticed for two minutes.
const HEARTBEAT: u16 = 10;

/// Longest frame, bytes, unless the URL says otherwise. lapin allocates 64 times as much for each
/// connection. Chunk messages are small, and long documents are sent in several frames.
const FRAME_MAX: u32 = 16 << 10;

/// A parsed URL.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| {
            Error::BadUrl(format!(
                "{reason}; expected amqp://user:password@host:5672/vhost, or amqps://…"
            ))
        };
        let url = Url::parse(text).map_err(|e| bad(e.to_string()))?;
        // Without a host, the parser below assumes localhost.
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| bad("no host".to_owned()))?.to_owned();
        let mut uri: AMQPUri = text.parse().map_err(bad)?;
        uri.authority.host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.vhost.is_empty() {
            // A slash at the end of a URL rarely means the virtual host with the empty name.
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        Ok(Self { uri })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    pub(crate) fn host_and_port(&self) -> (String, u16) {
        (self.uri.authority.host.clone(), self.uri.authority.port)
    }

    /// The failure to open a connection; with TLS, the problem with a certificate that is behind
    /// it, if there is one. It is looked for on a connection of its own, because RabbitMQ may reset
    /// a connection before the reason was read.
    pub(crate) async fn examined(&self, failure: Failure, config: &Config) -> Failure {
        if !self.is_tls() || !matches!(failure, Failure::Broken { .. }) {
            return failure;
        }
        let (host, port) = self.host_and_port();
        let examining = longshore_tls::examine(&host, port, &config.tls);
        match timeout(config.timeouts.connect, examining).await {
            Ok(Some(problem)) => Failure::Broken {
                kind: ErrorKind::BadCertificate,
                text: problem.describe(&self.to_string()),
            },
            _ => failure,
        }
    }

    pub(crate) fn unavailable(&self, failure: &Failure) -> Error {
        let (kind, reason) = (failure.kind(), self.explain(failure));
        Error::Unavailable { kind, address: self.to_string(), reason }
    }

    /// Explains to an operator why there is no connection.
    pub(crate) fn explain(&self, failure: &Failure) -> String {
        let user = &self.uri.authority.userinfo.username;
        let vhost = &self.uri.vhost;
        match failure {
            Failure::Expelled { code: ACCESS_REFUSED, text } => {
                format!("login refused for user `{user}`: {text}")
            }
            Failure::Expelled { code: NOT_ALLOWED, text } => {
                format!("virtual host `{vhost}` refused for user `{user}`: {text}")
            }
            _ => failure.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        if authority.host.contains(':') {
            return write!(f, "[{}]:{}", authority.host, authority.port);
        }
        write!(f, "{}:{}", authority.host, authority.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, &str), &str>) {
        let parsed = Address::parse(url);
        match (parsed, expected) {
            (Ok(address), Ok((shown, vhost))) => {
                assert_eq!(address.to_string(), shown, "{url}");
                assert_eq!(address.uri.vhost, vhost, "{url}");
            }
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part), "{url}: {text}");
                assert!(!text.contains("secret"), "{url}: {text} shows the password");
            }
            (found, _) => panic!("{url}: {:?}", found.map(|address| address.to_string())),
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        check("amqp://user:secret@rabbit:5673/%2f", Ok(("rabbit:5673", "/")));
        check("amqps://rabbit", Ok(("rabbit:5671", "/")));
        check("amqp://rabbit/", Ok(("rabbit:5672", "/")));
        check("amqp://rabbit/harbour", Ok(("rabbit:5672", "harbour")));
        check("amqp://10.0.0.7", Ok(("10.0.0.7:5672", "/")));
        check("amqp://[::1]:5672", Ok(("[::1]:5672", "/")));
        check("redis://user:secret@rabbit", Err("Invalid AMQP scheme: redis"));
        check("user:secret@rabbit", Err("amqp_url"));
        check("rabbit", Err("relative URL without a base"));
        check("amqp://", Err("no host"));
        check("amqp://rabbit?heartbeat=often", Err("invalid digit"));
    }

    #[test]
    fn heartbeats_are_frequent_unless_the_url_says_otherwise() {
        let heartbeat = |url| Address::parse(url).map(|address| address.uri.query.heartbeat).ok();
        assert_eq!(heartbeat("amqp://rabbit"), Some(Some(HEARTBEAT)));
        assert_eq!(heartbeat("amqp://rabbit?heartbeat=30"), Some(Some(30)));
    }
}
