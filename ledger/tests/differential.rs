//! The memory and the Redis ledger give the same answers to the same random operations.
//!
//! The visible state is compared after each operation, too.
//!
//! `PROPTEST_CASES` sets the number of walks.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_ledger::Ledger;
use longshore_ledger::conformance::walk::{Draw, Shape, Walk};
use longshore_ledger::memory::MemoryLedger;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_test_servers::Redis;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Enough operations to reach ends, retries of ended jobs and several levels of a reduce, within a
/// minute.
const WALKS: u32 = 64;

/// Mostly small jobs, so that ends are reached; some longer than a result stride.
fn shape() -> impl Strategy<Value = Shape> {
    let total = prop_oneof![4 => 1..=40u64, 1 => 250..=300u64];
    (total, prop::option::of(2..=5u64), prop::option::of(1..=4u64), prop::option::of(1..=4u64))
        .prop_map(|(total, fan_in, max_parallel, stop_after_failures)| Shape {
            total,
            fan_in,
            max_parallel,
            stop_after_failures,
        })
}

fn config() -> ProptestConfig {
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if chosen { ProptestConfig::default().cases } else { WALKS };
    // The smallest walk is printed on failure; a file of seeds would go stale with the moves'
    // numbers.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 500, ..Default::default() }
}

/// The first difference of two texts, with some context.
fn difference(memory: &str, redis: &str) -> String {
    let mut told = String::new();
    for (memory, redis) in memory.lines().zip(redis.lines()).filter(|(a, b)| a != b) {
        let _ = writeln!(told, "memory: {memory}\nredis:  {redis}");
    }
    if told.is_empty() { format!("memory:\n{memory}\nredis:\n{redis}") } else { told }
}

async fn walk_both(
    memory: Arc<dyn Ledger>,
    redis: Arc<dyn Ledger>,
    shapes: [Shape; 2],
    draws: &[Draw],
) -> Result<(), TestCaseError> {
    let mut memory = Walk::new(memory, shapes);
    let mut redis = Walk::new(redis, shapes);
    let admit = [(44, 2, 0, 0), (44, 2, 0, 3)];
    let mut story = String::new();
    for (n, draw) in admit.iter().chain(draws).enumerate() {
        let (by_memory, by_redis) = (memory.step(*draw).await, redis.step(*draw).await);
        let _ = writeln!(story, "{n} {draw:?}: {by_memory}");
        if by_memory != by_redis {
            let found = difference(&by_memory, &by_redis);
            return Err(TestCaseError::fail(format!("answers differ\n{found}\n{story}")));
        }
        let (by_memory, by_redis) = (memory.view().await, redis.view().await);
        if by_memory != by_redis {
            let found = difference(&by_memory, &by_redis);
            return Err(TestCaseError::fail(format!("views differ\n{found}\n{story}")));
        }
    }
    Ok(())
}

#[test]
fn memory_and_redis_answer_alike() {
    let redis = Redis::start();
    let url = redis.url();
    let next = AtomicU64::new(0);
    let walks = (shape(), shape(), prop::collection::vec(any::<Draw>(), 1..120));
    proptest!(config(), |((one, two, draws) in walks)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let namespace = format!("walk{}", next.fetch_add(1, Ordering::Relaxed));
            let redis = RedisLedger::connect(Config::new(&url, namespace)).expect("the address");
            redis.load_functions().await.expect("the functions load");
            let memory = MemoryLedger::default();
            walk_both(Arc::new(memory), Arc::new(redis), [one, two], &draws).await
        })?;
    });
}

/// Shows that the comparison can fail: a ledger that lost a job differs from one that has it.
#[tokio::test]
async fn two_ledgers_that_differ_are_distinguished() {
    let shape = Shape { total: 9, fan_in: None, max_parallel: None, stop_after_failures: None };
    let (one, two) = (MemoryLedger::default(), MemoryLedger::default());
    let admitted = Walk::new(Arc::new(two.clone()), [shape; 2]).step((44, 2, 0, 0)).await;
    assert_eq!(admitted, "Accepted");
    let found = walk_both(Arc::new(one), Arc::new(two), [shape; 2], &[]).await;
    let told = found.expect_err("the second ledger knows the job already").to_string();
    assert!(told.contains("memory: Accepted\nredis:  Known"), "{told}");
}
