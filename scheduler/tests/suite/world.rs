//! A whole fleet in one process and in paused time: schedulers, workers, ledger and broker.
//!
//! Ledger and broker are in memory; the workers are minimal: they claim and commit. The ledger's
//! clock follows tokio's time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore_broker::memory::MemoryBroker;
use longshore_broker::{Broker, Outgoing, Queue};
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_ledger::{
    BeatParams, Claim, ClaimParams, Commit, CommitParams, Committed, Grant, Ledger, ReleaseParams,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, JobId, JobSummary, NodeId, NodeInfo, OutcomeRun, SchedulerId, Timestamp, Token,
    split_results,
};
use longshore_scheduler::{Config, Expand, Scheduler};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::outage::Outage;

struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

/// The task of the workers: index and attempt to an outcome.
pub(crate) type Handler = fn(u64, u32) -> OutcomeRun;

pub(crate) fn succeed(index: u64, _: u32) -> OutcomeRun {
    OutcomeRun::Success { count: 1, results: Some(format!("{index}\n").into()) }
}

pub(crate) fn fail_once(index: u64, attempt: u32) -> OutcomeRun {
    match (index % 10, attempt) {
        (3, 1) => OutcomeRun::Retry { error: "not yet".into(), delay: Duration::from_millis(700) },
        _ => succeed(index, attempt),
    }
}

pub(crate) struct World {
    /// The ledger for the test itself, without outages.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The same ledger, for snapshots.
    pub(crate) memory: MemoryLedger,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) outage: Outage,
    /// Expands the globs of schedulers that are started from now on; `None` for the default.
    pub(crate) expand: Option<Expand>,
    tasks: BTreeMap<String, JoinHandle<()>>,
    pub(crate) stops: Vec<CancellationToken>,
    schedulers: Vec<JoinHandle<Result<(), longshore_scheduler::Error>>>,
}

static DRAWN: AtomicU32 = AtomicU32::new(1);

impl World {
    pub(crate) fn new() -> Self {
        Self::over(MemoryBroker::new())
    }

    /// A world whose broker has a journal.
    pub(crate) fn with_journal() -> Self {
        Self::over(MemoryBroker::with_journal())
    }

    fn over(broker: MemoryBroker) -> Self {
        let memory = MemoryLedger::new(Arc::new(TokioClock(Instant::now())));
        Self {
            ledger: Arc::new(memory.clone()),
            memory,
            broker: Arc::new(broker),
            outage: Outage::new(),
            expand: None,
            tasks: BTreeMap::new(),
            stops: Vec::new(),
            schedulers: Vec::new(),
        }
    }

    /// A world with one scheduler and two workers of four slots.
    pub(crate) fn usual(handler: Handler) -> Self {
        let mut world = Self::new();
        world.start_scheduler("s0");
        world.start_worker("w0", "default", 4, handler);
        world.start_worker("w1", "default", 4, handler);
        world
    }

    pub(crate) fn start_scheduler(&mut self, name: &str) {
        let stop = CancellationToken::new();
        let config = Config::new(SchedulerId::new(name));
        let broker = self.outage.broker(&self.broker);
        let mut scheduler = Scheduler::new(config, broker, self.outage.ledger(&self.ledger));
        if let Some(expand) = &self.expand {
            scheduler = scheduler.expanding(expand.clone());
        }
        self.schedulers.push(tokio::spawn(scheduler.run(stop.clone())));
        self.stops.push(stop);
    }

    pub(crate) fn start_worker(&mut self, name: &str, queue: &str, slots: u32, handler: Handler) {
        let (ledger, broker) = (self.outage.workers_ledger(&self.ledger), self.broker.clone());
        let info = NodeInfo {
            queues: vec![queue.into()],
            tasks: vec!["noop".into(), "sum".into()],
            slots,
            ..NodeInfo::new(NodeId::new(name))
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
            loop {
                let _ = ledger.beat(&BeatParams::new(info.clone(), [])).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        self.tasks.insert(name.to_owned(), tokio::spawn(work));
    }

    /// Kills the scheduler that was started last.
    pub(crate) async fn kill_scheduler(&mut self) {
        let scheduler = self.schedulers.pop().expect("one runs");
        self.stops.pop();
        scheduler.abort();
        let _ = scheduler.await;
    }

    /// Kills the worker.
    pub(crate) fn kill(&mut self, name: &str) {
        self.tasks.remove(name).expect("it runs").abort();
    }

    pub(crate) async fn publish(&self, document: impl Into<String>) {
        let body = document.into().into_bytes().into();
        let message = Outgoing { body, ..Outgoing::default() };
        self.broker.publish(&Queue::Jobs, message).await.unwrap();
    }

    /// Publishes a job with a range; `fields` are additional fields of its document.
    pub(crate) async fn submit(&self, total: u64, fields: &str) -> JobId {
        let number = u128::from(DRAWN.fetch_add(1, Ordering::Relaxed));
        let job = JobId::from_uuid(uuid::Uuid::from_u128(number));
        self.publish_again(job, total, fields).await;
        job
    }

    /// Publishes the same job again.
    pub(crate) async fn publish_again(&self, job: JobId, total: u64, fields: &str) {
        let split = format!(r#"{{"by":"range","start":0,"end":{total}}}"#);
        self.publish(format!(r#"{{"id":"{job}","task":"noop","split":{split}{fields}}}"#)).await;
    }

    /// Waits until the ledger knows the job.
    #[track_caller]
    pub(crate) fn until_there(&self, job: JobId) -> impl Future<Output = JobSummary> + '_ {
        self.until(job, "any trace", |_| true)
    }

    /// Waits until the job has ended. Misses the end if the job is removed soon after it.
    #[track_caller]
    pub(crate) fn terminal<'a>(
        &'a self,
        job: JobId,
        what: &'a str,
    ) -> impl Future<Output = JobSummary> + 'a {
        self.until(job, what, |summary| summary.state.is_terminal())
    }

    #[track_caller]
    pub(crate) fn until<'a>(
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

    /// Waits until the job has ended, checks that its counts balance, and returns its summary.
    #[track_caller]
    pub(crate) fn ended(&self, job: JobId) -> impl Future<Output = JobSummary> + '_ {
        let end = self.until(job, "the end", |summary| summary.state.is_terminal());
        async move {
            let summary = end.await;
            assert_eq!(summary.counts.imbalance(), 0);
            assert_eq!(summary.counts.open(), 0);
            let audit = self.ledger.audit(job).await.unwrap().unwrap();
            assert!(audit.is_clean(), "{:?}", audit.findings);
            summary
        }
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, job: JobId) -> impl Future<Output = JobSummary> + '_ {
        let end = self.ended(job);
        async move {
            let summary = end.await;
            assert_eq!(summary.state, JobState::Succeeded, "{:?}", summary.error);
            assert_eq!(summary.counts.done, summary.counts.total);
            summary
        }
    }

    pub(crate) async fn stop(self) {
        self.stops.iter().for_each(CancellationToken::cancel);
        for scheduler in self.schedulers {
            scheduler.await.unwrap().unwrap();
        }
        self.tasks.into_values().for_each(|task| task.abort());
    }
}

/// Repeats a call until the ledger answers.
async fn retry_until_answered<T, C: Future<Output = Result<T, longshore_ledger::Error>>>(
    call: impl Fn() -> C,
) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn run(ledger: &dyn Ledger, node: &NodeId, message: ChunkMessage, handler: Handler) {
    let token = Token::from_bytes(u128::from(DRAWN.fetch_add(1, Ordering::Relaxed)).to_be_bytes());
    let ChunkMessage { job, chunk, epoch, .. } = message;
    let params = ClaimParams::new(chunk, epoch, token, node.clone());
    let claim = retry_until_answered(|| ledger.claim(job, &params)).await;
    let Claim::Granted(Grant { from, to, attempt, .. }) = claim else { return };
    for index in from..to {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let runs = split_results(index, vec![handler(index, attempt)]);
        let commit = Commit::new(index, runs, Duration::from_millis(5));
        let params = CommitParams::new(chunk, token, commit);
        match retry_until_answered(|| ledger.commit(job, &params)).await {
            Committed::Settled { state: JobState::Paused } => {
                let params = ReleaseParams::new(chunk, token);
                retry_until_answered(|| ledger.release(job, &params)).await;
                return;
            }
            Committed::Settled { .. } => {}
            Committed::Fenced => return,
        }
    }
}
