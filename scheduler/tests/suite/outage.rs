//! A ledger and a broker that can be taken away, and that count what they are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longshore_broker::{Broker, Depth, Link, Outgoing, PublishError, Queue, Subscription};
use longshore_ledger::{
    Admission, Admitted, Beat, Claim, Commit, Committed, ControlError, Error, Events, HandBack,
    Held, Ledger, Open, Revoked, StoredDocument, Sweep,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, Finding, JobId, JobSummary, NodeId, NodeInfo,
    NodeRecord, ResultsPage, SchedulerId, Timestamp, Token,
};
use tokio::sync::watch;

/// How the ledger is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers.
    Well,
    /// It can't be reached.
    Away,
    /// It answers `admit` and `reject` with what makes no sense.
    Corrupt,
}

/// Takes the ledger and the broker away from schedulers and workers.
#[derive(Clone)]
pub(crate) struct Outage {
    ledger: watch::Sender<Health>,
    link: watch::Sender<Link>,
    asked: Arc<AtomicU64>,
    published: Arc<AtomicU64>,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            ledger: watch::Sender::new(Health::Well),
            link: watch::Sender::new(Link::Up),
            asked: Arc::default(),
            published: Arc::default(),
        }
    }

    pub(crate) fn set_ledger(&self, health: Health) {
        self.ledger.send_replace(health);
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// How often schedulers have asked the ledger anything.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// How often schedulers have tried to publish or to learn how full a queue is.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(crate) fn ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let (health, asked) = (self.ledger.subscribe(), self.asked.clone());
        Arc::new(Fickle { inner: inner.clone(), health, asked })
    }

    /// The same, whose calls are not counted.
    pub(crate) fn workers_ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let health = self.ledger.subscribe();
        Arc::new(Fickle { inner: inner.clone(), health, asked: Arc::default() })
    }

    pub(crate) fn broker(&self, inner: &Arc<dyn Broker>) -> Arc<dyn Broker> {
        let (link, published) = (self.link.subscribe(), self.published.clone());
        Arc::new(Severed { inner: inner.clone(), link, published })
    }
}

struct Fickle {
    inner: Arc<dyn Ledger>,
    health: watch::Receiver<Health>,
    asked: Arc<AtomicU64>,
}

impl Fickle {
    fn ask(&self, operation: &'static str) -> Result<(), Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let health = *self.health.borrow();
        match (health, operation) {
            (Health::Away, _) => {
                let (address, reason) = ("127.0.0.1:1".into(), "gone".into());
                Err(Error::Unavailable { address, reason })
            }
            (Health::Corrupt, "admit" | "reject") => {
                Err(Error::Corrupt { operation, detail: "a list where a hash was".into() })
            }
            (Health::Well | Health::Corrupt, _) => Ok(()),
        }
    }
}

/// Each operation: first whether the ledger is there, then the one that is wrapped.
macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Ledger for Fickle {
            $(async fn $name(&self, $($arg: $type),*) -> $answer {
                self.ask(stringify!($name))?;
                self.inner.$name($($arg),*).await
            })*

            async fn examine(&self) -> Vec<Finding> {
                self.inner.examine().await
            }

            fn separate(&self) -> Arc<dyn Ledger> {
                self.inner.separate()
            }

            fn describe(&self) -> String {
                self.inner.describe()
            }
        }
    };
}

pass_on! {
    admit(admission: &Admission) -> Result<Admitted, Error>;
    reject(job: JobId, error: &str) -> Result<(), Error>;
    open(job: JobId, open: &Open) -> Result<Vec<ChunkMessage>, Error>;
    claim(job: JobId, chunk: ChunkId, epoch: Epoch, token: Token, node: &NodeId)
        -> Result<Claim, Error>;
    commit(job: JobId, chunk: ChunkId, token: Token, commit: &Commit) -> Result<Committed, Error>;
    release(job: JobId, chunk: ChunkId, token: Token) -> Result<HandBack, Error>;
    revoke(job: JobId, node: &NodeId, died: bool) -> Result<Vec<Revoked>, Error>;
    holders(job: JobId) -> Result<Vec<NodeId>, Error>;
    sweep(job: JobId, limit: u32, publish_within: Duration) -> Result<Option<Sweep>, Error>;
    pause(job: JobId) -> Result<JobState, ControlError>;
    resume(job: JobId) -> Result<JobState, ControlError>;
    cancel(job: JobId) -> Result<JobState, ControlError>;
    fail(job: JobId, error: &str) -> Result<JobState, ControlError>;
    retry(job: JobId, indices: Option<&[u64]>) -> Result<JobState, ControlError>;
    delete(job: JobId) -> Result<(), ControlError>;
    job(job: JobId) -> Result<Option<JobSummary>, Error>;
    active_jobs() -> Result<Vec<JobId>, Error>;
    finished_jobs(limit: usize) -> Result<Vec<JobId>, Error>;
    archive(job: JobId) -> Result<(), Error>;
    document(job: JobId) -> Result<Option<StoredDocument>, Error>;
    results(job: JobId, from: u64, to: u64, max_bytes: u64) -> Result<ResultsPage, Error>;
    errors(job: JobId, from: u64, limit: usize) -> Result<Vec<ErrorEntry>, Error>;
    audit(job: JobId) -> Result<Option<Audit>, Error>;
    beat(info: &NodeInfo, seq: u64, held: &[Held]) -> Result<Beat, Error>;
    nodes() -> Result<Vec<NodeRecord>, Error>;
    drain(node: &NodeId) -> Result<bool, Error>;
    forget(node: &NodeId) -> Result<(), Error>;
    attend(scheduler: &SchedulerId, within: Duration) -> Result<Vec<SchedulerId>, Error>;
    withdraw(scheduler: &SchedulerId) -> Result<(), Error>;
    events() -> Result<Box<dyn Events>, Error>;
    now() -> Result<Timestamp, Error>;
}

struct Severed {
    inner: Arc<dyn Broker>,
    link: watch::Receiver<Link>,
    published: Arc<AtomicU64>,
}

impl Severed {
    fn is_up(&self) -> bool {
        self.published.fetch_add(1, Ordering::Relaxed);
        *self.link.borrow() == Link::Up
    }

    fn gone() -> longshore_broker::Error {
        let (address, reason) = ("127.0.0.1:2".into(), "gone".into());
        longshore_broker::Error::Unreachable { address, reason }
    }
}

#[async_trait]
impl Broker for Severed {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        if !self.is_up() {
            return Err(PublishError::Unknown("gone".into()));
        }
        self.inner.publish(queue, message).await
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        self.inner.subscribe(queue, prefetch).await
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, longshore_broker::Error> {
        if !self.is_up() {
            return Err(Self::gone());
        }
        self.inner.depth(queue).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), longshore_broker::Error> {
        self.inner.purge(queue).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    async fn close(&self, grace: Duration) {
        self.inner.close(grace).await;
    }
}
