//! The conformance suite of the ledger, on Redis: a single server, a cluster, and behind sentinels.
//!
//! Cases share a server and are separated by namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_ledger::Ledger;
use longshore_ledger::conformance::check_all;
use longshore_ledger::conformance::stress::Stress;
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

/// The memory ledger runs many of these stress tests; a few show that the functions decide alike.
#[tokio::test]
async fn poisonous_subtasks_are_detected() {
    let redis = Redis::start();
    let next = AtomicU64::new(0);
    let run = async |stress: Stress| {
        let namespace = format!("stress{}", next.fetch_add(1, Ordering::Relaxed));
        let ledger = RedisLedger::connect(Config::new(redis.url(), namespace));
        stress.execute(Arc::new(ledger.unwrap_or_else(|e| panic!("{e}")))).await
    };
    for seed in 0..5 {
        let total = 40_000;
        let guilty = [seed * 7_919].into();
        let stress = Stress {
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
        assert!((5..=6).contains(&run(stress.clone()).await), "{stress:?}");
        let careless = Stress { careful: false, max_parallel: Some(2), ..stress.clone() };
        run(careless).await;
        // Long subtasks, one a chunk, and the guilty always in the company of the same others.
        let guilty = [seed].into();
        let close = Stress { total: 8, size: 1, guilty, nodes: 1, slots: 4, slow: true, ..stress };
        assert_eq!(run(close.clone()).await, 5, "{close:?}");
    }
}
