//! The suite that every ledger has to pass, on Redis: alone, in a cluster, and behind sentinels.
//!
//! Cases share a server and keep apart by namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_ledger::Ledger;
use longshore_ledger::conformance::check_all;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_test_servers::{Redis, RedisCluster, RedisSentinel};

async fn check(url: &str) {
    let next = AtomicU64::new(0);
    check_all(async || {
        let namespace = format!("case{}", next.fetch_add(1, Ordering::Relaxed));
        let ledger = RedisLedger::connect(Config::new(url, namespace));
        Arc::new(ledger.unwrap_or_else(|e| panic!("{url}: {e}"))) as Arc<dyn Ledger>
    })
    .await;
}

#[tokio::test]
async fn one_server_passes_the_suite() {
    let redis = Redis::start();
    check(&redis.url()).await;
}

#[tokio::test]
async fn a_cluster_passes_the_suite() {
    let cluster = RedisCluster::start(3);
    check(&cluster.url()).await;
}

#[tokio::test]
async fn a_master_behind_sentinels_passes_the_suite() {
    let sentinel = RedisSentinel::start();
    check(&sentinel.url()).await;
}
