//! How a worker stops subtasks: on cancel, pause, drain and outages of the ledger.

#[path = "harness/cuttable_ledger.rs"]
mod cuttable_ledger;
mod harness;
#[path = "harness/log.rs"]
mod log;
#[path = "harness/stuck_broker.rs"]
mod stuck_broker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longshore_broker::Queue;
use longshore_ledger::Cancelled;
use longshore_protocol::NodeState;
use longshore_protocol::state::JobState;
use longshore_worker::{Config, Context, TaskResult, TaskSpec, Worker};
use serde_json::{Value, json};
use tokio::sync::watch;

use cuttable_ledger::CuttableLedger;
use harness::{Harness, config, eventually};
use log::Log;
use stuck_broker::StuckBroker;

fn range(task: &str, end: u64, chunk: u64) -> Value {
    json!({"task": task, "split": {"by": "range", "start": 0, "end": end}, "chunk": chunk})
}

/// A task that counts how many of its subtasks began. A subtask ends when the gate is above its
/// input.
struct Gated {
    begun: Arc<AtomicU64>,
    gate: watch::Sender<u64>,
}

impl Gated {
    fn new(config: Config) -> (Self, Worker) {
        let (gate, reached) = watch::channel(0);
        let begun = Arc::new(AtomicU64::new(0));
        let count = begun.clone();
        let task = move |_: Context, n: u64| {
            let (count, mut reached) = (count.clone(), reached.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                reached.wait_for(|gate| *gate > n).await?;
                TaskResult::Ok(n)
            }
        };
        let worker = Worker::builder().config(config).task("gated", task).build();
        (Self { begun, gate }, worker.expect("a valid worker"))
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn open_to(&self, gate: u64) {
        self.gate.send_replace(gate);
    }
}

/// The hint that a job has ended may come before the answer to the last commit.
#[tokio::test]
async fn a_fully_committed_chunk_is_not_released() {
    let harness = Harness::new();
    let worker = Worker::builder().config(config()).build().expect("a valid worker");
    let ledger = CuttableLedger::new(harness.ledger.clone());
    let running = harness.start_with(worker, ledger.ledger());
    for _ in 0..100 {
        let job = harness.submit(&range("noop", 10, 5)).await;
        harness.ended(job).await;
    }
    running.stop().await;
    assert_eq!(ledger.released(), 0);
}

#[tokio::test]
async fn a_cancel_ends_the_process_group_of_a_command_within_a_second() {
    let harness = Harness::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "sleep 300 & echo $! > pid.new; mv pid.new pid; wait";
    let spec = json!({"command": ["sh", "-c", script], "cwd": folder.path()});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a valid spec");
    harness::prepare();
    // The heartbeat alone would be too late: the hint makes a cancel quick.
    let slow = Config { heartbeat: Duration::from_secs(2), ..config() };
    let builder = Worker::builder().config(slow).configured_task("long", spec);
    let worker = harness.start(builder.build().expect("a valid worker"));
    let job = harness.submit(&range("long", 1, 1)).await;
    let pid_file = folder.path().join("pid");
    eventually("the command runs", async || pid_file.exists()).await;
    let pid = std::fs::read_to_string(pid_file).expect("it is there").trim().to_owned();

    let cancelled = Instant::now();
    assert_eq!(harness.ledger.cancel(job).await.expect("it runs"), Cancelled::Ended);
    eventually("the grandchild is gone", async || !is_alive(&pid)).await;
    assert!(cancelled.elapsed() < Duration::from_secs(1), "it took {:?}", cancelled.elapsed());
    assert_eq!(harness.ended(job).await.counts.cancelled, 1);
    worker.stop().await;
}

/// Whether a process lives. A zombie does not.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
}

#[tokio::test]
async fn a_long_subtask_continues_while_its_acknowledgement_is_stuck() {
    let Harness { broker, ledger } = Harness::new();
    let harness = Harness { broker: Arc::new(StuckBroker(broker)), ledger };
    let ack_after = Duration::from_millis(50);
    let builder = Worker::builder().config(Config { ack_after, grace: ack_after, ..config() });
    let worker = harness.start(builder.build().expect("a valid worker"));
    let document = json!({"task": "sleep", "split": {"by": "items", "items": [200]}});
    let job = harness.submit(&document).await;
    assert_eq!(harness.ended(job).await.state, JobState::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_without_a_hint_arrives_with_the_heartbeat() {
    let harness = Harness::new();
    let (gated, worker) = Gated::new(config());
    let worker =
        harness.start_with(worker, CuttableLedger::without_hints(harness.ledger.clone()).ledger());
    let job = harness.submit(&range("gated", 10, 10)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    harness.ledger.cancel(job).await.expect("it runs");
    let node = &worker.id;
    eventually("the slot is free", async || {
        let nodes = harness.ledger.nodes().await.expect("memory");
        nodes.iter().any(|record| record.info.id == *node && record.info.busy == 0)
    })
    .await;
    assert_eq!(gated.begun(), 1, "no subtask began after the cancel");
    worker.stop().await;
}

#[tokio::test]
async fn a_pause_lets_the_running_subtask_finish_and_releases_the_rest() {
    let harness = Harness::new();
    let (gated, worker) = Gated::new(config());
    let worker = harness.start(worker);
    let total = 100_000;
    let job = harness.submit(&range("gated", total, total)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    harness.ledger.pause(job).await.expect("it runs");
    // Until the worker learns of the pause, it may begin more subtasks.
    let mut gate = 0;
    eventually("the rest is released", async || {
        gate += 1;
        gated.open_to(gate);
        harness.job(job).await.counts.running == 0
    })
    .await;
    let done = harness.job(job).await.counts.done;
    assert!((1..total).contains(&done), "{done} are done");
    assert_eq!(gated.begun(), done, "all begun subtasks were finished and committed");
    gated.open_to(total);
    harness.ledger.resume(job).await.expect("it is paused");
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts), (total, total));
    worker.stop().await;
}

#[tokio::test]
async fn a_drain_finishes_the_running_subtask_and_releases_the_rest() {
    let harness = Harness::new();
    let (gated, first) = Gated::new(config());
    let first = harness.start(first);
    let job = harness.submit(&range("gated", 10, 10)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    first.shutdown.cancel();
    eventually("it drains", async || {
        let nodes = harness.ledger.nodes().await.expect("memory");
        nodes.iter().all(|record| record.info.state == NodeState::Draining)
    })
    .await;
    gated.open_to(1);
    first.ended().await.expect("it stops as asked");
    let counts = harness.job(job).await.counts;
    assert_eq!((counts.done, counts.running), (1, 0));
    assert_eq!(harness.ledger.nodes().await.expect("memory"), [], "it has left");

    let (next, second) = Gated::new(config());
    next.open_to(10);
    let second = harness.start(second);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, next.begun()), (10, 10, 9));
    second.stop().await;
}

#[tokio::test]
async fn after_the_grace_the_running_subtask_is_stopped_and_released() {
    let harness = Harness::new();
    let (gated, worker) = Gated::new(Config { grace: Duration::from_millis(50), ..config() });
    let worker = harness.start(worker);
    let job = harness.submit(&range("gated", 10, 10)).await;
    gated.open_to(2);
    eventually("the third runs", async || gated.begun() == 3).await;
    worker.stop().await;
    let summary = harness.job(job).await;
    let counts = summary.counts;
    assert_eq!((counts.done, counts.running, counts.retrying, counts.failed), (2, 0, 0, 0));
    assert_eq!(harness.ledger.nodes().await.expect("memory"), [], "it has left");
}

#[tokio::test]
async fn a_drained_node_takes_nothing_until_it_is_undrained() {
    let harness = Harness::new();
    let (gated, worker) = Gated::new(config());
    let worker = harness.start(worker);
    let id = worker.id.clone();
    let state = async || {
        let nodes = harness.ledger.nodes().await.expect("memory");
        nodes.first().map(|node| node.info.state)
    };
    for round in 1..=2 {
        let begun = gated.begun();
        gated.open_to(0);
        let job = harness.submit(&range("gated", 4, 4)).await;
        eventually("a subtask runs", async || gated.begun() == begun + 1).await;
        assert!(harness.ledger.drain(&id).await.expect("memory"));
        eventually("it drains", async || state().await == Some(NodeState::Draining)).await;
        gated.open_to(4);
        eventually("it is drained", async || state().await == Some(NodeState::Drained)).await;
        assert_eq!(gated.begun(), begun + 1, "the rest was released, round {round}");
        assert_eq!(harness.job(job).await.counts.running, 0);
        assert!(harness.ledger.undrain(&id).await.expect("memory"));
        assert_eq!(harness.ended(job).await.counts.done, 4, "round {round}");
        assert_eq!(state().await, Some(NodeState::Active));
    }
    assert!(harness.ledger.drain(&id).await.expect("memory"));
    eventually("it is drained", async || state().await == Some(NodeState::Drained)).await;
    worker.stop().await;
    assert_eq!(harness.ledger.nodes().await.expect("memory"), [], "it has left");
}

#[tokio::test]
async fn a_short_outage_of_the_ledger_repeats_no_work() {
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let (gated, worker) = Gated::new(config());
    let worker = harness.start_with(worker, line.ledger());
    let job = harness.submit(&range("gated", 4, 4)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    line.cut(true);
    gated.open_to(4);
    eventually("all have run", async || gated.begun() == 4).await;
    line.cut(false);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, gated.begun()), (4, 4, 4));
    worker.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_ledger_is_logged_once_for_all_slots() {
    let log = Log::follow();
    let harness = Harness::new();
    let line = CuttableLedger::new(harness.ledger.clone());
    let (gated, worker) = Gated::new(Config { slots: 4, ..config() });
    let worker = harness.start_with(worker, line.ledger());
    for round in 1..=2 {
        let (begun, failed) = (gated.begun(), line.failed());
        gated.open_to(0);
        let job = harness.submit(&range("gated", 4, 1)).await;
        eventually("every slot is busy", async || gated.begun() == begun + 4).await;
        line.break_off(true);
        gated.open_to(4);
        // Each slot has tried more than once.
        eventually("calls fail", async || line.failed() >= failed + 12).await;
        assert_eq!(log.lines("the ledger is away").len(), round, "{:#?}", log.lines(""));
        line.break_off(false);
        assert_eq!(harness.ended(job).await.counts.done, 4);
        assert_eq!(log.lines("the ledger answers again").len(), round, "{:#?}", log.lines(""));
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_long_chunk_is_acknowledged_early() {
    let harness = Harness::new();
    let ack_after = Duration::from_millis(100);
    let (gated, worker) = Gated::new(Config { slots: 1, ack_after, ..config() });
    let worker = harness.start(worker);
    let job = harness.submit(&range("gated", 3, 1)).await;
    eventually("three chunks are open", async || harness.job(job).await.cursor == 3).await;
    // Two messages may be unsettled at a time. If none is ready, that of the running chunk is
    // settled.
    eventually("no message waits", async || {
        let depth = harness.broker.depth(&Queue::Work("default".into())).await.expect("memory");
        gated.begun() == 1 && depth.is_some_and(|depth| depth.ready == 0)
    })
    .await;
    assert_eq!(harness.job(job).await.counts.done, 0);
    gated.open_to(3);
    let summary = harness.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts), (3, 3));
    worker.stop().await;
}
