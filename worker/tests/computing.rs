//! Blocking tasks: their subtasks run one after another on one thread, and stop like others.
//!
//! They are settled and committed like others, too.

#[path = "harness/cuttable_ledger.rs"]
mod cuttable_ledger;
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use longshore_protocol::state::JobState;
use longshore_worker::{Config, Context, TaskError, TaskResult, Worker};
use parking_lot::Mutex;
use serde_json::{Value, json};

use cuttable_ledger::CuttableLedger;
use harness::{Harness, config, eventually};

fn range(end: u64, chunk: u64, more: &Value) -> Value {
    let mut document = json!({
        "task": "compute", "split": {"by": "range", "start": 0, "end": end}, "chunk": chunk,
    });
    let fields = document.as_object_mut().expect("it is one");
    fields.extend(more.as_object().expect("fields").clone());
    document
}

fn worker<F>(config: Config, task: F) -> Worker
where
    F: Fn(Context, u64) -> TaskResult<u64> + Send + Sync + 'static,
{
    Worker::builder().config(config).blocking_task("compute", task).build().expect("a valid worker")
}

fn one_slot() -> Config {
    Config { slots: 1, ..config() }
}

/// Blocks the thread until `number` has reached a value.
fn wait_for(number: &AtomicU64, at_least: u64, ctx: &Context) {
    while number.load(Ordering::SeqCst) < at_least && !ctx.is_cancelled() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn the_subtasks_of_a_chunk_run_in_order_on_one_thread() {
    let harness = Harness::new();
    let ran: Arc<Mutex<Vec<(u64, ThreadId)>>> = Arc::default();
    let log = ran.clone();
    let running = harness.start(worker(one_slot(), move |_, n| {
        log.lock().push((n, thread::current().id()));
        if n % 10 == 3 { Err(TaskError::permanent("an unlucky number")) } else { Ok(n * n) }
    }));
    let job = harness.submit(&range(500, 100, &json!({}))).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.counts.failed), (450, 50));
    assert_eq!(summary.attempts, 500);
    let ran = std::mem::take(&mut *ran.lock());
    for chunk in ran.chunks(100) {
        assert!(chunk.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "{chunk:?}");
        assert!(chunk.iter().all(|(_, thread)| *thread == chunk[0].1), "{chunk:?}");
    }
    let squares: Vec<String> =
        (0..500u64).filter(|n| n % 10 != 3).map(|n| (n * n).to_string()).collect();
    assert_eq!(harness.results(job, 0, 500).await, squares);
    running.stop().await;
}

#[tokio::test]
async fn settled_subtasks_are_committed_while_the_thread_continues() {
    let harness = Harness::new();
    let gate = Arc::new(AtomicU64::new(3));
    let reached = gate.clone();
    let running = harness.start(worker(one_slot(), move |ctx, n| {
        wait_for(&reached, n + 1, &ctx);
        Ok(n)
    }));
    let job = harness.submit(&range(6, 6, &json!({}))).await;
    eventually("three are committed", async || harness.job(job).await.counts.done == 3).await;
    gate.store(6, Ordering::SeqCst);
    assert_eq!(harness.ended(job).await.counts.done, 6);
    running.stop().await;
}

#[tokio::test]
async fn each_subtask_has_its_own_timeout() {
    let harness = Harness::new();
    let running = harness.start(worker(one_slot(), move |ctx, n| {
        // Four of them together take longer than the timeout of one.
        let long = if n == 4 { Duration::from_secs(20) } else { Duration::from_millis(120) };
        let begun = Instant::now();
        while begun.elapsed() < long && !ctx.is_cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(n)
    }));
    let more = json!({"timeout": "400ms", "retry": {"attempts": 1}});
    let job = harness.submit(&range(8, 8, &more)).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Failed, 7));
    assert_eq!(harness.error(job).await, "timed out after 400ms");
    assert_eq!(summary.attempts, 8, "none was begun twice");
    running.stop().await;
}

#[tokio::test]
async fn no_subtask_times_out_during_an_outage_of_the_ledger() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let begun = Arc::new(AtomicU64::new(0));
    let count = begun.clone();
    let patient = Config { dead_after: Duration::from_secs(60), ..one_slot() };
    let worker = worker(patient, move |_, n| {
        count.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        Ok(n)
    });
    let running = harness.start_with(worker, line.ledger());
    let more = json!({"timeout": "250ms", "retry": {"attempts": 1}});
    let job = harness.submit(&range(100, 100, &more)).await;
    eventually("some have run", async || begun.load(Ordering::SeqCst) > 10).await;
    line.cut(true);
    // Longer than the thread needs to be as far ahead as it may be.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(begun.load(Ordering::SeqCst) < 100, "it waits for its outcomes to be committed");
    line.cut(false);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts), (100, 100), "{summary:?}");
    assert_eq!(begun.load(Ordering::SeqCst), 100, "none was begun twice");
    running.stop().await;
}

#[tokio::test]
async fn a_subtask_that_ignores_its_timeout_does_not_delay_others() {
    let harness = Harness::new();
    let over = Arc::new(AtomicU64::new(0));
    let end = over.clone();
    let running = harness.start(worker(one_slot(), move |_, n| {
        while n == 1 && end.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(n)
    }));
    let more = json!({"timeout": "100ms", "retry": {"attempts": 1}});
    let job = harness.submit(&range(3, 3, &more)).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.counts.failed), (2, 1));
    assert_eq!(harness.error(job).await, "timed out after 100ms");
    over.store(1, Ordering::SeqCst);
    running.stop().await;
}

#[tokio::test]
async fn a_cancel_stops_the_running_subtask_and_none_begins() {
    let harness = Harness::new();
    let begun = Arc::new(AtomicU64::new(0));
    let count = begun.clone();
    let running = harness.start(worker(one_slot(), move |ctx, n| {
        count.fetch_add(1, Ordering::SeqCst);
        if n == 2 {
            wait_for(&AtomicU64::new(0), 1, &ctx);
        }
        Ok(n)
    }));
    let job = harness.submit(&range(6, 6, &json!({}))).await;
    eventually("two are committed", async || harness.job(job).await.counts.done == 2).await;
    let cancelled = Instant::now();
    harness.ledger.cancel(job).await.expect("it runs");
    assert_eq!(harness.ended(job).await.counts.cancelled, 4);
    running.stop().await;
    assert!(cancelled.elapsed() < Duration::from_secs(1), "it took {:?}", cancelled.elapsed());
    assert_eq!(begun.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_pause_lets_the_running_subtask_end_and_releases_the_rest() {
    let harness = Harness::new();
    let gate = Arc::new(AtomicU64::new(1));
    let (reached, begun) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let count = begun.clone();
    let running = harness.start(worker(one_slot(), move |ctx, n| {
        count.fetch_add(1, Ordering::SeqCst);
        wait_for(&reached, n + 1, &ctx);
        Ok(n)
    }));
    let job = harness.submit(&range(6, 6, &json!({}))).await;
    eventually("the second runs", async || begun.load(Ordering::SeqCst) == 2).await;
    harness.ledger.pause(job).await.expect("it runs");
    // By then the worker knows of the pause, by a hint or by a heartbeat.
    harness.two_heartbeats().await;
    gate.store(6, Ordering::SeqCst);
    eventually("the rest is released", async || harness.job(job).await.running_chunks == 0).await;
    let counts = harness.job(job).await.counts;
    assert_eq!((counts.done, counts.queued), (2, 4));
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    harness.ledger.resume(job).await.expect("it is paused");
    assert_eq!(harness.ended(job).await.counts.done, 6);
    running.stop().await;
}

#[tokio::test]
async fn a_panic_fails_only_its_own_subtask() {
    let harness = Harness::new();
    let running = harness.start(worker(one_slot(), |_, n| {
        assert!(n != 5, "a knot");
        Ok(n)
    }));
    let job = harness.submit(&range(10, 10, &json!({"retry": {"attempts": 1}}))).await;
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.counts.failed), (9, 1));
    assert_eq!(harness.error(job).await, "the handler panicked: a knot");
    running.stop().await;
}
