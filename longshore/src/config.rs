//! The addresses and the namespace of clients and workers, given or read from the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use longshore_broker::rabbit;
use longshore_ledger::redis;
use longshore_protocol::{ApiSecret, ErrorKind};
use longshore_tls::TlsFiles;

use crate::Error;

/// The addresses of the services, and what else a client or worker needs to know of its
/// surroundings.
///
/// ```
/// let config = longshore::Config::new()
///     .amqp_url("amqp://app:secret@rabbit:5672/%2f")
///     .redis_url("redis://redis:6379")
///     .namespace("thumbnails");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub(crate) amqp_url: String,
    pub(crate) redis_url: String,
    pub(crate) tls: TlsFiles,
    pub(crate) namespace: String,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) server: Option<String>,
    pub(crate) token: Option<ApiSecret>,
}

impl Config {
    /// RabbitMQ and Redis at their usual ports of this machine, and the namespace `longshore`.
    pub fn new() -> Self {
        Self {
            amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            redis_url: "redis://127.0.0.1:6379".into(),
            tls: TlsFiles::default(),
            namespace: "longshore".into(),
            http_listen: None,
            server: None,
            token: None,
        }
    }

    /// Reads `LONGSHORE_AMQP_URL`, `LONGSHORE_REDIS_URL`, `LONGSHORE_TLS_CA`, `LONGSHORE_TLS_CERT`,
    /// `LONGSHORE_TLS_KEY`, `LONGSHORE_NAMESPACE`, `LONGSHORE_HTTP_LISTEN`, `LONGSHORE_SERVER` and
    /// `LONGSHORE_TOKEN`. A variable that is empty or not set leaves the default of [`Self::new`].
    /// In place of the URLs and the token themselves, `LONGSHORE_AMQP_URL_FILE`,
    /// `LONGSHORE_REDIS_URL_FILE` and `LONGSHORE_TOKEN_FILE` name files that hold them.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] for a `LONGSHORE_HTTP_LISTEN` that is not an address and a port, a
    /// file that can't be read, a token that is none, and a URL or token that is given both ways.
    pub fn from_env() -> Result<Self, Error> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut config = Self::new();
        if let Some(url) = url("LONGSHORE_AMQP_URL", variable)? {
            config.amqp_url = url;
        }
        if let Some(url) = url("LONGSHORE_REDIS_URL", variable)? {
            config.redis_url = url;
        }
        let path = |name: &str| variable(name).map(PathBuf::from);
        config.tls = TlsFiles {
            ca: path("LONGSHORE_TLS_CA"),
            cert: path("LONGSHORE_TLS_CERT"),
            key: path("LONGSHORE_TLS_KEY"),
        };
        if let Some(namespace) = variable("LONGSHORE_NAMESPACE") {
            config.namespace = namespace;
        }
        if let Some(address) = variable("LONGSHORE_HTTP_LISTEN") {
            let parsed = address.parse().map_err(|_| {
                let text = format!(
                    "LONGSHORE_HTTP_LISTEN: `{address}`; use an address like 127.0.0.1:9100"
                );
                Error::new(ErrorKind::BadConfig, text)
            });
            config.http_listen = Some(parsed?);
        }
        config.server = variable("LONGSHORE_SERVER");
        if let Some(token) = url("LONGSHORE_TOKEN", variable)? {
            config = config.token(&token)?;
        }
        Ok(config)
    }

    /// The URL of RabbitMQ: `amqp://user:password@host:port/vhost`, or `amqps://…` for TLS. `%2f`
    /// is the virtual host `/`.
    #[must_use]
    pub fn amqp_url(mut self, url: impl Into<String>) -> Self {
        self.amqp_url = url.into();
        self
    }

    /// The URL of Redis: `redis://user:password@host:port`, `rediss://…` for TLS,
    /// `redis+sentinel://h1:p1,h2:p2/master` or `redis+cluster://h1:p1,h2:p2`.
    #[must_use]
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = url.into();
        self
    }

    /// A file with the certificates (PEM) of the authorities that may sign for RabbitMQ and Redis,
    /// in place of the system's root certificates. Read again for each new connection.
    #[must_use]
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca = Some(path.into());
        self
    }

    /// Files with the certificate that is presented to RabbitMQ and Redis, and its private key
    /// (PEM). Read again for each new connection.
    #[must_use]
    pub fn tls_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.cert = Some(cert.into());
        self.tls.key = Some(key.into());
        self
    }

    /// The prefix of all names in both. Clients, schedulers and workers of one namespace belong
    /// together.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The address at which [`Worker::run_from_env`](crate::Worker::run_from_env) serves metrics
    /// for Prometheus. None unless set.
    #[must_use]
    pub fn http_listen(mut self, address: SocketAddr) -> Self {
        self.http_listen = Some(address);
        self
    }

    /// The URL of a server of the HTTP API, such as `https://jobs.example.org`, which
    /// [`Client::connect`](crate::Client::connect) then uses in place of RabbitMQ and Redis.
    /// Workers do not.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.server = Some(url.into());
        self
    }

    /// The API token that is presented to the server: what `longshore token create` printed. It
    /// goes over `https://`, or to this machine.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] for a text of another form.
    pub fn token(mut self, secret: &str) -> Result<Self, Error> {
        let token = ApiSecret::parse(secret.trim()).ok_or_else(|| {
            let text = "token: not an API token; use what `longshore token create` printed";
            Error::new(ErrorKind::BadConfig, text)
        })?;
        self.token = Some(token);
        Ok(self)
    }

    pub(crate) fn rabbit(&self, name: &str) -> rabbit::Config {
        let mut config = rabbit::Config::new(&self.amqp_url, name);
        config.namespace.clone_from(&self.namespace);
        config.tls.clone_from(&self.tls);
        config
    }

    pub(crate) fn redis(&self) -> redis::Config {
        let mut config = redis::Config::new(&self.redis_url, &self.namespace);
        config.tls.clone_from(&self.tls);
        config
    }
}

/// The URL in a variable, or in the file that the variable with `_FILE` names.
fn url(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, Error> {
    let bad = |text: String| Error::new(ErrorKind::BadConfig, text);
    let of_file = format!("{name}_FILE");
    match (variable(name), variable(&of_file)) {
        (Some(_), Some(_)) => {
            Err(bad(format!("{name}: {of_file} is set as well; set one of them")))
        }
        (url, None) => Ok(url),
        (None, Some(file)) => longshore_storage::read_setting(Path::new(&file))
            .map(Some)
            .map_err(|reason| bad(format!("{of_file}: {reason}"))),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Config {
    /// Leaves out the URLs of the services, which may hold passwords, and the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .field("http_listen", &self.http_listen)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_leave_the_defaults_and_bad_ones_are_named() {
        let read = |given: &'static [(&str, &str)]| {
            let given = |name: &str| given.iter().find(|(variable, _)| *variable == name);
            Config::read(|name| given(name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(read(&[("LONGSHORE_AMQP_URL", "")]).expect("fine"), Config::new());
        let config = read(&[("LONGSHORE_NAMESPACE", "shop"), ("LONGSHORE_REDIS_URL", "redis://r")]);
        let expected = Config::new().namespace("shop").redis_url("redis://r");
        assert_eq!(config.expect("fine"), expected);
        let config = read(&[("LONGSHORE_SERVER", "http://127.0.0.1:7700")]).expect("fine");
        assert_eq!(config, Config::new().server("http://127.0.0.1:7700"));
        let error = read(&[("LONGSHORE_HTTP_LISTEN", "9100")]).expect_err("no address");
        assert_eq!(error.kind(), ErrorKind::BadConfig);
        let text = "LONGSHORE_HTTP_LISTEN: `9100`; use an address like 127.0.0.1:9100";
        assert_eq!(error.to_string(), text);
        let both = [("LONGSHORE_REDIS_URL", "redis://r"), ("LONGSHORE_REDIS_URL_FILE", "/none")];
        let read = |given: &[(&str, &str)]| {
            let given = |name: &str| given.iter().find(|(variable, _)| *variable == name);
            let read = Config::read(|name| given(name).map(|(_, value)| (*value).to_owned()));
            read.expect_err("it is refused").to_string()
        };
        let text = "LONGSHORE_REDIS_URL: LONGSHORE_REDIS_URL_FILE is set as well; set one of them";
        assert_eq!(read(&both), text);
        assert_eq!(read(&both[1..]), "LONGSHORE_REDIS_URL_FILE: /none: no such file");
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = Config::new().redis_url("redis://:secret@r").amqp_url("amqp://u:secret@r");
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
        let secret = ApiSecret::from_bytes([7; 32]);
        let config = Config::new().token(secret.as_str()).expect("a token");
        assert!(!format!("{config:?}").contains("0707"), "{config:?}");
        let error = Config::new().token("hunter2").expect_err("no token");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
