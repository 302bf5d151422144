//! A scheduler, workers, a broker and a ledger in one process, for the tests of applications.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use longshore_broker::Broker;
use longshore_broker::memory::MemoryBroker;
use longshore_ledger::Ledger;
use longshore_ledger::memory::{MemoryLedger, SystemClock};
use longshore_protocol::{ErrorKind, SchedulerId};
use longshore_scheduler::Scheduler;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{Client, Error, Worker};

/// A scheduler, workers, a broker and a ledger in this process, without services, for tests of an
/// application. They run the code that runs in production; messages and the state of jobs are in
/// memory, and end with the cluster.
///
/// ```
/// use longshore::{Context, Document, LocalCluster, Split, TaskResult, Worker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), longshore::Error> {
/// let worker = Worker::builder()
///     .task("length", |_: Context, text: String| async move { TaskResult::Ok(text.len()) })
///     .build()?;
/// let cluster = LocalCluster::start(worker);
/// let document = Document::new("length", Split::items(["a", "bc"])).reduce("sum");
/// let job = cluster.client().submit(&document).await?;
/// assert!(job.wait().await?.has_succeeded());
/// assert_eq!(job.value::<u64>().await?, 3);
/// # cluster.stop().await
/// # }
/// ```
pub struct LocalCluster {
    client: Client,
    broker: Arc<dyn Broker>,
    ledger: Arc<dyn Ledger>,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), Error>>,
    /// Stops everything when the cluster is dropped.
    _guard: DropGuard,
}

impl fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").field("client", &self.client).finish_non_exhaustive()
    }
}

impl LocalCluster {
    /// Starts a cluster with one worker. Needs a tokio runtime.
    pub fn start(worker: Worker) -> Self {
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(Arc::new(SystemClock)));
        let client = longshore_producer::Client::new(broker.clone(), ledger.clone());
        let shutdown = CancellationToken::new();
        let id = SchedulerId::new(format!("local-{}", Uuid::new_v4()));
        let config = longshore_scheduler::Config::new(id);
        let scheduler = Scheduler::new(config, broker.clone(), ledger.clone());
        let scheduler = scheduler.run(shutdown.clone()).boxed();
        let mut running = JoinSet::new();
        running.spawn(
            async move { scheduler.await.map_err(|error| Error::new(ErrorKind::Bug, error)) },
        );
        let guard = shutdown.clone().drop_guard();
        let client = Client::new(client);
        let mut cluster = Self { client, broker, ledger, shutdown, running, _guard: guard };
        cluster.add_worker(worker);
        cluster
    }

    /// Starts another worker.
    pub fn add_worker(&mut self, worker: Worker) {
        let (broker, ledger) = (self.broker.clone(), self.ledger.clone());
        let worker = worker.into_inner().run(broker, ledger, self.shutdown.clone()).boxed();
        self.running.spawn(async move { Ok(worker.await?) });
    }

    /// A client of the cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Lets running subtasks finish, and stops everything.
    ///
    /// # Errors
    /// The first error of the scheduler or a worker, which may have come earlier.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(Error::new(ErrorKind::Bug, error)));
            outcome = outcome.and(ended);
        }
        outcome
    }
}
