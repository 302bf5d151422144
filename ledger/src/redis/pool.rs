//! Opens connections: through a pool or, where certificates are in files, with those files.
//!
//! The pools hold a client that knows the system's root certificates. Certificates of one's own are
//! read for each connection, so that a renewed one is used by the next connection; a pool can't do
//! that, because its client is made once. The slots of `connections` bound the number of
//! connections either way.
//!
//! A connection to a cluster opens further ones to its nodes later on, with the files as they were
//! when the first one was opened. When they are no longer accepted, the connection breaks, and the
//! next one reads the files again.

use std::time::Duration;

use deadpool_redis::sentinel::{
    self as pooled_sentinel, SentinelNodeConnectionInfo, SentinelServerType, TlsMode,
};
use deadpool_redis::{PoolConfig, RedisConnectionInfo, Runtime, Timeouts, cluster};
use longshore_protocol::ErrorKind;
use longshore_tls::{FileError, TlsFiles};
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{self, SentinelClient, SentinelClientBuilder};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisError,
    TlsCertificates,
};

use super::Config;
use super::address::Address;
use super::connections::Connection;
use super::transport::{Failure, within};

/// Opens connections.
pub(super) enum Pool {
    Alone(deadpool_redis::Pool),
    Sentinel(pooled_sentinel::Pool),
    Cluster(cluster::Pool),
    Own(Box<OwnCertificates>),
}

/// Opens connections with the certificates in files.
pub(super) struct OwnCertificates {
    address: Address,
    files: TlsFiles,
    connect: Duration,
}

/// A connection that a pool counts as in use until it is taken.
pub(super) enum Pooled {
    Alone(deadpool_redis::Connection),
    Sentinel(pooled_sentinel::Connection),
    Cluster(cluster::Connection),
    Own(Connection),
}

impl Pooled {
    pub(super) fn connection(&self) -> Connection {
        match self {
            Self::Alone(connection) => Connection::One((**connection).clone()),
            Self::Sentinel(connection) => Connection::One((**connection).clone()),
            Self::Cluster(connection) => Connection::Cluster((**connection).clone()),
            Self::Own(connection) => connection.clone(),
        }
    }

    /// Removes the connection from the pool.
    pub(super) fn take(self) {
        match self {
            Self::Alone(connection) => drop(deadpool_redis::Connection::take(connection)),
            Self::Sentinel(connection) => drop(pooled_sentinel::Connection::take(connection)),
            Self::Cluster(connection) => drop(cluster::Connection::take(connection)),
            Self::Own(connection) => drop(connection),
        }
    }
}

impl Pool {
    pub(super) fn new(address: &Address, config: &Config) -> Result<Self, String> {
        if address.is_tls() && !config.tls.is_empty() {
            let (files, connect) = (config.tls.clone(), config.connect_timeout);
            let address = address.clone();
            return Ok(Self::Own(Box::new(OwnCertificates { address, files, connect })));
        }
        let limit = config.connect_timeout + config.response_timeout;
        let pool_config = PoolConfig {
            max_size: config.connections.max(1),
            timeouts: Timeouts {
                wait: Some(limit),
                create: Some(config.connect_timeout),
                recycle: Some(config.response_timeout),
            },
            ..PoolConfig::default()
        };
        let text = |e: RedisError| e.to_string();
        Ok(match address {
            Address::Alone(info) => {
                let times = times(config.connect_timeout, config.response_timeout);
                let manager =
                    deadpool_redis::Manager::new_with_config(info.clone(), times).map_err(text)?;
                let builder = deadpool_redis::Pool::builder(manager).config(pool_config);
                Self::Alone(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
            }
            Address::Sentinel { sentinels, master, node, tls } => {
                let node = SentinelNodeConnectionInfo {
                    tls_mode: tls.then_some(TlsMode::Secure),
                    redis_connection_info: Some(RedisConnectionInfo::from(
                        node.redis_settings().clone(),
                    )),
                };
                let manager = pooled_sentinel::Manager::new(
                    sentinels.clone(),
                    master.clone(),
                    Some(node),
                    SentinelServerType::Master,
                )
                .map_err(text)?;
                let builder = pooled_sentinel::Pool::builder(manager).config(pool_config);
                Self::Sentinel(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
            }
            Address::Cluster(nodes) => {
                let manager = cluster::Manager::new(nodes.clone(), false).map_err(text)?;
                let builder = cluster::Pool::builder(manager).config(pool_config);
                Self::Cluster(builder.runtime(Runtime::Tokio1).build().map_err(|e| e.to_string())?)
            }
        })
    }

    pub(super) async fn open(&self, response: Duration) -> Result<Pooled, Failure> {
        Ok(match self {
            Self::Alone(pool) => Pooled::Alone(pool.get().await.map_err(failure)?),
            Self::Sentinel(pool) => {
                let mut connection = pool.get().await.map_err(failure)?;
                connection.set_response_timeout(response);
                Pooled::Sentinel(connection)
            }
            Self::Cluster(pool) => Pooled::Cluster(pool.get().await.map_err(failure)?),
            Self::Own(own) => Pooled::Own(own.open(response).await?),
        })
    }
}

impl OwnCertificates {
    /// Opens a connection with the certificates that are in the files now.
    async fn open(&self, response: Duration) -> Result<Connection, Failure> {
        let Self { address, files, connect } = self;
        let certificates = certificates(files)?;
        let times = times(*connect, response);
        let opening = async {
            Ok(match address {
                Address::Alone(info) => {
                    let client = client(info.clone(), certificates)?;
                    let opened = client.get_multiplexed_async_connection_with_config(&times);
                    Connection::One(opened.await?)
                }
                Address::Sentinel { .. } => {
                    let mut sentinels = sentinel_client(address, certificates)?;
                    let opened = sentinels.get_async_connection_with_config(&times);
                    Connection::One(opened.await?)
                }
                Address::Cluster(nodes) => {
                    let mut builder = ClusterClientBuilder::new(nodes.clone());
                    if let Some(certificates) = certificates {
                        builder = builder.certs(certificates);
                    }
                    Connection::Cluster(builder.build()?.get_async_connection().await?)
                }
            })
        };
        within(*connect, "connecting", opening).await
    }
}

/// The certificates that are in the files now; `None` if the system's root certificates do.
pub(super) fn certificates(files: &TlsFiles) -> Result<Option<TlsCertificates>, Failure> {
    if files.is_empty() {
        return Ok(None);
    }
    let read = || -> Result<TlsCertificates, FileError> {
        let client_tls = files.identity()?.map(|identity| ClientTlsConfig {
            client_cert: identity.cert,
            client_key: identity.key,
        });
        Ok(TlsCertificates { client_tls, root_cert: files.ca()? })
    };
    read().map(Some).map_err(|error| Failure::NoConnection {
        kind: ErrorKind::BadCertificate,
        reason: error.to_string(),
    })
}

/// A client of one server, with these certificates if the server is spoken to with TLS.
pub(super) fn client(
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
) -> Result<Client, RedisError> {
    match certificates {
        Some(certificates) if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) => {
            Client::build_with_tls(info, certificates)
        }
        _ => Client::open(info),
    }
}

/// A client of the sentinels, which finds their master.
pub(super) fn sentinel_client(
    address: &Address,
    certificates: Option<TlsCertificates>,
) -> Result<SentinelClient, RedisError> {
    let Address::Sentinel { sentinels, master, node, tls } = address else {
        return Err((redis::ErrorKind::InvalidClientConfig, "no sentinels").into());
    };
    let hosts = sentinels.iter().map(|info| info.addr().clone());
    let settings = node.redis_settings();
    let mut builder =
        SentinelClientBuilder::new(hosts, master, sentinel::SentinelServerType::Master)?
            .set_client_to_redis_db(settings.db())
            .set_client_to_redis_protocol(settings.protocol())
            .set_client_to_redis_tcp_settings(node.tcp_settings().clone())
            .set_client_to_sentinel_tcp_settings(node.tcp_settings().clone());
    if let Some(user) = settings.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if *tls {
        builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
    }
    builder.build()
}

/// The time limits of a connection to one server.
pub(super) fn times(connect: Duration, response: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect))
        .set_response_timeout(Some(response))
}

fn failure(error: deadpool_redis::PoolError) -> Failure {
    match error {
        deadpool_redis::PoolError::Backend(error) => Failure::Redis(error),
        deadpool_redis::PoolError::Timeout(_) => Failure::TimedOut(error.to_string()),
        other => Failure::NoConnection { kind: ErrorKind::Other, reason: other.to_string() },
    }
}
