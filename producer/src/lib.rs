//! The client library that applications embed: submits and lists jobs, lists and controls workers.
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
//! println!("{}: {} of {} done", end.state, end.counts.done, end.counts.total);
//!
//! futures_util::pin_mut!(results);
//! while let Some((index, value)) = results.try_next().await? {
//!     println!("{index}: {value}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: scheduling and running subtasks. A client publishes a document to the
//! broker and reads the ledger; schedulers and workers do the rest, on whatever machines they run.

mod bulk;
mod dead_letters;
mod error;
mod error_groups;
mod explain;
mod find;
mod hints;
mod job;
mod nodes;
mod queues;
mod results;
mod submit;
mod timers;
mod tokens;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
pub use longshore_ledger::Cancelled;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_ledger::{Ledger, ListParams};
pub use longshore_protocol::document::JobDocument;
pub use longshore_protocol::{BulkAction, BulkOutcome, BulkPlan, BulkResult, JobIdPrefix};
pub use longshore_protocol::{DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterPage};
pub use longshore_protocol::{ErrorKind, Problem};
pub use longshore_protocol::{JobCursor, JobFilter, JobPage, JobSummary, MAX_PAGE};
pub use longshore_protocol::{JobId, NodeId, NodeRecord};

pub use bulk::EmptyFilter;
pub use dead_letters::{DeadLetterError, DeadLetters, LetterSelection, is_id_of};
pub use error::{ConnectError, Error, NoValue, SubmitError};
pub use find::{FindError, JobKey};
pub use job::Job;
pub use nodes::Nodes;
pub use tokens::{ApiTokens, TokenError};

use hints::{Hints, JobHints};
use submit::{Submission, Verdict};

/// How long [`Client::submit`] waits for a scheduler to accept a job.
pub const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);

/// How long [`Client::connect`] waits for RabbitMQ.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// The addresses of the services.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL of RabbitMQ: `amqp://user:password@host:port/vhost`.
    pub amqp_url: String,
    /// The URL of Redis: `redis://…`, or the forms for Sentinel and Cluster.
    pub redis_url: String,
    /// The prefix of all names in both.
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
    /// Leaves out both URLs, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Finds, reads and controls jobs. Needs the ledger alone. Cheap to clone; all clones share their
/// connections.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    /// Subscribed to with the first wait.
    hints: OnceLock<Hints>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Jobs").field(&self.inner.ledger.describe()).finish()
    }
}

impl Jobs {
    /// The jobs of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { inner: Arc::new(Inner { ledger, hints: OnceLock::new() }) }
    }

    /// A job by its id. Does not check that the job exists.
    pub fn job(&self, id: JobId) -> Job {
        Job::new(self.clone(), id)
    }

    /// The summaries of the jobs that have not ended, in order of submission, and of up to
    /// `finished` of those that have, newest first.
    pub async fn recent(&self, finished: usize) -> Result<Vec<JobSummary>, Error> {
        let ledger = &self.inner.ledger;
        let mut ids = ledger.active_jobs().await?;
        for id in ledger.finished_jobs(finished).await? {
            // A job that has just ended may be in both lists.
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

    /// The jobs that the filter shows, newest first, at most `limit` of them (1 to [`MAX_PAGE`]).
    /// The next page begins behind the cursor that came with this one.
    pub async fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<JobCursor>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = JobPage { jobs: Vec::new(), next: cursor };
        loop {
            let wanted = limit - page.jobs.len();
            let params =
                ListParams { cursor: page.next, ..ListParams::new(filter.clone(), wanted) };
            let more = self.inner.ledger.list(&params).await?;
            page.jobs.extend(more.jobs);
            page.next = more.next;
            if page.next.is_none() || page.jobs.len() >= limit {
                return Ok(page);
            }
        }
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

/// Submits and finds jobs. Cheap to clone; all clones share their connections.
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
    /// A client of this broker and ledger, as in the embedded mode.
    pub fn new(broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        Self { jobs: Jobs::new(ledger), broker }
    }

    /// Connects to RabbitMQ and Redis. Both have to be available now; later they may be away for a
    /// time.
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

    /// Publishes the document and waits until the ledger shows that a scheduler accepted it, for up
    /// to [`ACCEPTED_WITHIN`]. Relative globs are resolved against the current directory. A
    /// document without an id gets a UUIDv7. To submit the same document with the same id again
    /// finds the same job, and does nothing else.
    pub async fn submit(&self, document: &JobDocument) -> Result<Job, SubmitError> {
        self.submit_within(document, ACCEPTED_WITHIN).await
    }

    /// [`Self::submit`] with another time-out.
    pub async fn submit_within(
        &self,
        document: &JobDocument,
        within: Duration,
    ) -> Result<Job, SubmitError> {
        Ok(self.submit_or_find(document, within).await?.0)
    }

    /// [`Self::submit_within`], and whether the job is new: `false` if the same document with the
    /// same id was accepted before.
    pub async fn submit_or_find(
        &self,
        document: &JobDocument,
        within: Duration,
    ) -> Result<(Job, bool), SubmitError> {
        let submission = Submission::new(document)?;
        let mut hints = self.jobs.hints(submission.job);
        let (broker, ledger) = (self.broker.as_ref(), self.jobs.ledger().as_ref());
        // The ledger can't know an id that was just drawn.
        let before = match document.id {
            Some(_) => {
                Some(submit::read_verdict(ledger, &submission).await.map_err(SubmitError::Ledger)?)
            }
            None => None,
        };
        match before {
            Some(Verdict::Accepted) => {
                return Ok((self.job(submission.job).accepted(None), false));
            }
            Some(Verdict::Conflict) => {
                return Err(SubmitError::Conflict { job: submission.job });
            }
            Some(Verdict::Unknown | Verdict::Rejected(_)) | None => {}
        }
        submit::publish(broker, &submission, within).await?;
        submit::await_verdict(broker, ledger, &submission, before.as_ref(), &mut hints, within)
            .await?;
        Ok((self.job(submission.job).accepted(Some(hints)), true))
    }

    /// Publishes the document without waiting for a scheduler: returns once the broker has
    /// confirmed it. [`Job::summary`] shows later whether it was accepted.
    pub async fn publish(&self, document: &JobDocument) -> Result<JobId, SubmitError> {
        let submission = Submission::new(document)?;
        submit::publish(self.broker.as_ref(), &submission, ACCEPTED_WITHIN).await?;
        Ok(submission.job)
    }

    /// A job by its id. Does not check that the job exists.
    pub fn job(&self, id: JobId) -> Job {
        self.jobs.job(id)
    }

    /// Finds, reads and controls jobs.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Lists and controls the workers.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(Arc::clone(self.jobs.ledger()))
    }

    /// Creates, lists and revokes the tokens of the HTTP API.
    pub fn tokens(&self) -> ApiTokens {
        ApiTokens::new(Arc::clone(self.jobs.ledger()))
    }

    /// The job documents that were refused.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(Arc::clone(&self.broker))
    }

    /// The broker that the client publishes to.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }
}
