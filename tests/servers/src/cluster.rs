//! Starts a private Redis Cluster of masters without replicas, and waits until it is whole.

use std::time::Duration;

use crate::authority::ServerTls;
use crate::redis::{Redis, RedisOptions};
use crate::resp::Reply;
use crate::wait::wait_until;

const SLOTS: u32 = 16_384;
const GATHER_DEADLINE: Duration = Duration::from_secs(30);

/// Masters without replicas, which share the 16384 slots evenly.
pub struct RedisCluster {
    nodes: Vec<Redis>,
    has_tls: bool,
}

impl RedisCluster {
    /// Starts `masters` nodes and waits until each of them sees the whole cluster.
    ///
    /// # Panics
    /// When the cluster does not form.
    pub fn start(masters: u32) -> Self {
        Self::start_with(masters, None)
    }

    /// Starts `masters` nodes, which speak TLS with clients and with each other if it is given.
    ///
    /// # Panics
    /// When the cluster does not form.
    pub fn start_with(masters: u32, tls: Option<&ServerTls>) -> Self {
        let nodes: Vec<Redis> = (0..masters).map(|_| start_node(tls)).collect();
        for (number, node) in (0..masters).zip(&nodes) {
            let first = number * SLOTS / masters;
            let last = (number + 1) * SLOTS / masters - 1;
            done(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            done(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let cluster = Self { nodes, has_tls: tls.is_some() };
        cluster.introduce();
        cluster.await_whole();
        cluster
    }

    /// Introduces every node to the first; gossip does the rest.
    fn introduce(&self) {
        let Some((first, others)) = self.nodes.split_first() else { return };
        for node in others {
            let bus = node.call(&["CONFIG", "GET", "cluster-port"]);
            let Reply::List(pair) = &bus else { panic!("cluster-port: {bus}") };
            let bus = pair.last().and_then(Reply::text).unwrap_or_default();
            let port = if self.has_tls { node.tls_port() } else { node.port() };
            done(first, &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus]);
        }
    }

    /// Waits until every node serves and knows all others, after a start, a kill or a restart.
    ///
    /// # Panics
    /// When the cluster does not form.
    #[track_caller]
    pub fn await_whole(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        wait_until("every node sees a whole cluster", GATHER_DEADLINE, || {
            self.nodes.iter().all(|node| {
                let info = node.call(&["CLUSTER", "INFO"]).text().unwrap_or_default();
                let has = |wanted: &str| info.lines().any(|line| line.trim_end() == wanted);
                has("cluster_state:ok") && has(&known)
            })
        });
    }

    /// `redis+cluster://127.0.0.1:P1,127.0.0.1:P2,…`
    pub fn url(&self) -> String {
        self.url_with("redis+cluster", Redis::port)
    }

    /// `rediss+cluster://127.0.0.1:P1,127.0.0.1:P2,…`
    ///
    /// # Panics
    /// When it was started without TLS.
    #[track_caller]
    pub fn tls_url(&self) -> String {
        self.url_with("rediss+cluster", Redis::tls_port)
    }

    fn url_with(&self, scheme: &str, port: impl Fn(&Redis) -> u16) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", port(node))).collect();
        format!("{scheme}://{}", addresses.join(","))
    }

    /// The nodes, for tests that read from them.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The nodes, for tests that break them.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}

fn start_node(tls: Option<&ServerTls>) -> Redis {
    let (lines, tls) = (vec!["cluster-node-timeout 2000".into()], tls.cloned());
    Redis::start_with(&RedisOptions { cluster: true, lines, tls, ..RedisOptions::default() })
}

#[track_caller]
fn done(node: &Redis, command: &[&str]) {
    let reply = node.call(command);
    assert_eq!(reply, Reply::Text("OK".into()), "{command:?}");
}
