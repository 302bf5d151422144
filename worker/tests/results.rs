//! Results outside of the ledger: each claim has names of its own, and a full disk repeats no work.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use harness::{Harness, config, eventually};
use longshore_ledger::{ErrorsParams, LossCause, RevokeParams};
use longshore_protocol::state::JobState;
use longshore_storage::Error;
use longshore_worker::{Context, Environment, ResultStore, TaskResult, Worker};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

/// A result store in memory, with a gate before the first write and a disk that may be full.
#[derive(Default)]
struct Store {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The first write waits here, if there is a gate.
    gate: Option<Notify>,
    writes: AtomicU32,
    is_full: AtomicBool,
}

#[async_trait]
impl ResultStore for Store {
    async fn write(&self, prefix: &str, name: &str, bytes: Vec<u8>) -> Result<String, Error> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = self.gate.as_ref().filter(|_| number == 0) {
            gate.notified().await;
        }
        let url = format!("{prefix}/{name}");
        if self.is_full.load(Ordering::SeqCst) {
            return Err(Error::Io { path: url, reason: "no space left on device".into() });
        }
        self.objects.lock().insert(url.clone(), bytes);
        Ok(url)
    }

    async fn read(&self, url: &str) -> Result<Vec<u8>, Error> {
        let found = self.objects.lock().get(url).cloned();
        found.ok_or_else(|| Error::NotFound { path: url.to_owned() })
    }

    async fn remove(&self, url: &str) -> Result<(), Error> {
        self.objects.lock().remove(url);
        Ok(())
    }

    async fn list(&self, prefix: &str, folder: &str) -> Result<Vec<String>, Error> {
        let folder = format!("{prefix}/{folder}/");
        let objects = self.objects.lock();
        Ok(objects.keys().filter(|url| url.starts_with(&folder)).cloned().collect())
    }
}

fn machine(name: &str, store: &Arc<Store>) -> Environment {
    let mut state = name.len() as u64;
    let draws = Mutex::new(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state
    });
    Environment::simulated(name, move || draws.lock()()).with_results(store.clone())
}

/// A worker whose only task returns the worker's name and counts its runs.
fn worker(name: &'static str, store: &Arc<Store>, runs: &Arc<AtomicU32>) -> Worker {
    let runs = runs.clone();
    Worker::builder()
        .environment(machine(name, store))
        .config(config())
        .task("who", move |_: Context, _: i64| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move { TaskResult::Ok(name) }
        })
        .build()
        .expect("the configuration is valid")
}

fn job(subtasks: u64) -> serde_json::Value {
    json!({"task": "who", "split": {"by": "range", "start": 0, "end": subtasks},
           "chunk": 10, "results": "file:///results"})
}

#[tokio::test]
async fn a_late_write_does_not_replace_the_counted_results() {
    let harness = Harness::new();
    let store = Arc::new(Store { gate: Some(Notify::new()), ..Store::default() });
    let runs = Arc::default();
    let slow = harness.start(worker("slow", &store, &runs));
    let job = harness.submit(&job(1)).await;
    eventually("the first write is in flight", async || store.writes.load(Ordering::SeqCst) == 1)
        .await;
    // The slow worker still sends heartbeats; its write has begun and can't be stopped.
    harness
        .ledger
        .revoke(job, &RevokeParams::new(slow.id.clone(), LossCause::Vanished))
        .await
        .expect("memory");
    let quick = harness.start(worker("quick", &store, &runs));
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    let pointer = harness.results(job, 0, 1).await.remove(0);
    let url = pointer.strip_prefix('@').expect("it lies outside of the ledger");
    let winner = store.read(url).await.expect("the ledger names it");
    store.gate.as_ref().expect("there is one").notify_one();
    eventually("the late write is there", async || store.objects.lock().len() == 2).await;
    assert_eq!(store.read(url).await.expect("the ledger names it"), winner);
    slow.stop().await;
    quick.stop().await;
}

#[tokio::test]
async fn a_worker_that_has_lost_its_chunk_does_not_write() {
    let harness = Harness::new();
    let (store, begun, go_on) = (Arc::new(Store::default()), Arc::default(), Arc::default());
    let (begins, goes_on): (Arc<Notify>, Arc<Notify>) = (Arc::clone(&begun), Arc::clone(&go_on));
    let slow = Worker::builder()
        .environment(machine("slow", &store))
        .config(longshore_worker::Config {
            // It receives no answers while its subtask runs.
            heartbeat: std::time::Duration::from_secs(3_600),
            dead_after: std::time::Duration::from_secs(7_200),
            ..config()
        })
        .task("who", move |_: Context, _: i64| {
            let (begins, goes_on) = (begins.clone(), goes_on.clone());
            async move {
                begins.notify_one();
                goes_on.notified().await;
                TaskResult::Ok("slow")
            }
        })
        .build()
        .expect("the configuration is valid");
    let slow = harness.start(slow);
    let job = harness.submit(&job(1)).await;
    begun.notified().await;
    harness
        .ledger
        .revoke(job, &RevokeParams::new(slow.id.clone(), LossCause::Vanished))
        .await
        .expect("memory");
    let before = harness.job(job).await.fenced;
    go_on.notify_one();
    eventually("it learns that it has lost the chunk", async || {
        harness.job(job).await.fenced > before
    })
    .await;
    assert_eq!(store.writes.load(Ordering::SeqCst), 0);
    // It may have claimed the chunk again.
    go_on.notify_one();
    slow.stop().await;
}

#[tokio::test]
async fn a_location_that_can_not_be_written_for_a_while_repeats_no_work() {
    let harness = Harness::new();
    let store = Arc::new(Store { is_full: AtomicBool::new(true), ..Store::default() });
    let runs: Arc<AtomicU32> = Arc::default();
    let worker = harness.start(worker("w", &store, &runs));
    let job = harness.submit(&job(30)).await;
    eventually("it has tried twice", async || store.writes.load(Ordering::SeqCst) >= 3).await;
    let summary = harness.job(job).await;
    assert_eq!((summary.counts.done, summary.counts.failed, summary.counts.retrying), (0, 0, 0));
    let stalls = async || harness.ledger.stalls(job).await.expect("memory");
    eventually("the ledger has the stall", async || stalls().await.len() == 1).await;
    let stall = stalls().await.remove(0);
    assert_eq!(stall.node, worker.id);
    let reason = stall.reason;
    assert!(reason.starts_with("results can't be written: file:///results/"), "{reason}");
    assert!(reason.contains(": no space left on device; the worker keeps them and "), "{reason}");
    store.is_full.store(false, Ordering::SeqCst);
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 30));
    assert_eq!(runs.load(Ordering::SeqCst), 30, "each subtask ran once");
    eventually("that is over", async || stalls().await.is_empty()).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_location_that_can_not_be_written_at_all_fails_its_subtasks_after_a_while() {
    let harness = Harness::new();
    let store = Arc::new(Store { is_full: AtomicBool::new(true), ..Store::default() });
    let runs: Arc<AtomicU32> = Arc::default();
    let worker = harness.start(worker("w", &store, &runs));
    let job = harness.submit(&job(10)).await;
    let begun = tokio::time::Instant::now();
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.failed), (JobState::Failed, 10));
    assert!(begun.elapsed().as_secs() >= 300, "{:?}", begun.elapsed());
    assert_eq!(runs.load(Ordering::SeqCst), 10, "each subtask ran once");
    let errors = harness.ledger.errors(job, &ErrorsParams::new(0, 1)).await.expect("memory");
    assert!(errors[0].error.ends_with("no space left on device"), "{errors:?}");
    assert!(errors[0].error.starts_with("results: file:///results/"), "{errors:?}");
    worker.stop().await;
}
