//! The scheduler as a whole, on the memory ledger and the memory broker, with small workers that
//! claim and commit. Time is tokio's, paused, and the ledger's clock follows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore_broker::memory::MemoryBroker;
use longshore_broker::{Broker, Outgoing, Queue};
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_ledger::{Claim, Commit, Committed, Grant, Ledger};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, JobId, JobSummary, NodeId, NodeInfo, NodeState, Run, SchedulerId, Timestamp,
    Token, split_results,
};
use longshore_scheduler::{Config, Scheduler};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

/// What the workers make of a subtask: index and attempt to an outcome.
type Handler = fn(u64, u32) -> Run;

fn succeed(index: u64, _: u32) -> Run {
    Run::Success { count: 1, results: Some(format!("{index}\n")) }
}

fn fail_once(index: u64, attempt: u32) -> Run {
    match (index % 10, attempt) {
        (3, 1) => Run::Retry { error: "not yet".into(), delay: Duration::from_millis(700) },
        _ => succeed(index, attempt),
    }
}

struct World {
    ledger: Arc<dyn Ledger>,
    broker: Arc<dyn Broker>,
    tasks: BTreeMap<String, JoinHandle<()>>,
    stops: Vec<CancellationToken>,
    schedulers: Vec<JoinHandle<Result<(), longshore_scheduler::Error>>>,
}

static DRAWN: AtomicU32 = AtomicU32::new(1);

impl World {
    fn new() -> Self {
        let clock = Arc::new(TokioClock(Instant::now()));
        Self {
            ledger: Arc::new(MemoryLedger::new(clock)),
            broker: Arc::new(MemoryBroker::new()),
            tasks: BTreeMap::new(),
            stops: Vec::new(),
            schedulers: Vec::new(),
        }
    }

    /// One scheduler and two workers of four slots.
    fn usual(handler: Handler) -> Self {
        let mut world = Self::new();
        world.start_scheduler("s0");
        world.start_worker("w0", "default", 4, handler);
        world.start_worker("w1", "default", 4, handler);
        world
    }

    fn start_scheduler(&mut self, name: &str) {
        let stop = CancellationToken::new();
        let config = Config::new(SchedulerId::new(name));
        let scheduler = Scheduler::new(config, self.broker.clone(), self.ledger.clone());
        self.schedulers.push(tokio::spawn(scheduler.run(stop.clone())));
        self.stops.push(stop);
    }

    fn start_worker(&mut self, name: &str, queue: &str, slots: u32, handler: Handler) {
        let (ledger, broker) = (self.ledger.clone(), self.broker.clone());
        let info = NodeInfo {
            id: NodeId::new(name),
            host: "test".into(),
            pid: 1,
            version: "0".into(),
            queues: vec![queue.into()],
            tasks: vec!["noop".into()],
            labels: BTreeMap::new(),
            slots,
            busy: 0,
            state: NodeState::Active,
            started_at: Timestamp::default(),
            cpu: 0.0,
            rss: 0,
        };
        let work = async move {
            let mut lives = tokio::task::JoinSet::new();
            for slot in 0..slots {
                let own = if slot == 0 { Some(Queue::Node(info.id.clone())) } else { None };
                let from = [Some(Queue::Work(info.queues[0].clone())), own];
                for queue in from.into_iter().flatten() {
                    let (ledger, node) = (ledger.clone(), info.id.clone());
                    let mut messages = broker.subscribe(&queue, 1).await;
                    lives.spawn(async move {
                        while let Some(delivery) = messages.next().await {
                            let message: ChunkMessage =
                                serde_json::from_slice(&delivery.body).unwrap();
                            run(&*ledger, &node, message, handler).await;
                            delivery.settle.ack().await;
                        }
                    });
                }
            }
            for seq in 1.. {
                ledger.beat(&info, seq, &[]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        self.tasks.insert(name.to_owned(), tokio::spawn(work));
    }

    /// The worker stops in the middle of what it does.
    fn kill(&mut self, name: &str) {
        self.tasks.remove(name).expect("it runs").abort();
    }

    async fn publish(&self, document: impl Into<String>) {
        let body = document.into().into_bytes().into();
        let message = Outgoing { body, ..Outgoing::default() };
        self.broker.publish(&Queue::Jobs, message).await.unwrap();
    }

    /// Publishes a job of a range; `fields` are more fields of its document.
    async fn submit(&self, total: u64, fields: &str) -> JobId {
        let number = u128::from(DRAWN.fetch_add(1, Ordering::Relaxed));
        let job = JobId::from_uuid(uuid::Uuid::from_u128(number));
        let split = format!(r#"{{"by":"range","start":0,"end":{total}}}"#);
        self.publish(format!(r#"{{"id":"{job}","task":"noop","split":{split}{fields}}}"#)).await;
        job
    }

    #[track_caller]
    fn until<'a>(
        &'a self,
        job: JobId,
        what: &'a str,
        done: impl Fn(&JobSummary) -> bool + 'a,
    ) -> impl Future<Output = JobSummary> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            let mut seen = None;
            while start.elapsed() < Duration::from_secs(120) {
                seen = self.ledger.job(job).await.unwrap();
                if let Some(summary) = seen.take_if(|summary| done(summary)) {
                    return summary;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            panic!("{at}: waited for {what} of {job}: {seen:?}");
        }
    }

    /// Waits for the job's end, checks the books, and gives the summary.
    #[track_caller]
    fn ended(&self, job: JobId) -> impl Future<Output = JobSummary> + '_ {
        let end = self.until(job, "the end", |summary| summary.state.is_terminal());
        async move {
            let summary = end.await;
            assert_eq!(summary.books.imbalance(), 0);
            assert_eq!(summary.books.open(), 0);
            let audit = self.ledger.audit(job).await.unwrap().unwrap();
            assert!(audit.is_clean(), "{:?}", audit.findings);
            summary
        }
    }

    #[track_caller]
    fn succeeds(&self, job: JobId) -> impl Future<Output = JobSummary> + '_ {
        let end = self.ended(job);
        async move {
            let summary = end.await;
            assert_eq!(summary.state, JobState::Succeeded, "{:?}", summary.error);
            assert_eq!(summary.books.done, summary.books.total);
            summary
        }
    }

    async fn stop(self) {
        self.stops.iter().for_each(CancellationToken::cancel);
        for scheduler in self.schedulers {
            scheduler.await.unwrap().unwrap();
        }
        self.tasks.into_values().for_each(|task| task.abort());
    }
}

async fn run(ledger: &dyn Ledger, node: &NodeId, message: ChunkMessage, handler: Handler) {
    let token = Token::from_bytes(u128::from(DRAWN.fetch_add(1, Ordering::Relaxed)).to_be_bytes());
    let ChunkMessage { job, chunk, epoch, .. } = message;
    let claim = ledger.claim(job, chunk, epoch, token, node).await.unwrap();
    let Claim::Granted(Grant { from, to, attempt, .. }) = claim else { return };
    for index in from..to {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let runs = split_results(index, vec![handler(index, attempt)]);
        let commit = Commit { from: index, runs, busy: Duration::from_millis(5) };
        match ledger.commit(job, chunk, token, &commit).await.unwrap() {
            Committed::Settled { state: JobState::Paused } => {
                ledger.release(job, chunk, token).await.unwrap();
                return;
            }
            Committed::Settled { .. } => {}
            Committed::Fenced => return,
        }
    }
}

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
    world.until(job, "the retry's start", |summary| summary.books.retrying == 0).await;
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
async fn a_paused_job_rests_and_goes_on() {
    let world = World::usual(succeed);
    let job = world.submit(4_000, "").await;
    world.until(job, "some work", |summary| summary.books.done > 100).await;
    world.ledger.pause(job).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.ledger.job(job).await.unwrap().unwrap();
    assert_eq!(before.running_chunks, 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = world.ledger.job(job).await.unwrap().unwrap();
    assert_eq!(before.books, after.books);
    world.ledger.resume(job).await.unwrap();
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_worker_held_runs_elsewhere() {
    let mut world = World::usual(succeed);
    let job = world.submit(4_000, "").await;
    world.until(job, "some work", |summary| summary.books.done > 500).await;
    world.kill("w1");
    let summary = world.succeeds(job).await;
    assert!(summary.lost > 0);
    assert_eq!(world.ledger.nodes().await.unwrap().len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_are_placed_in_turn_and_by_key() {
    for placement in [r#""round_robin""#, r#"{"hash":""}"#] {
        let mut world = World::usual(succeed);
        let job = world.submit(600, &format!(r#","placement":{placement}"#)).await;
        world.until(job, "some work", |summary| summary.books.done > 100).await;
        world.kill("w0");
        world.succeeds(job).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_limit_of_failures_end_a_job() {
    let world = World::usual(|_, _| Run::Failed { error: "broken".into() });
    let job = world.submit(1_000_000, r#","stop_after_failures":7"#).await;
    assert_eq!(world.ended(job).await.state, JobState::Failed);
    let slow = world.submit(1_000_000, r#","deadline":"2s""#).await;
    let summary = world.ended(slow).await;
    assert_eq!(summary.error.as_deref(), Some("the deadline has passed"));
    world.stop().await;
}

/// A document that can't be accepted is found in the dead queue with its reason.
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
    // The next document is none the worse for it.
    world.start_worker("w0", "default", 1, succeed);
    let job = world.submit(3, "").await;
    world.succeeds(job).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_accepted_goes_to_the_dead_queue() {
    let id = "0193a0c5-7e1c-7000-8000-0000000000ff";
    let with_id = |rest: &str| format!(r#"{{"id":"{id}",{rest}}}"#);
    refused("no json at all", "not JSON", None).await;
    refused("{}", "task", None).await;
    refused(&with_id(r#""task":"noop","split":{"by":"ranges"}"#), "split.by", Some(id)).await;
    let relative = r#""task":"noop","split":{"by":"files","files":["data/*.txt"]}"#;
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
async fn another_job_with_the_same_id_is_refused_and_the_first_goes_on() {
    let world = World::usual(succeed);
    let job = world.submit(2_000, "").await;
    world.until(job, "some work", |summary| summary.books.done > 10).await;
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
    // One of them dies without a word; the other takes over.
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
