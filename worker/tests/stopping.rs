//! How a worker stops: on cancel, on pause, and on drain.

#[path = "yard/log.rs"]
mod log;
#[path = "yard/severed.rs"]
mod severed;
#[path = "yard/stuck.rs"]
mod stuck;
mod yard;

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

use log::Log;
use severed::Severed;
use stuck::Stuck;
use yard::{Yard, config, eventually};

fn range(task: &str, end: u64, chunk: u64) -> Value {
    json!({"task": task, "split": {"by": "range", "start": 0, "end": end}, "chunk": chunk})
}

/// A task that counts how many of its subtasks began, and lets each end once the gate has reached
/// its input.
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
        (Self { begun, gate }, worker.expect("a good worker"))
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn open_to(&self, gate: u64) {
        self.gate.send_replace(gate);
    }
}

/// The hint that a job has ended may come before the answer to the commit that ended it.
#[tokio::test]
async fn what_was_committed_to_its_end_is_not_given_back() {
    let yard = Yard::new();
    let worker = Worker::builder().config(config()).build().expect("a good worker");
    let ledger = Severed::new(yard.ledger.clone());
    let running = yard.start_with(worker, ledger.ledger());
    for _ in 0..100 {
        let job = yard.submit(&range("noop", 10, 5)).await;
        yard.ended(job).await;
    }
    running.leave().await;
    assert_eq!(ledger.released(), 0);
}

#[tokio::test]
async fn a_cancel_ends_the_process_group_of_a_command_within_a_second() {
    let yard = Yard::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "sleep 300 & echo $! > pid.new; mv pid.new pid; wait";
    let spec = json!({"command": ["sh", "-c", script], "cwd": folder.path()});
    let spec: TaskSpec = serde_json::from_value(spec).expect("a good spec");
    yard::prepare();
    // The beat alone would be too late here: it is the hint that makes a cancel quick.
    let slow = Config { heartbeat: Duration::from_secs(2), ..config() };
    let builder = Worker::builder().config(slow).configured_task("long", spec);
    let worker = yard.start(builder.build().expect("a good worker"));
    let job = yard.submit(&range("long", 1, 1)).await;
    let pid_file = folder.path().join("pid");
    eventually("the command runs", async || pid_file.exists()).await;
    let pid = std::fs::read_to_string(pid_file).expect("it is there").trim().to_owned();

    let cancelled = Instant::now();
    assert_eq!(yard.ledger.cancel(job).await.expect("it runs"), Cancelled::Ended);
    eventually("the grandchild is gone", async || !is_alive(&pid)).await;
    assert!(cancelled.elapsed() < Duration::from_secs(1), "it took {:?}", cancelled.elapsed());
    assert_eq!(yard.ended(job).await.counts.cancelled, 1);
    worker.leave().await;
}

/// A zombie that nobody reaps is dead too.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
}

#[tokio::test]
async fn a_long_subtask_goes_on_while_its_acknowledgement_is_stuck() {
    let Yard { broker, ledger } = Yard::new();
    let yard = Yard { broker: Arc::new(Stuck(broker)), ledger };
    let ack_after = Duration::from_millis(50);
    let builder = Worker::builder().config(Config { ack_after, grace: ack_after, ..config() });
    let worker = yard.start(builder.build().expect("a good worker"));
    let document = json!({"task": "sleep", "split": {"by": "items", "items": [200]}});
    let job = yard.submit(&document).await;
    assert_eq!(yard.ended(job).await.state, JobState::Succeeded);
    worker.leave().await;
}

#[tokio::test]
async fn a_cancel_that_no_hint_told_of_arrives_with_the_beat() {
    let yard = Yard::new();
    let (gated, worker) = Gated::new(config());
    let worker = yard.start_with(worker, Severed::deaf(yard.ledger.clone()).ledger());
    let job = yard.submit(&range("gated", 10, 10)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    yard.ledger.cancel(job).await.expect("it runs");
    let node = &worker.id;
    eventually("the slot is free", async || {
        let nodes = yard.ledger.nodes().await.expect("memory");
        nodes.iter().any(|record| record.info.id == *node && record.info.busy == 0)
    })
    .await;
    assert_eq!(gated.begun(), 1, "nothing began after the cancel");
    worker.leave().await;
}

#[tokio::test]
async fn a_pause_lets_the_subtask_finish_and_hands_back_the_rest() {
    let yard = Yard::new();
    let (gated, worker) = Gated::new(config());
    let worker = yard.start(worker);
    let total = 100_000;
    let job = yard.submit(&range("gated", total, total)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    yard.ledger.pause(job).await.expect("it runs");
    // Until the worker hears of the pause, it may begin one subtask after the other.
    let mut gate = 0;
    eventually("the rest is handed back", async || {
        gate += 1;
        gated.open_to(gate);
        yard.job(job).await.counts.running == 0
    })
    .await;
    let done = yard.job(job).await.counts.done;
    assert!((1..total).contains(&done), "{done} are done");
    assert_eq!(gated.begun(), done, "what began was finished and committed");
    gated.open_to(total);
    yard.ledger.resume(job).await.expect("it is paused");
    let summary = yard.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts), (total, total));
    worker.leave().await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_hands_back_the_rest() {
    let yard = Yard::new();
    let (gated, first) = Gated::new(config());
    let first = yard.start(first);
    let job = yard.submit(&range("gated", 10, 10)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    first.shutdown.cancel();
    eventually("it drains", async || {
        let nodes = yard.ledger.nodes().await.expect("memory");
        nodes.iter().all(|record| record.info.state == NodeState::Draining)
    })
    .await;
    gated.open_to(1);
    first.ended().await.expect("it leaves as asked");
    let counts = yard.job(job).await.counts;
    assert_eq!((counts.done, counts.running), (1, 0));
    assert_eq!(yard.ledger.nodes().await.expect("memory"), [], "it was forgotten");

    let (next, second) = Gated::new(config());
    next.open_to(10);
    let second = yard.start(second);
    let summary = yard.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, next.begun()), (10, 10, 9));
    second.leave().await;
}

#[tokio::test]
async fn when_the_grace_is_over_what_runs_is_stopped_and_handed_back() {
    let yard = Yard::new();
    let (gated, worker) = Gated::new(Config { grace: Duration::from_millis(50), ..config() });
    let worker = yard.start(worker);
    let job = yard.submit(&range("gated", 10, 10)).await;
    gated.open_to(2);
    eventually("the third runs", async || gated.begun() == 3).await;
    worker.leave().await;
    let summary = yard.job(job).await;
    let counts = summary.counts;
    assert_eq!((counts.done, counts.running, counts.retrying, counts.failed), (2, 0, 0, 0));
    assert_eq!(yard.ledger.nodes().await.expect("memory"), [], "it was forgotten");
}

#[tokio::test]
async fn a_node_that_is_asked_to_drain_leaves() {
    let yard = Yard::new();
    let (_gated, worker) = Gated::new(config());
    let worker = yard.start(worker);
    let id = worker.id.clone();
    eventually("the node is known", async || yard.ledger.drain(&id).await.expect("memory")).await;
    worker.ended().await.expect("it leaves as asked");
    assert_eq!(yard.ledger.nodes().await.expect("memory"), [], "it was forgotten");
}

#[tokio::test]
async fn a_ledger_that_is_away_for_a_moment_costs_nothing() {
    let yard = Yard::new();
    let line = Severed::new(yard.ledger.clone());
    let (gated, worker) = Gated::new(config());
    let worker = yard.start_with(worker, line.ledger());
    let job = yard.submit(&range("gated", 4, 4)).await;
    eventually("a subtask runs", async || gated.begun() == 1).await;
    line.cut(true);
    gated.open_to(4);
    eventually("all have run", async || gated.begun() == 4).await;
    line.cut(false);
    let summary = yard.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts, gated.begun()), (4, 4, 4));
    worker.leave().await;
}

#[tokio::test]
async fn a_ledger_that_is_away_is_told_of_once_by_all_slots_together() {
    let log = Log::follow();
    let yard = Yard::new();
    let line = Severed::new(yard.ledger.clone());
    let (gated, worker) = Gated::new(Config { slots: 4, ..config() });
    let worker = yard.start_with(worker, line.ledger());
    for round in 1..=2 {
        let (begun, failed) = (gated.begun(), line.failed());
        gated.open_to(0);
        let job = yard.submit(&range("gated", 4, 1)).await;
        eventually("every slot is busy", async || gated.begun() == begun + 4).await;
        line.break_off(true);
        gated.open_to(4);
        // Each slot has asked more than once.
        eventually("questions fail", async || line.failed() >= failed + 12).await;
        assert_eq!(log.lines("the ledger is away").len(), round, "{:#?}", log.lines(""));
        line.break_off(false);
        assert_eq!(yard.ended(job).await.counts.done, 4);
        assert_eq!(log.lines("the ledger answers again").len(), round, "{:#?}", log.lines(""));
    }
    worker.leave().await;
}

#[tokio::test]
async fn a_long_chunk_is_acknowledged_early_so_that_the_broker_keeps_its_patience() {
    let yard = Yard::new();
    let ack_after = Duration::from_millis(100);
    let (gated, worker) = Gated::new(Config { slots: 1, ack_after, ..config() });
    let worker = yard.start(worker);
    let job = yard.submit(&range("gated", 3, 1)).await;
    eventually("three chunks are open", async || yard.job(job).await.cursor == 3).await;
    // Two messages may be unsettled at a time; that none waits means that the one that runs is
    // settled.
    eventually("no message waits", async || {
        let depth = yard.broker.depth(&Queue::Work("default".into())).await.expect("memory");
        gated.begun() == 1 && depth.is_some_and(|depth| depth.ready == 0)
    })
    .await;
    assert_eq!(yard.job(job).await.counts.done, 0);
    gated.open_to(3);
    let summary = yard.ended(job).await;
    assert_eq!((summary.counts.done, summary.attempts), (3, 3));
    worker.leave().await;
}
