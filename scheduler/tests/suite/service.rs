//! The scheduler as a whole without faults: jobs, retries, pauses, placements and bad documents.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_broker::Queue;
use longshore_ledger::{Claim, ClaimParams};
use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkMessage, NodeId, OutcomeRun, Token};
use tokio::time::{Instant, sleep};

use crate::world::{World, fail_once, succeed};

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_its_end() {
    let world = World::usual(succeed);
    let job = world.submit(500, "").await;
    let summary = world.succeeds(job).await;
    assert_eq!(summary.attempts, 500);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn results_are_reduced_level_by_level() {
    let world = World::usual(succeed);
    let job = world.submit(1_000, r#","reduce":{"task":"sum","fan_in":8}"#).await;
    let summary = world.succeeds(job).await;
    assert_eq!((summary.reduce.total, summary.reduce.done), (125 + 16 + 2 + 1, 144));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_opened_as_soon_as_it_is_due() {
    let world = World::usual(fail_once);
    let job = world.submit(10, r#","chunk":1"#).await;
    let waiting = world.until(job, "a retry", |summary| summary.next_retry_at.is_some()).await;
    let due = waiting.next_retry_at.unwrap();
    world.until(job, "the retry's start", |summary| summary.counts.retrying == 0).await;
    let late = world.ledger.now().await.unwrap().since(due);
    assert!(late <= Duration::from_millis(50), "{late:?} late");
    assert_eq!(world.succeeds(job).await.attempts, 11);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_retries_in_chunks_all_end() {
    let world = World::usual(fail_once);
    let job = world.submit(2_000, "").await;
    assert_eq!(world.succeeds(job).await.attempts, 2_200);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_job_stops_and_continues_after_a_resume() {
    let world = World::usual(succeed);
    let job = world.submit(4_000, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 100).await;
    world.ledger.pause(job).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.ledger.job(job).await.unwrap().unwrap();
    assert_eq!(before.running_chunks, 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = world.ledger.job(job).await.unwrap().unwrap();
    assert_eq!(before.counts, after.counts);
    world.ledger.resume(job).await.unwrap();
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_chunks_of_a_killed_worker_run_elsewhere() {
    let mut world = World::usual(succeed);
    let job = world.submit(4_000, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 500).await;
    world.kill("w1");
    let summary = world.succeeds(job).await;
    assert!(summary.lost > 0);
    assert_eq!(world.ledger.nodes().await.unwrap().len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_chunks_of_a_killed_worker_are_published_at_once_without_a_hint() {
    // At any time relative to the periodic sweep, which comes once a second.
    for wait in [0, 200, 400, 600, 800] {
        let mut world = World::new();
        world.outage.lose_hints();
        world.start_scheduler("s0");
        world.start_worker("w0", "default", 1, succeed);
        sleep(Duration::from_millis(wait)).await;
        // The job has one chunk that takes half a minute.
        let job = world.submit(6_000, r#","chunk":6000"#).await;
        world.until(job, "some work", |summary| summary.counts.done > 400).await;
        world.kill("w0");
        world.start_worker("w1", "default", 1, succeed);
        world.until(job, "the revoke", |summary| summary.lost > 0).await;
        let revoked = Instant::now();
        world.until(job, "work elsewhere", |summary| summary.running_chunks == 1).await;
        assert!(revoked.elapsed() <= Duration::from_millis(20), "{:?}", revoked.elapsed());
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_an_unlisted_worker_claimed_runs_elsewhere() {
    let mut world = World::new();
    world.start_scheduler("s0");
    world.start_worker("w0", "default", 1, succeed);
    let mut messages = world.broker.subscribe(&Queue::Work("default".into()), 1).await;
    let job = world.submit(50, "").await;
    let delivery = messages.next().await.unwrap();
    drop(messages);
    let message: ChunkMessage = serde_json::from_slice(&delivery.body).unwrap();
    let (token, ghost) = (Token::from_bytes([7; 16]), NodeId::new("ghost"));
    let claim =
        world.ledger.claim(job, &ClaimParams::of(&message, token, ghost.clone())).await.unwrap();
    assert!(matches!(claim, Claim::Granted(_)));
    delivery.settle.ack().await;
    let claimed = Instant::now();
    let summary = world.succeeds(job).await;
    assert_eq!(summary.lost, message.to - message.from);
    assert!(claimed.elapsed() < Duration::from_secs(20), "{:?}", claimed.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_job_costs_few_ledger_calls() {
    const JOBS: u64 = 500;
    let world = World::usual(succeed);
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(world.submit(2, "").await);
    }
    for job in jobs {
        world.succeeds(job).await;
    }
    // Admit, read, read the document, open twice, read, archive; and the periodic calls.
    let asked = world.outage.calls();
    assert!(asked <= 8 * JOBS, "{asked} questions for {JOBS} jobs");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_are_placed_in_turn_and_by_key() {
    for placement in [r#""round_robin""#, r#"{"hash":""}"#] {
        let mut world = World::usual(succeed);
        let job = world.submit(600, &format!(r#","placement":{placement}"#)).await;
        world.until(job, "some work", |summary| summary.counts.done > 100).await;
        world.kill("w0");
        world.succeeds(job).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_limit_of_failures_end_a_job() {
    let world = World::usual(|_, _| OutcomeRun::Failed { error: "broken".into() });
    let job = world.submit(1_000_000, r#","stop_after_failures":7"#).await;
    assert_eq!(world.ended(job).await.state, JobState::Failed);
    let slow = world.submit(1_000_000, r#","deadline":"2s""#).await;
    let summary = world.ended(slow).await;
    assert_eq!(summary.error.as_deref(), Some("the deadline has passed"));
    world.stop().await;
}

/// Checks that a bad document is in the dead queue with its reason.
async fn refused(document: &str, reason: &str, id: Option<&str>) {
    let mut world = World::new();
    world.start_scheduler("s0");
    world.publish(document).await;
    let mut dead = world.broker.subscribe(&Queue::Dead, 1).await;
    let wait = tokio::time::timeout(Duration::from_secs(10), dead.next()).await;
    let delivery = wait.expect("waited for the dead letter").unwrap();
    let headers: BTreeMap<String, String> = delivery.headers.iter().cloned().collect();
    assert!(headers["reason"].contains(reason), "{}", headers["reason"]);
    assert_eq!(headers.get("id").map(String::as_str), id);
    assert_eq!(delivery.body, document.as_bytes());
    if let Some(id) = id {
        let summary = world.ledger.job(id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(summary.state, JobState::Rejected);
        assert!(summary.error.unwrap().contains(reason));
    }
    // The next document is not affected.
    world.start_worker("w0", "default", 1, succeed);
    let job = world.submit(3, "").await;
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn bad_documents_go_to_the_dead_queue() {
    let id = "0193a0c5-7e1c-7000-8000-0000000000ff";
    let with_id = |rest: &str| format!(r#"{{"id":"{id}",{rest}}}"#);
    refused("no json at all", "not JSON", None).await;
    refused("{}", "task", None).await;
    refused(&with_id(r#""task":"noop","split":{"by":"ranges"}"#), "split.by", Some(id)).await;
    let relative = r#""task":"noop","split":{"by":"files","files":["data/*.txt"]}"#;
    let too_many = r#""task":"noop","split":{"by":"range","start":0,"end":5000000000}"#;
    let reason = "split: 5000000000 subtasks; this ledger keeps at most 4294967296, reduce nodes \
                  included";
    refused(&with_id(too_many), reason, Some(id)).await;
    refused(&with_id(relative), "`data/*.txt` is relative", Some(id)).await;
}

#[tokio::test]
async fn a_glob_without_files_is_refused_in_real_time() {
    let id = "0193a0c5-7e1c-7000-8000-0000000000fe";
    let split = r#"{"by":"files","files":["/nowhere/at/all/*.txt"]}"#;
    let document = format!(r#"{{"id":"{id}","task":"noop","split":{split}}}"#);
    refused(&document, "no file matches", Some(id)).await;
}

#[tokio::test(start_paused = true)]
async fn another_job_with_the_same_id_is_refused_and_the_first_continues() {
    let world = World::usual(succeed);
    let job = world.submit(2_000, "").await;
    world.until(job, "some work", |summary| summary.counts.done > 10).await;
    let split = r#"{"by":"range","start":0,"end":5}"#;
    world.publish(format!(r#"{{"id":"{job}","task":"noop","split":{split}}}"#)).await;
    let mut dead = world.broker.subscribe(&Queue::Dead, 1).await;
    let delivery = dead.next().await.unwrap();
    assert!(delivery.headers.iter().any(|(name, _)| name == "reason"));
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_schedulers_feed_fifty_jobs_of_many_queues() {
    let mut world = World::new();
    world.start_scheduler("s0");
    world.start_scheduler("s1");
    for queue in ["a", "b", "c", "d", "default"] {
        world.start_worker(&format!("w-{queue}"), queue, 4, fail_once);
    }
    let mut jobs = Vec::new();
    for number in 0..50 {
        let queue = ["a", "b", "c", "d", "default"][number % 5];
        let fields = format!(r#","queue":"{queue}","tenant":"t{}""#, number % 3);
        jobs.push(world.submit(20 + number as u64 * 7, &fields).await);
    }
    for job in &jobs[..25] {
        world.succeeds(*job).await;
    }
    // One scheduler stops and deregisters; the other takes over its queues.
    world.stops[0].cancel();
    for job in &jobs[25..] {
        world.succeeds(*job).await;
    }
    let start = Instant::now();
    while !world.ledger.active_jobs().await.unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for the archive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.stop().await;
}
