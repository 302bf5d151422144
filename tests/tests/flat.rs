//! A job of 10,000,000 subtasks needs no more memory than one of 10,000, except for its bitmaps.

#![expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]

use std::time::Duration;

use longshore_test_servers::{Rabbit, Redis, wait_until};
use longshore_tests::Fleet;
use serde_json::json;

/// The peak resources of a job.
#[derive(Debug, Clone, Copy)]
struct Peak {
    scheduler_rss_kib: u64,
    redis_bytes: u64,
    queue_depth: u64,
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux counts it");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB")
}

fn redis_memory(redis: &Redis) -> u64 {
    let info = redis.call(&["INFO", "memory"]).text().expect("a text");
    let line = info.lines().find(|line| line.starts_with("used_memory:")).expect("Redis counts it");
    line.trim_start_matches("used_memory:").trim().parse().expect("a number of bytes")
}

fn queue_depth(rabbit: &Rabbit, queue: &str) -> u64 {
    let table = rabbit.ctl(&["list_queues", "--quiet", "--no-table-headers", "name", "messages"]);
    let line = table.lines().find(|line| line.starts_with(&format!("{queue}\t")));
    line.and_then(|line| line.split('\t').nth(1)).and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn run(total: u64, rabbit: &Rabbit, redis: &Redis) -> Peak {
    let mut fleet = Fleet::on(rabbit, redis);
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let before = redis_memory(redis);
    let split = json!({"by": "range", "start": 0, "end": total});
    let job = fleet.submit(&json!({"task": "noop", "split": split, "results": "discard"}));
    let queue = format!("{}.work.default", fleet.namespace());
    let (mut redis_bytes, mut depth) = (0, 0);
    let mut status = json!(null);
    wait_until("the job ends", Duration::from_secs(300), || {
        redis_bytes = redis_bytes.max(redis_memory(redis).saturating_sub(before));
        depth = depth.max(queue_depth(rabbit, &queue));
        status = fleet.status(&job);
        status["state"] == "succeeded"
    });
    assert_eq!(status["done"], json!(total), "{status}");
    fleet.audit(&job);
    let scheduler_rss_kib = resident_kib(fleet.schedulers[0].pid());
    Peak { scheduler_rss_kib, redis_bytes, queue_depth: depth }
}

#[test]
fn memory_follows_the_work_in_flight_and_not_the_size_of_the_job() {
    let (rabbit, redis) = (Rabbit::start(), Redis::start());
    let small = run(10_000, &rabbit, &redis);
    let large = run(10_000_000, &rabbit, &redis);
    println!("10,000 subtasks: {small:?}\n10,000,000 subtasks: {large:?}");
    // Allocators and the time of polls cause small differences; one record for each subtask would
    // cost hundreds of MiB.
    assert!(large.scheduler_rss_kib < small.scheduler_rss_kib + 16 * 1024, "{small:?} {large:?}");
    let bits = 2 * 10_000_000 / 8;
    assert!(large.redis_bytes < small.redis_bytes + bits + (2 << 20), "{small:?} {large:?}");
    assert!(large.queue_depth <= small.queue_depth + 50, "{small:?} {large:?}");
}
