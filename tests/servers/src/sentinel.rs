//! Starts a private Redis master with a replica, and sentinels that promote the replica.

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::authority::ServerTls;
use crate::guardian::Guardian;
use crate::port::free_port;
use crate::redis::{Redis, RedisOptions, tls_lines};
use crate::resp::{self, Reply};
use crate::wait::{holds_within, wait_until};

/// The name of the master for the sentinels.
const MASTER: &str = "mymaster";
const READY_DEADLINE: Duration = Duration::from_secs(30);
const START_TRIES: usize = 5;

/// One master, one replica, and sentinels that promote the replica about a second after the
/// master falls silent.
pub struct RedisSentinel {
    sentinels: Vec<Sentinel>,
    servers: Vec<Redis>,
    has_tls: bool,
}

struct Sentinel {
    // Kept, because dropping it stops the process.
    _guardian: Guardian,
    port: u16,
    tls_port: Option<u16>,
}

impl RedisSentinel {
    /// Starts one sentinel, which decides alone.
    ///
    /// # Panics
    /// When the servers do not find each other.
    pub fn start() -> Self {
        Self::start_with(1)
    }

    /// Starts a number of sentinels, a majority of which decides.
    ///
    /// # Panics
    /// When the servers do not find each other.
    pub fn start_with(sentinels: usize) -> Self {
        Self::start_all(sentinels, None)
    }

    /// Starts one sentinel; all speak TLS with clients and with each other.
    ///
    /// # Panics
    /// When the servers do not find each other.
    pub fn start_with_tls(tls: &ServerTls) -> Self {
        Self::start_all(1, Some(tls))
    }

    fn start_all(sentinels: usize, tls: Option<&ServerTls>) -> Self {
        let start = |lines| {
            let tls = tls.cloned();
            Redis::start_with(&RedisOptions { lines, tls, ..RedisOptions::default() })
        };
        let master = start(Vec::new());
        let watched = if tls.is_some() { master.tls_port() } else { master.port() };
        let replica = start(vec![
            format!("replicaof 127.0.0.1 {watched}"),
            // Without the default delay of 5 s, in which more replicas could join the transfer.
            "repl-diskless-sync-delay 0".into(),
        ]);
        let quorum = sentinels / 2 + 1;
        let sentinels = (0..sentinels).map(|_| Sentinel::start(watched, quorum, tls)).collect();
        let all = Self { sentinels, servers: vec![master, replica], has_tls: tls.is_some() };
        all.await_watched();
        all
    }

    /// Waits until the replica follows and every sentinel knows it and the other sentinels.
    fn await_watched(&self) {
        let others = self.sentinels.len().saturating_sub(1).to_string();
        wait_until("every sentinel knows the replica", READY_DEADLINE, || {
            self.sentinels.iter().all(|sentinel| {
                let state = sentinel.master_state();
                let is = |field: &str, wanted: &str| {
                    state.chunks_exact(2).any(|pair| pair[0] == field && pair[1] == wanted)
                };
                is("flags", "master") && is("num-slaves", "1") && is("num-other-sentinels", &others)
            })
        });
        wait_until("the replica follows the master", READY_DEADLINE, || {
            let info = self.servers[1].call(&["INFO", "replication"]).text().unwrap_or_default();
            info.contains("master_link_status:up")
        });
    }

    /// `redis+sentinel://127.0.0.1:P1,…/mymaster`, with the sentinels' ports.
    pub fn url(&self) -> String {
        let addresses: Vec<String> =
            self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// `rediss+sentinel://127.0.0.1:P1,…/mymaster`, with the sentinels' ports for TLS.
    pub fn tls_url(&self) -> String {
        let ports = self.sentinels.iter().filter_map(|sentinel| sentinel.tls_port);
        let addresses: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("rediss+sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// The port of the master according to the first sentinel.
    pub fn master_port(&self) -> Option<u16> {
        let address = &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        match resp::call(self.sentinels.first()?.port, address) {
            Ok(Reply::List(address)) => address.last()?.text()?.parse().ok(),
            _ => None,
        }
    }

    /// The current master, for tests that read from it or break it.
    ///
    /// # Panics
    /// When the sentinels name none of these servers.
    #[track_caller]
    pub fn master(&mut self) -> &mut Redis {
        let port = self.master_port();
        let has_tls = self.has_tls;
        let found = self
            .servers
            .iter_mut()
            .find(|server| port == Some(if has_tls { server.tls_port() } else { server.port() }));
        found.unwrap_or_else(|| panic!("no server of ours is the master: {port:?}"))
    }
}

impl Sentinel {
    fn start(master: u16, quorum: usize, tls: Option<&ServerTls>) -> Self {
        let mut failures = Vec::new();
        for _ in 0..START_TRIES {
            match Self::try_start(master, quorum, tls) {
                Ok(sentinel) => return sentinel,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("a sentinel does not start:\n{}", failures.join("\n"));
    }

    fn try_start(master: u16, quorum: usize, tls: Option<&ServerTls>) -> Result<Self, String> {
        let text = |e: io::Error| e.to_string();
        let port = free_port().map_err(text)?;
        let tls_port = tls.map(|_| free_port()).transpose().map_err(text)?;
        let tls = tls.zip(tls_port).map_or_else(String::new, |(tls, port)| tls_lines(tls, port));
        let folder =
            tempfile::Builder::new().prefix("longshore-sentinel-").tempdir().map_err(text)?;
        // A sentinel stores its state in this file.
        let file = folder.path().join("sentinel.conf");
        let conf = format!(
            "bind 127.0.0.1\nport {port}\n{tls}dir {}\ndaemonize no\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            folder.path().display()
        );
        std::fs::write(&file, conf).map_err(text)?;
        let mut server = Command::new("redis-server");
        server.arg(file).arg("--sentinel");
        let mut guardian = Guardian::new(folder, &server).map_err(text)?;
        guardian.start().map_err(text)?;
        let own = format!("process_id:{}", guardian.pid().unwrap_or_default());
        let mut answers = false;
        holds_within(READY_DEADLINE, || {
            let info = resp::call(port, &["INFO", "server"]).ok().and_then(|info| info.text());
            answers = info.is_some_and(|info| info.lines().any(|line| line.trim_end() == own));
            answers || !guardian.is_running()
        });
        if answers {
            return Ok(Self { _guardian: guardian, port, tls_port });
        }
        Err(guardian.tail(&[]))
    }

    /// The fields and values of the master according to the sentinel.
    fn master_state(&self) -> Vec<String> {
        match resp::call(self.port, &["SENTINEL", "MASTER", MASTER]) {
            Ok(Reply::List(state)) => state.iter().filter_map(Reply::text).collect(),
            _ => Vec::new(),
        }
    }
}
