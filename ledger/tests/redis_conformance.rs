//! The suite that every ledger has to pass, on Redis: alone, in a cluster, and behind sentinels.
//!
//! Cases share a server and keep apart by namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_ledger::Ledger;
use longshore_ledger::conformance::check_all;
use longshore_ledger::conformance::ordeal::Ordeal;
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

/// The memory ledger goes through many of these; a few show that the functions decide alike.
#[tokio::test]
async fn poisonous_subtasks_are_found_out() {
    let redis = Redis::start();
    let next = AtomicU64::new(0);
    let endure = async |ordeal: Ordeal| {
        let namespace = format!("ordeal{}", next.fetch_add(1, Ordering::Relaxed));
        let ledger = RedisLedger::connect(Config::new(redis.url(), namespace));
        ordeal.endure(Arc::new(ledger.unwrap_or_else(|e| panic!("{e}")))).await
    };
    for seed in 0..5 {
        let total = 40_000;
        let guilty = [seed * 7_919].into();
        let ordeal = Ordeal {
            total,
            size: 10_000,
            guilty,
            nodes: 3,
            slots: 2,
            careful: true,
            slow: false,
            max_parallel: None,
            seed,
        };
        assert!((5..=6).contains(&endure(ordeal.clone()).await), "{ordeal:?}");
        let careless = Ordeal { careful: false, max_parallel: Some(2), ..ordeal.clone() };
        endure(careless).await;
        // Long subtasks, one a chunk, and the guilty always in the company of the same others.
        let guilty = [seed].into();
        let close = Ordeal { total: 8, size: 1, guilty, nodes: 1, slots: 4, slow: true, ..ordeal };
        assert_eq!(endure(close.clone()).await, 5, "{close:?}");
    }
}
