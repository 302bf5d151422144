//! The client of an application: submits jobs, finds and lists them, lists and controls workers.
//!
//! Futures are boxed here and in the worker: in one piece they are so deep that applications would
//! need a higher `recursion_limit`.

use std::time::Duration;

use futures_util::FutureExt;
use longshore_producer::ServerSettings;
use longshore_protocol::{BulkAction, JobId, NodeId};

use crate::bulk::{BulkOutcomes, BulkPlan};
use crate::dead_letters::DeadLetters;
use crate::job::JobStatus;
use crate::{Config, Document, Error, Job, JobCursor, JobFilter, JobPage, Node};

/// The most jobs that the plan of a bulk action shows.
const BULK_SAMPLE: usize = 10;

/// Submits and finds jobs, lists and controls workers. Cheap to clone; all clones share their
/// connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: longshore_producer::Client,
}

impl Client {
    /// Connects to RabbitMQ and Redis, or uses the [server](Config::server) of the configuration.
    /// Both services have to be available now; later they may be away for a time. A server is
    /// connected to with the first call.
    ///
    /// ```no_run
    /// use longshore::{Client, Config, Document, Split};
    ///
    /// # async fn example() -> Result<(), longshore::Error> {
    /// let client = Client::connect(&Config::from_env()?).await?;
    /// let document = Document::new("thumbnail", Split::files(["/photos/**/*.jpg"])).priority(8);
    /// let end = client.submit(&document).await?.wait().await?;
    /// println!("{}: {} of {} done", end.state, end.done, end.total);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        if let Some(url) = &config.server {
            let server =
                ServerSettings::new(url).token(config.token.clone()).tls(config.tls.clone());
            return Ok(Self::new(longshore_producer::Client::http(&server)?));
        }
        let settings = longshore_producer::Settings {
            amqp_url: config.amqp_url.clone(),
            redis_url: config.redis_url.clone(),
            tls: config.tls.clone(),
            namespace: config.namespace.clone(),
        };
        Ok(Self::new(longshore_producer::Client::connect(&settings).boxed().await?))
    }

    /// A client of the server of the HTTP API at this URL, such as `longshore dev` on this machine
    /// or `longshore api` of a fleet, without a token ([`Config::token`]). It has the same methods
    /// as a client that connects to RabbitMQ and Redis, and connects with the first call.
    ///
    /// ```no_run
    /// use longshore::{Client, Document, Split};
    ///
    /// # async fn example() -> Result<(), longshore::Error> {
    /// let client = Client::http("http://127.0.0.1:7700")?;
    /// let job = client.submit(&Document::new("sleep", Split::range(0..10))).await?;
    /// let (end, mut results) = job.outcome::<u64>().await?;
    /// println!("{}: {} of {} done", end.state, end.done, end.total);
    /// while let Some(result) = results.next().await {
    ///     println!("{}", result?.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`](crate::ErrorKind::BadConfig) for a URL that can't be used.
    pub fn http(url: impl Into<String>) -> Result<Self, Error> {
        Ok(Self::new(longshore_producer::Client::http(&ServerSettings::new(url))?))
    }

    pub(crate) fn new(inner: longshore_producer::Client) -> Self {
        Self { inner }
    }

    /// Submits a job and waits until a scheduler has accepted it, for up to 30 seconds. Relative
    /// globs are resolved against the current directory. A document without an [id](Document::id)
    /// gets a new one; to submit the same document with the same id again finds the same job, and
    /// does nothing else.
    pub async fn submit(&self, document: &Document) -> Result<Job, Error> {
        Ok(Job::new(self.inner.submit(&document.checked()?).boxed().await?))
    }

    /// [`Self::submit`] with another time-out.
    pub async fn submit_within(&self, document: &Document, limit: Duration) -> Result<Job, Error> {
        Ok(Job::new(self.inner.submit_within(&document.checked()?, limit).boxed().await?))
    }

    /// Publishes a job without waiting for a scheduler: returns once RabbitMQ has confirmed the
    /// message.
    pub async fn publish(&self, document: &Document) -> Result<Job, Error> {
        let id = self.inner.publish(&document.checked()?).boxed().await?;
        Ok(self.job(id))
    }

    /// A job by its id. Does not check that the job exists.
    pub fn job(&self, id: JobId) -> Job {
        Job::new(self.inner.job(id))
    }

    /// The jobs that have not ended, in order of submission, and up to `finished` of those that
    /// have, newest first.
    pub async fn recent(&self, finished: usize) -> Result<Vec<JobStatus>, Error> {
        let summaries = self.inner.jobs().recent(finished).await?;
        Ok(summaries.into_iter().map(JobStatus::from).collect())
    }

    /// The jobs that the filter shows, newest first, at most `limit` of them (1 to
    /// [`MAX_PAGE`](crate::MAX_PAGE)). The next page begins at the cursor that came with this one.
    ///
    /// ```no_run
    /// use longshore::{JobFilter, JobState};
    ///
    /// # async fn example(client: longshore::Client) -> Result<(), longshore::Error> {
    /// let filter = JobFilter::new().state(JobState::Failed).label("team", "imaging");
    /// let mut cursor = None;
    /// loop {
    ///     let page = client.list(&filter, cursor, 100).await?;
    ///     for job in &page.jobs {
    ///         println!("{}: {} of {} failed", job.id, job.failed, job.total);
    ///     }
    ///     cursor = page.next;
    ///     if cursor.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<JobCursor>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let cursor = cursor.map(|cursor| cursor.inner);
        Ok(self.inner.jobs().list(&filter.inner, cursor, limit).await?.into())
    }

    /// Carries out an action on each job that the filter shows, the newest first, and gives an
    /// outcome a job. A job whose state does not allow the action is skipped. Jobs that are
    /// submitted meanwhile are not touched. The work goes on while the stream is read; doing it all
    /// again is safe.
    ///
    /// ```no_run
    /// use longshore::{BulkAction, JobFilter, JobState};
    ///
    /// # async fn example(client: longshore::Client) -> Result<(), longshore::Error> {
    /// let filter = JobFilter::new().state(JobState::Failed).task("thumbnail");
    /// let plan = client.bulk_plan(BulkAction::Retry, &filter).await?;
    /// println!("{} of {} jobs", plan.allowed, plan.matched);
    /// let mut outcomes = client.bulk(BulkAction::Retry, &filter)?;
    /// while let Some(outcome) = outcomes.next().await {
    ///     let outcome = outcome?;
    ///     println!("{}: {:?}", outcome.id, outcome.result);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadInput`](crate::ErrorKind::BadInput) for a filter without a condition, which
    /// would take every job.
    pub fn bulk(&self, action: BulkAction, filter: &JobFilter) -> Result<BulkOutcomes, Error> {
        Ok(BulkOutcomes::new(self.inner.jobs().bulk(action, &filter.inner)?))
    }

    /// What [`Self::bulk`] would do now.
    ///
    /// # Errors
    /// As for [`Self::bulk`].
    pub async fn bulk_plan(
        &self,
        action: BulkAction,
        filter: &JobFilter,
    ) -> Result<BulkPlan, Error> {
        let plan = self.inner.jobs().bulk_plan(action, &filter.inner, BULK_SAMPLE)?;
        Ok(plan.boxed().await?.into())
    }

    /// The job documents that no scheduler accepted.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.inner.dead_letters())
    }

    /// The workers, by id: those that send heartbeats, and those that stopped and were not declared
    /// lost yet.
    ///
    /// ```no_run
    /// # async fn example(client: longshore::Client) -> Result<(), longshore::Error> {
    /// for node in client.nodes().await? {
    ///     println!("{}: {} of {} slots busy", node.host, node.busy, node.slots);
    ///     for task in &node.isolated {
    ///         println!("  out of rotation for {}: {}", task.task, task.reason);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let nodes = self.inner.nodes();
        let (records, now) = (nodes.list().await?, nodes.now().await?);
        Ok(records.into_iter().map(|record| Node::new(record, now)).collect())
    }

    /// Asks a worker to drain: it takes no new work, and finishes or releases what it has. Then its
    /// state is [`NodeState::Drained`](crate::NodeState::Drained), until [`Self::undrain`] or until
    /// it is stopped.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the worker is not listed.
    ///
    /// ```no_run
    /// use longshore::ErrorKind;
    ///
    /// # async fn example(client: longshore::Client) -> Result<(), longshore::Error> {
    /// for node in client.nodes().await?.iter().filter(|node| node.host == "rack7-3") {
    ///     match client.drain(&node.id).await {
    ///         // It has left meanwhile.
    ///         Err(error) if error.kind() == ErrorKind::NotFound => {}
    ///         outcome => outcome?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(&self, node: &NodeId) -> Result<(), Error> {
        Ok(self.inner.nodes().drain(node).await?)
    }

    /// Withdraws a drain: the worker takes work again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the worker is not listed.
    pub async fn undrain(&self, node: &NodeId) -> Result<(), Error> {
        Ok(self.inner.nodes().undrain(node).await?)
    }

    /// Puts a worker back into rotation for all of its tasks, after a repair.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the worker is not listed.
    pub async fn readmit(&self, node: &NodeId) -> Result<(), Error> {
        Ok(self.inner.nodes().readmit(node).await?)
    }
}
