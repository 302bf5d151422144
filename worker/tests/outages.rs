//! Outages of the ledger: what a worker does while it can't reach the ledger, and afterwards.

#[path = "harness/cuttable_ledger.rs"]
mod cuttable_ledger;
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longshore_ledger::{LossCause, RevokeParams};
use longshore_protocol::state::JobState;
use longshore_worker::{Builder, Config, Context, Inputs, TaskResult, Worker};
use serde_json::{Value, json};
use tokio::sync::watch;

use cuttable_ledger::CuttableLedger;
use harness::{Harness, config, eventually};

const DEAD_AFTER: Duration = Duration::from_millis(400);

fn short_timeouts() -> Config {
    Config { dead_after: DEAD_AFTER, slots: 1, ..config() }
}

fn range(task: &str, end: u64, chunk: u64) -> Value {
    json!({"task": task, "split": {"by": "range", "start": 0, "end": end}, "chunk": chunk})
}

/// A task whose subtasks end when the gate is above their input, with results of a given size. It
/// counts how many began and how many were stopped.
#[derive(Clone)]
struct Gated {
    begun: Arc<AtomicU64>,
    stopped: Arc<AtomicU64>,
    gate: watch::Sender<u64>,
    bytes: usize,
}

impl Gated {
    fn new(bytes: usize) -> Self {
        let (begun, stopped) = (Arc::default(), Arc::default());
        Self { begun, stopped, gate: watch::Sender::new(0), bytes }
    }

    fn worker(&self, config: Config) -> Builder {
        let gated = self.clone();
        Worker::builder().config(config).task("gated", move |ctx: Context, n: u64| {
            let (gated, mut gate) = (gated.clone(), gated.gate.subscribe());
            async move {
                gated.begun.fetch_add(1, Ordering::SeqCst);
                tokio::select! {
                    () = ctx.cancelled() => drop(gated.stopped.fetch_add(1, Ordering::SeqCst)),
                    _ = gate.wait_for(|gate| *gate > n) => {}
                }
                TaskResult::Ok("x".repeat(gated.bytes))
            }
        })
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn stopped(&self) -> u64 {
        self.stopped.load(Ordering::SeqCst)
    }

    fn open_to(&self, gate: u64) {
        self.gate.send_replace(gate);
    }
}

/// Waits for well over `dead_after`.
async fn outlast() {
    let begun = Instant::now();
    eventually("the outage has lasted", async || begun.elapsed() > 3 * DEAD_AFTER).await;
}

#[tokio::test]
async fn in_an_outage_held_chunks_continue_and_no_subtask_begins_twice() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let gated = Gated::new(1);
    let worker = gated.worker(short_timeouts()).build().expect("a valid worker");
    let worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 8, 8)).await;
    eventually("the chunk runs", async || gated.begun() == 1).await;
    for broken in [true, false] {
        if broken {
            line.break_off(true);
        } else {
            line.cut(true);
        }
        outlast().await;
        gated.open_to(if broken { 3 } else { 6 });
        let begun = if broken { 4 } else { 7 };
        eventually("the next ones begin meanwhile", async || gated.begun() == begun).await;
        line.cut(false);
    }
    gated.open_to(8);
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 8));
    assert_eq!((summary.attempts, summary.fenced), (8, 0));
    assert_eq!((gated.begun(), gated.stopped(), line.released()), (8, 0, 0));
    worker.stop().await;
}

#[tokio::test]
async fn in_an_outage_a_chunk_waits_when_its_uncommitted_results_reach_the_limit() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let gated = Gated::new(100_000);
    let worker = gated.worker(short_timeouts()).build().expect("a valid worker");
    let worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 60, 60)).await;
    eventually("the chunk runs", async || gated.begun() == 1).await;
    line.cut(true);
    gated.open_to(60);
    outlast().await;
    // A commit of 256 KiB and one result is in flight, and a batch of the same size waits for it.
    eventually("several have ended", async || gated.begun() >= 4).await;
    outlast().await;
    assert!(gated.begun() <= 8, "{} began, and none was committed", gated.begun());
    line.cut(false);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, gated.begun()), (60, 60, 60));
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_was_cut_off_stops_revoked_subtasks_once_it_is_back() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let (lost, other) = (Gated::new(1), Gated::new(1));
    let worker = lost.worker(short_timeouts()).build().expect("a valid worker");
    let lost_worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 3, 3)).await;
    eventually("the chunk runs", async || lost.begun() == 1).await;
    line.cut(true);
    let taken = harness
        .ledger
        .revoke(job, &RevokeParams::new(lost_worker.id.clone(), LossCause::Vanished))
        .await
        .expect("memory");
    assert_eq!(taken.len(), 1);
    let other_worker = harness.start(other.worker(config()).build().expect("a valid worker"));
    outlast().await;
    assert_eq!(lost.stopped(), 0, "it has no reason so far");
    line.cut(false);
    eventually("it is stopped", async || lost.stopped() == 1).await;
    other.open_to(3);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, other.begun()), (3, 3, 3));
    assert_eq!(lost.begun(), 1, "nothing else of it began");
    lost_worker.stop().await;
    other_worker.stop().await;
}

#[tokio::test]
async fn an_exclusive_task_stops_before_its_worker_is_declared_lost() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let gated = Gated::new(1);
    let config = Config { dead_after: Duration::from_secs(2), ..short_timeouts() };
    let worker = gated.worker(config).exclusive("gated").build().expect("a valid worker");
    let worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 3, 3)).await;
    eventually("the chunk runs", async || gated.begun() == 1).await;
    line.cut(true);
    let cut = Instant::now();
    eventually("it stops by itself", async || gated.stopped() == 1).await;
    assert!(cut.elapsed() < Duration::from_secs(2), "after {:?}", cut.elapsed());
    assert_eq!(harness.job(job).await.counts.running, 3, "the ledger could not be told");
    gated.open_to(3);
    line.cut(false);
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 3));
    assert_eq!(summary.attempts, 3, "what was stopped did not count");
    worker.stop().await;
}

#[tokio::test]
async fn a_reduction_waits_for_results_that_can_not_be_read() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let gated = Gated::new(1);
    let adds = Arc::new(AtomicU64::new(0));
    let counts = adds.clone();
    let add = move |_: Context, all: Inputs<String>| {
        counts.fetch_add(1, Ordering::SeqCst);
        async move { TaskResult::Ok(all.inputs.len()) }
    };
    let worker = gated.worker(short_timeouts()).task("add", add).build().expect("a valid worker");
    let worker = harness.start_with(worker, line.ledger());
    let mut document = range("gated", 4, 4);
    document["reduce"] = json!({"task": "add", "fan_in": 4});
    line.hold_results(true);
    let job = harness.submit(&document).await;
    gated.open_to(4);
    eventually("the results are wanted", async || line.failed() > 2).await;
    outlast().await;
    line.hold_results(false);
    let summary = harness.ended(job).await;
    assert_eq!((summary.state, summary.attempts), (JobState::Succeeded, 5));
    assert_eq!((adds.load(Ordering::SeqCst), line.released()), (1, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_drain_in_an_outage_ends_with_its_grace() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let gated = Gated::new(1);
    let config = Config { grace: Duration::from_millis(300), ..short_timeouts() };
    let worker = gated.worker(config).build().expect("a valid worker");
    let worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 1, 1)).await;
    eventually("the chunk runs", async || gated.begun() == 1).await;
    line.break_off(true);
    gated.open_to(1);
    worker.shutdown.cancel();
    let asked = Instant::now();
    worker.ended().await.expect("it stops as asked");
    assert!(asked.elapsed() < Duration::from_secs(15), "it took {:?}", asked.elapsed());
    assert_eq!(
        harness.job(job).await.counts.running,
        1,
        "it is revoked after the silence of its node"
    );
}
