//! The suite that every ledger has to pass, on Redis: alone, in a cluster, and behind sentinels.
//!
//! Cases share a server and keep apart by namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_ledger::Ledger;
use longshore_ledger::conformance::check_all;
use longshore_ledger::conformance::walk::{Draw, Shape, Walk};
use longshore_ledger::memory::MemoryLedger;
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

/// The same moves on both ledgers, drawn by a small generator so that a seed repeats them.
struct Draws(u64);

impl Draws {
    /// splitmix64: <https://prng.di.unimi.it/splitmix64.c>
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw(&mut self) -> Draw {
        let kind = u8::try_from(self.next() % 256).expect("less than 256");
        (kind, self.next() % 1000, self.next() % 1000, self.next() % 1000)
    }

    fn shape(&mut self) -> Shape {
        let mut maybe = |most: u64| {
            let number = self.next();
            (number % 3 == 0).then_some(number / 3 % most + 1)
        };
        let (fan_in, max_parallel, stop_after_failures) =
            (maybe(4).map(|n| n + 1), maybe(4), maybe(4));
        Shape { total: 1 + self.next() % 400, fan_in, max_parallel, stop_after_failures }
    }
}

#[tokio::test]
async fn redis_and_memory_give_the_same_answers_to_random_moves() {
    const WALKS: u64 = 40;
    const STEPS: usize = 150;
    let redis = Redis::start();
    for seed in 0..WALKS {
        let mut draws = Draws(seed);
        let shapes = [draws.shape(), draws.shape()];
        let config = Config::new(redis.url(), format!("walk{seed}"));
        let theirs = RedisLedger::connect(config).unwrap_or_else(|e| panic!("{e}"));
        let mut on_redis = Walk::new(Arc::new(theirs), shapes);
        let mut on_memory = Walk::new(Arc::new(MemoryLedger::default()), shapes);
        for step in 0..STEPS {
            let draw = match step {
                0 => (44, 2, 0, 0),
                1 => (44, 2, 0, 3),
                _ => draws.draw(),
            };
            let at = format!("seed {seed}, step {step}: {draw:?}");
            assert_eq!(on_redis.step(draw).await, on_memory.step(draw).await, "{at}");
            assert_eq!(on_redis.view().await, on_memory.view().await, "{at}");
        }
    }
}
