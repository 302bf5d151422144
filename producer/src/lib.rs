//! The client library that applications embed: submit, wait, progress, results, control.
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use longshore_producer::{Client, JobDocument, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&Settings {
//!     amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
//!     redis_url: "redis://127.0.0.1:6379".into(),
//!     ..Settings::default()
//! })
//! .await?;
//!
//! let document = JobDocument::parse(
//!     br#"{"task": "thumbnail", "split": {"by": "files", "files": ["/photos/**/*.jpg"]}}"#,
//! )?;
//! let job = client.submit(&document).await?;
//! let (end, results) = job.outcome().await?;
//! println!("{}: {} of {} done", end.state, end.books.done, end.books.total);
//!
//! futures_util::pin_mut!(results);
//! while let Some((index, value)) = results.try_next().await? {
//!     println!("{index}: {value}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: scheduling and running. A client publishes a document to the broker and reads the ledger;
//! everything between is the business of schedulers and workers, wherever they are.

mod error;
mod hints;
mod job;
mod patience;
mod results;
mod submit;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
pub use longshore_ledger::Cancelled;
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
pub use longshore_protocol::document::JobDocument;
use longshore_protocol::{JobId, JobSummary};

pub use error::{ConnectError, Error, NoValue, SubmitError};
pub use job::Job;

use hints::{Hints, JobHints};
use submit::{Submission, Verdict};

/// How long [`Client::submit`] waits for a scheduler to accept a job.
pub const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);

/// How long [`Client::connect`] waits for RabbitMQ.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// Where the services are.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// RabbitMQ: `amqp://user:password@host:port/vhost`.
    pub amqp_url: String,
    /// Redis: `redis://…`, or the forms for Sentinel and Cluster.
    pub redis_url: String,
    /// What all names in both begin with.
    pub namespace: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            redis_url: "redis://127.0.0.1:6379".into(),
            namespace: "longshore".into(),
        }
    }
}

impl std::fmt::Debug for Settings {
    /// Both URLs may hold passwords, which have no business in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Finds jobs, reads them and controls them. Needs the ledger alone. Cheap to clone; all clones share their
/// connections.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    /// Followed from the first wait on.
    hints: OnceLock<Hints>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Jobs").field(&self.inner.ledger.describe()).finish()
    }
}

impl Jobs {
    /// In a ledger that is at hand.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { inner: Arc::new(Inner { ledger, hints: OnceLock::new() }) }
    }

    /// A job by its id. Does not look whether there is one.
    pub fn job(&self, id: JobId) -> Job {
        Job::new(self.clone(), id)
    }

    /// How the jobs stand that have not ended, in order of submission, then up to `finished` of those that have,
    /// newest first.
    pub async fn list(&self, finished: usize) -> Result<Vec<JobSummary>, Error> {
        let ledger = &self.inner.ledger;
        let mut ids = ledger.active_jobs().await?;
        for id in ledger.finished_jobs(finished).await? {
            // One that just ended may stand in both lists.
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mut summaries = Vec::with_capacity(ids.len());
        for id in ids {
            summaries.extend(ledger.job(id).await?);
        }
        Ok(summaries)
    }

    /// The ledger itself.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.inner.ledger
    }

    fn hints(&self, job: JobId) -> JobHints {
        let ledger = &self.inner.ledger;
        self.inner.hints.get_or_init(|| Hints::follow(Arc::clone(ledger))).of(job)
    }
}

/// Submits jobs, and finds them again. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    jobs: Jobs,
    broker: Arc<dyn Broker>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl Client {
    /// On a broker and a ledger that are at hand, as in the embedded mode.
    pub fn new(broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        Self { jobs: Jobs::new(ledger), broker }
    }

    /// On RabbitMQ and Redis; both have to be there now. Later on they may go and come back.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let ledger = redis::Config::new(&settings.redis_url, &settings.namespace);
        let ledger = RedisLedger::connect(ledger)?;
        let mut rabbit = rabbit::Config::new(&settings.amqp_url, "longshore producer");
        rabbit.namespace.clone_from(&settings.namespace);
        let rabbit = Rabbit::start(rabbit)?;
        rabbit.connected(CONNECTED_WITHIN).await?;
        ledger.now().await?;
        Ok(Self::new(Arc::new(rabbit), Arc::new(ledger)))
    }

    /// Publishes the document and waits until the ledger shows that a scheduler accepted it, for up to
    /// [`ACCEPTED_WITHIN`]. Relative globs are taken from the current directory. A document without an id gets a
    /// UUIDv7; with one, submitting the same document again finds the same job and does nothing else.
    pub async fn submit(&self, document: &JobDocument) -> Result<Job, SubmitError> {
        self.submit_within(document, ACCEPTED_WITHIN).await
    }

    /// [`Self::submit`] with a patience of one's own.
    pub async fn submit_within(
        &self,
        document: &JobDocument,
        within: Duration,
    ) -> Result<Job, SubmitError> {
        let submission = Submission::new(document)?;
        let mut hints = self.jobs.hints(submission.job);
        let (broker, ledger) = (self.broker.as_ref(), self.jobs.ledger().as_ref());
        // An id that was just drawn can't be known yet.
        let before = match document.id {
            Some(_) => Some(submit::look(ledger, &submission).await.map_err(SubmitError::Ledger)?),
            None => None,
        };
        match before {
            Some(Verdict::Accepted) => return Ok(self.job(submission.job).accepted(None)),
            Some(Verdict::Conflict) => {
                return Err(SubmitError::Conflict { job: submission.job });
            }
            Some(Verdict::Unknown | Verdict::Rejected(_)) | None => {}
        }
        submit::publish(broker, &submission, within).await?;
        submit::settled(broker, ledger, &submission, before.as_ref(), &mut hints, within).await?;
        Ok(self.job(submission.job).accepted(Some(hints)))
    }

    /// Publishes the document and forgets about it: returns once the broker has it safe. Whether a scheduler accepts
    /// it is for [`Job::summary`] to say, later.
    pub async fn publish(&self, document: &JobDocument) -> Result<JobId, SubmitError> {
        let submission = Submission::new(document)?;
        submit::publish(self.broker.as_ref(), &submission, ACCEPTED_WITHIN).await?;
        Ok(submission.job)
    }

    /// A job by its id. Does not look whether there is one.
    pub fn job(&self, id: JobId) -> Job {
        self.jobs.job(id)
    }

    /// The jobs, without the means to submit more.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The broker that the client publishes to.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }
}
