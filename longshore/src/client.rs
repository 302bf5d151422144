//! The client of an application: connects, submits jobs, finds and lists them.
//!
//! Futures are boxed here and in the worker: in one piece they are so deep that applications would
//! need a higher `recursion_limit`.

use std::time::Duration;

use futures_util::FutureExt;
use longshore_protocol::JobId;

use crate::job::JobStatus;
use crate::{Config, Document, Error, Job};

/// Submits and finds jobs. Cheap to clone; all clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: longshore_producer::Client,
}

impl Client {
    /// Connects to RabbitMQ and Redis. Both have to be available now; later they may be away for a
    /// time.
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
        let settings = longshore_producer::Settings {
            amqp_url: config.amqp_url.clone(),
            redis_url: config.redis_url.clone(),
            namespace: config.namespace.clone(),
        };
        Ok(Self::new(longshore_producer::Client::connect(&settings).boxed().await?))
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
    pub async fn list(&self, finished: usize) -> Result<Vec<JobStatus>, Error> {
        let summaries = self.inner.jobs().recent(finished).await?;
        Ok(summaries.into_iter().map(JobStatus::from).collect())
    }
}
