//! Test harness for workers: a broker and a ledger in memory, and a minimal scheduler.

#![expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_broker::memory::MemoryBroker;
use longshore_broker::{Broker, Outgoing, Queue};
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_ledger::{
    Admission, Admitted, ErrorsParams, Ledger, OpenParams, ResultsParams, SweepParams,
};
use longshore_protocol::document::Chunk;
use longshore_protocol::{ChunkMessage, JobDocument, JobId, JobSummary, Manifest, NodeId, Plan};
use longshore_worker::{AllowedRoots, CancellationToken, Config, Error, Worker};
use serde_json::Value;
use tokio::task::JoinHandle;

/// The time limit of all waits.
const LONG: Duration = Duration::from_secs(30);

pub struct Harness {
    pub broker: Arc<dyn Broker>,
    pub ledger: Arc<dyn Ledger>,
}

pub struct Running {
    pub id: NodeId,
    pub shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

/// A worker's settings for tests, with short intervals.
pub fn config() -> Config {
    Config {
        slots: 2,
        heartbeat: Duration::from_millis(50),
        dead_after: Duration::from_secs(5),
        commit_every: Duration::from_millis(20),
        ..Config::default()
    }
}

/// Waits for a condition; `what` describes it if the time limit passes.
#[track_caller]
pub fn eventually<'a>(
    what: &'a str,
    mut condition: impl AsyncFnMut() -> bool + 'a,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + LONG;
        while !condition().await {
            assert!(Instant::now() < deadline, "{caller}: waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Lets tests run commands. Their shims start in the test below.
pub fn prepare() {
    longshore_worker::init_with(["harness::a_shim_starts_here", "--exact"]);
}

#[test]
fn a_shim_starts_here() {
    prepare();
}

impl Harness {
    pub fn new() -> Self {
        Self {
            broker: Arc::new(MemoryBroker::new()),
            ledger: Arc::new(MemoryLedger::new(Arc::new(SystemClock))),
        }
    }

    pub fn start(&self, worker: Worker) -> Running {
        self.start_with(worker, self.ledger.clone())
    }

    /// Starts a worker with another connection to the ledger.
    pub fn start_with(&self, worker: Worker, ledger: Arc<dyn Ledger>) -> Running {
        let id = worker.id().clone();
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(worker.run(self.broker.clone(), ledger, shutdown.clone()));
        Running { id, shutdown, run }
    }

    /// Admits a job and feeds its chunks until it has ended.
    pub async fn submit(&self, document: &Value) -> JobId {
        let job = new_job();
        let size = self.admit(job, document, None).await;
        self.feed(job, size);
        job
    }

    /// Feeds the chunks of an admitted job until it has ended.
    pub fn feed(&self, job: JobId, size: u64) {
        tokio::spawn(feed(self.ledger.clone(), self.broker.clone(), job, size));
    }

    /// Admits a job; returns the size of its chunks.
    pub async fn admit(&self, job: JobId, document: &Value, open: Option<OpenParams>) -> u64 {
        let document = JobDocument::parse(document.to_string().as_bytes()).expect("it is valid");
        let manifest = longshore_storage::expand(files(&document), &AllowedRoots::default())
            .await
            .expect("the files exist");
        let plan = Plan::new(document.clone(), manifest.clone()).expect("it has subtasks");
        let admission = Admission { open, ..admission(job, &document, &manifest, plan.total()) };
        let admitted = self.ledger.admit(&admission).await.expect("memory");
        assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
        match document.chunk {
            Chunk::Fixed(size) => size,
            Chunk::Auto => 1,
        }
    }

    pub async fn job(&self, job: JobId) -> JobSummary {
        self.ledger.job(job).await.expect("memory").expect("the job is there")
    }

    #[track_caller]
    pub fn ended(&self, job: JobId) -> impl Future<Output = JobSummary> {
        let wait =
            eventually("the job ends", async move || self.job(job).await.state.is_terminal());
        async move {
            wait.await;
            let audit = self.ledger.audit(job).await.expect("memory").expect("the job is there");
            assert!(audit.is_clean(), "{:?}", audit.findings);
            self.job(job).await
        }
    }

    /// Waits until the only worker has sent two more heartbeats. A worker acts upon the answer to a
    /// heartbeat before it sends the next one.
    pub async fn two_heartbeats(&self) {
        let last = async || self.ledger.nodes().await.expect("memory")[0].beat_at;
        for _ in 0..2 {
            let before = last().await;
            eventually("a heartbeat arrives", async || last().await > before).await;
        }
    }

    /// The only error of a job that failed.
    pub async fn error(&self, job: JobId) -> String {
        let errors = self.ledger.errors(job, &ErrorsParams::new(0, 10)).await.expect("memory");
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].error.clone()
    }

    /// The results of `from..to`, one line for each subtask. Pointers to objects are not resolved.
    pub async fn results(&self, job: JobId, from: u64, to: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = from;
        while next < to {
            let page = self
                .ledger
                .results(job, &ResultsParams::new(next..to, 1 << 20))
                .await
                .expect("memory");
            for run in &page.runs {
                lines.extend(run.body.text().lines().map(str::to_owned));
            }
            next = page.next;
        }
        lines
    }
}

impl Running {
    /// Asks the worker to drain, and waits until it has stopped.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await.expect("it stops as asked");
    }

    /// Waits until the worker has stopped.
    pub async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(LONG, self.run).await.expect("it ends").expect("it does not panic")
    }
}

pub fn new_job() -> JobId {
    JobId::from_uuid(uuid::Uuid::now_v7())
}

fn files(document: &JobDocument) -> &[String] {
    use longshore_protocol::document::Split;
    match &document.split {
        Split::Lines { files, .. } | Split::Files { files } => files,
        _ => &[],
    }
}

fn admission(job: JobId, document: &JobDocument, manifest: &Manifest, total: u64) -> Admission {
    Admission {
        job,
        digest: document.digest(),
        document: document.to_json(),
        manifest: (!manifest.files.is_empty())
            .then(|| serde_json::to_string(manifest).expect("it is plain data")),
        total,
        task: document.task.clone(),
        queue: document.queue.clone(),
        tenant: document.tenant.clone(),
        name: document.name.clone(),
        labels: document.labels.clone(),
        priority: document.priority,
        fan_in: document.reduce.as_ref().map(|reduce| reduce.fan_in),
        max_parallel: document.max_parallel,
        stop_after_failures: document.stop_after_failures,
        deadline: document.deadline,
        keep_for: document.keep_for,
        left_out: manifest.left_out.clone(),
        open: None,
    }
}

/// A minimal scheduler: opens chunks, publishes them, and publishes chunks again that are queued
/// for too long.
async fn feed(ledger: Arc<dyn Ledger>, broker: Arc<dyn Broker>, job: JobId, size: u64) {
    let publish_within = Duration::from_secs(1);
    let open = OpenParams::new(4, size, publish_within);
    while let Ok(Some(sweep)) = ledger.sweep(job, &SweepParams::new(100, publish_within)).await {
        if sweep.summary.state.is_terminal() {
            return;
        }
        let mut publish = sweep.publish;
        if sweep.summary.queued_chunks < 4 {
            publish.extend(ledger.open(job, &open).await.expect("memory"));
        }
        for message in publish {
            publish_chunk(broker.as_ref(), &message).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn publish_chunk(broker: &dyn Broker, message: &ChunkMessage) {
    let body = serde_json::to_vec(message).expect("it is plain data").into();
    let message = Outgoing { body, ..Outgoing::default() };
    broker.publish(&Queue::Work("default".into()), message).await.expect("memory");
}
