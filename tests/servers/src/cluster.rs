//! Starts a private Redis Cluster of masters without replicas, and waits until it is whole.

use std::time::Duration;

use crate::redis::{Redis, RedisOptions};
use crate::resp::Reply;
use crate::wait::wait_until;

const SLOTS: u32 = 16_384;
const GATHER_DEADLINE: Duration = Duration::from_secs(30);

/// Masters without replicas, which share the 16384 slots evenly.
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts `masters` nodes and waits until each of them sees the whole cluster.
    ///
    /// # Panics
    /// When the cluster does not form.
    pub fn start(masters: u32) -> Self {
        let nodes: Vec<Redis> = (0..masters).map(|_| start_node()).collect();
        for (number, node) in (0..masters).zip(&nodes) {
            let first = number * SLOTS / masters;
            let last = (number + 1) * SLOTS / masters - 1;
            done(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            done(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let cluster = Self { nodes };
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
            done(first, &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus]);
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
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", addresses.join(","))
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

fn start_node() -> Redis {
    let lines = vec!["cluster-node-timeout 2000".into()];
    Redis::start_with(&RedisOptions { cluster: true, lines, ..RedisOptions::default() })
}

#[track_caller]
fn done(node: &Redis, command: &[&str]) {
    let reply = node.call(command);
    assert_eq!(reply, Reply::Text("OK".into()), "{command:?}");
}
