//! Parses `redis_url`: one server, servers behind sentinels, or a cluster.
//!
//! - `redis://[user:password@]host[:port][/db]`, `rediss://…` with TLS, `unix:///path/to/socket`
//! - `redis+sentinel://[user:password@]host[:port],…/master[/db]`: the hosts are the sentinels
//!   (port 26379 by default); user and password are those of the servers that they watch
//! - `redis+cluster://[user:password@]host[:port],…`: some of the nodes, the others are
//!   discovered
//! - `rediss+sentinel://` and `rediss+cluster://` use TLS
//!
//! No text for display contains a password.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::Error;

const SCHEMES: &str = "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, \
     redis+cluster:// or \
     rediss+cluster://";
const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

/// The address of Redis, with user and password.
#[derive(Clone)]
pub(super) enum Address {
    /// One server.
    Alone(ConnectionInfo),
    /// The master that sentinels name.
    Sentinel {
        /// The sentinels, without user and password.
        sentinels: Vec<ConnectionInfo>,
        /// The name of the master among the sentinels.
        master: String,
        /// User, password and database of the master. Its host is a placeholder.
        node: ConnectionInfo,
        /// Whether to use TLS.
        tls: bool,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<ConnectionInfo>),
}

impl Address {
    /// Parses a URL.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        if url.contains(char::is_control) {
            return Err(Error::BadUrl("a line break or another control character in it".into()));
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| Error::BadUrl(format!("expected a URL that begins with {SCHEMES}")))?;
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => Ok(Self::Alone(info(url)?)),
            "redis+sentinel" => sentinel(rest, "redis"),
            "rediss+sentinel" => sentinel(rest, "rediss"),
            "redis+cluster" => cluster(rest, "redis"),
            "rediss+cluster" => cluster(rest, "rediss"),
            // Any other text there may be a user with a password.
            _ if scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
            {
                Err(Error::BadUrl(format!("unknown scheme `{scheme}`; use {SCHEMES}")))
            }
            _ => Err(Error::BadUrl(format!("expected a URL that begins with {SCHEMES}"))),
        }
    }
}

impl Address {
    /// Whether its servers are spoken to with TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.infos().iter().any(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// Hosts and ports of the servers that it names: of sentinels, not of their master.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        self.infos().iter().filter_map(|info| match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.as_str(), *port))
            }
            _ => None,
        })
    }

    fn infos(&self) -> &[ConnectionInfo] {
        match self {
            Self::Alone(info) => std::slice::from_ref(info),
            Self::Sentinel { sentinels, .. } => sentinels,
            Self::Cluster(nodes) => nodes,
        }
    }
}

/// Hosts and ports, for display.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |infos: &[ConnectionInfo]| {
            infos.iter().map(|info| info.addr().to_string()).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Alone(info) => info.addr().fmt(f),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{} (sentinels of {master})", list(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "{} (cluster)", list(nodes)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The parts of a URL with several hosts.
struct Hosts<'a> {
    /// `user:password@`, or nothing.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
}

fn hosts(rest: &str) -> Result<Hosts<'_>, Error> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') {
        // Otherwise the rest of the password would be taken for the path, and shown.
        return Err(Error::BadUrl("a slash before the @; write %2F in a user or password".into()));
    }
    let (user, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    if hosts.iter().any(|host| host.is_empty()) {
        return Err(Error::BadUrl("a host is missing; write host1:port1,host2:port2".into()));
    }
    Ok(Hosts { user, hosts, path })
}

fn sentinel(rest: &str, scheme: &str) -> Result<Address, Error> {
    let Hosts { user, hosts, path } = hosts(rest)?;
    let (master, db) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(Error::BadUrl(
            "the name of the master is missing; write redis+sentinel://host:port,…/master".into(),
        ));
    }
    let sentinels = hosts
        .iter()
        .map(|host| info(&format!("{scheme}://{}", with_port(host, SENTINEL_PORT))))
        .collect::<Result<_, _>>()?;
    let node = info(&format!("{scheme}://{user}master/{db}"))?;
    Ok(Address::Sentinel { sentinels, master: master.to_owned(), node, tls: scheme == "rediss" })
}

fn cluster(rest: &str, scheme: &str) -> Result<Address, Error> {
    let Hosts { user, hosts, path } = hosts(rest)?;
    if !matches!(path, "" | "0") {
        return Err(Error::BadUrl(format!(
            "a cluster has no databases to choose, found `/{path}`"
        )));
    }
    let nodes = hosts
        .iter()
        .map(|host| info(&format!("{scheme}://{user}{}", with_port(host, REDIS_PORT))))
        .collect::<Result<_, _>>()?;
    Ok(Address::Cluster(nodes))
}

fn with_port(host: &str, port: u16) -> String {
    // An IPv6 address stands in brackets, so that its colons are not taken for a port.
    let has_port = host.rsplit_once(':').is_some_and(|(_, tail)| !tail.contains(']'));
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

/// Sets `TCP_NODELAY`: without it small requests wait for the acknowledgement of the one before.
fn info(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(|e| Error::BadUrl(e.to_string()))?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(url: &str, expected: &str) {
        match Address::parse(url) {
            Ok(address) => assert_eq!(address.to_string(), expected, "{url}"),
            Err(e) => panic!("{url}: {e}"),
        }
    }

    #[track_caller]
    fn refuses(url: &str, wanted: &str) {
        let error = Address::parse(url).expect_err("must be refused").to_string();
        assert!(error.starts_with("redis_url: "), "{error}");
        assert!(error.contains(wanted), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn every_way_to_reach_redis_has_its_url() {
        shows("redis://127.0.0.1", "127.0.0.1:6379");
        shows("redis://user:secret@cache:7000/2", "cache:7000");
        shows("rediss://:secret@cache/", "cache:6379");
        shows("unix:///run/redis.sock", "/run/redis.sock");
        shows("redis+sentinel://u:secret@a,b:1/mymaster/3", "a:26379,b:1 (sentinels of mymaster)");
        shows("redis+cluster://:secret@a:7000,b:7001", "a:7000,b:7001 (cluster)");
        shows("rediss+cluster://a,[::1]:7001", "a:6379,::1:7001 (cluster)");
    }

    #[test]
    fn the_servers_of_an_address_are_known_and_whether_they_speak_tls() {
        let check = |url: &str, tls: bool, expected: &[(&str, u16)]| {
            let address = Address::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(address.is_tls(), tls, "{url}");
            assert_eq!(address.hosts().collect::<Vec<_>>(), expected, "{url}");
        };
        check("redis://cache", false, &[("cache", 6379)]);
        check("rediss://cache:7", true, &[("cache", 7)]);
        check("rediss+sentinel://a,b:1/mymaster", true, &[("a", 26379), ("b", 1)]);
        check("rediss+cluster://a", true, &[("a", 6379)]);
        check("unix:///run/redis.sock", false, &[]);
    }

    #[test]
    fn user_password_and_database_reach_the_servers_behind_the_sentinels() {
        let url = "redis+sentinel://ann:s%40cret@a/mymaster/3";
        let Ok(Address::Sentinel { sentinels, node, tls, .. }) = Address::parse(url) else {
            panic!("{url} is understood");
        };
        assert_eq!(node.redis_settings().username(), Some("ann"));
        assert_eq!(node.redis_settings().password(), Some("s@cret"));
        assert_eq!(node.redis_settings().db(), 3);
        assert_eq!(sentinels[0].redis_settings().password(), None);
        assert!(!tls);
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        refuses("localhost:6379", "begins with redis://");
        refuses("http://u:secret@h", "unknown scheme `http`");
        refuses("redis://u:secret@h/x", "Invalid database number");
        refuses("redis+sentinel://u:secret@h", "name of the master is missing");
        refuses("redis+cluster://u:secret@h,,i", "a host is missing");
        refuses("redis+cluster://u:secret@h/4", "no databases to choose");
        refuses("redis+cluster://u:a/secret@h", "write %2F in a user or password");
        refuses("redis+sentinel://u:a/secret@h/m", "write %2F in a user or password");
        refuses("u:secret@h://", "begins with redis://");
        refuses("redis+cluster://u:secret@h/\n", "a line break");
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in
            ["redis://u:secret@h", "redis+cluster://u:secret@h", "redis+sentinel://u:secret@h/m"]
        {
            let address = Address::parse(url).expect("understood");
            assert!(!format!("{address} {address:?}").contains("secret"), "{url}");
        }
    }
}
