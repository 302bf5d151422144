//! The client: connects, submits jobs, and gives the handles of all else.

use std::sync::Arc;
use std::time::Duration;

use longshore_broker::Broker;
use longshore_broker::rabbit::{self, Rabbit};
use longshore_ledger::Ledger;
use longshore_ledger::redis::{self, RedisLedger};
use longshore_protocol::JobId;
use longshore_protocol::document::JobDocument;
use longshore_protocol::wire::QueueView;
use longshore_tls::TlsFiles;

use crate::direct;
use crate::http::{self, Server};
use crate::{
    AllowedRoots, ApiTokens, ConnectError, DeadLetters, Error, Job, Jobs, Nodes, ServerSettings,
    SubmitError, Way,
};

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
    /// Whom to trust and which certificate to present, with TLS.
    pub tls: TlsFiles,
    /// The prefix of all names in both.
    pub namespace: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            redis_url: "redis://127.0.0.1:6379".into(),
            tls: TlsFiles::default(),
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

/// Submits and finds jobs. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    jobs: Jobs,
    way: Way<direct::Client, Server>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of this broker and ledger, as in the embedded mode.
    pub fn new(broker: Arc<dyn Broker>, ledger: Arc<dyn Ledger>) -> Self {
        let jobs = direct::Jobs::new(ledger);
        let client = direct::Client { jobs: jobs.clone(), broker };
        Self { jobs: Jobs { way: Way::Direct(jobs) }, way: Way::Direct(client) }
    }

    /// The same client, which reads results below these roots only ([`Jobs::within`]).
    #[must_use]
    pub fn within(self, roots: AllowedRoots) -> Self {
        match self.way {
            Way::Direct(client) => {
                let jobs = client.jobs.within(roots);
                let client = direct::Client { jobs: jobs.clone(), ..client };
                Self { jobs: Jobs { way: Way::Direct(jobs) }, way: Way::Direct(client) }
            }
            Way::Http(_) => self,
        }
    }

    /// Connects to RabbitMQ and Redis. Both have to be available now; later they may be away for a
    /// time.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let mut ledger = redis::Config::new(&settings.redis_url, &settings.namespace);
        ledger.tls.clone_from(&settings.tls);
        let ledger = RedisLedger::connect(ledger)?;
        let mut rabbit = rabbit::Config::new(&settings.amqp_url, "longshore producer");
        rabbit.namespace.clone_from(&settings.namespace);
        rabbit.tls.clone_from(&settings.tls);
        let rabbit = Rabbit::start(rabbit)?;
        rabbit.connected(CONNECTED_WITHIN).await?;
        ledger.now().await?;
        Ok(Self::new(Arc::new(rabbit), Arc::new(ledger)))
    }

    /// A client of a server of the HTTP API. Connects with the first call.
    ///
    /// # Errors
    /// [`ConnectError::Server`] if the settings can't be used.
    pub fn http(settings: &ServerSettings) -> Result<Self, ConnectError> {
        let server = Server::new(settings)?;
        let jobs = Jobs { way: Way::Http(http::jobs::Jobs::new(server.clone())) };
        Ok(Self { jobs, way: Way::Http(server) })
    }

    /// Submits the document and waits until a scheduler has accepted it, for up to
    /// [`ACCEPTED_WITHIN`]. Relative globs are resolved against the current directory. A document
    /// without an id gets a UUIDv7. To submit the same document with the same id again finds the
    /// same job, and does nothing else.
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
        match &self.way {
            Way::Direct(client) => {
                let (job, is_new) = client.submit_or_find(document, within).await?;
                Ok((Job { way: Way::Direct(job) }, is_new))
            }
            Way::Http(server) => {
                let (job, is_new) = http::submit::submit(server, document, within).await?;
                Ok((self.job(job), is_new))
            }
        }
    }

    /// Publishes the document without waiting for a scheduler: returns once RabbitMQ has confirmed
    /// it. [`Job::summary`] shows later whether it was accepted.
    pub async fn publish(&self, document: &JobDocument) -> Result<JobId, SubmitError> {
        match &self.way {
            Way::Direct(client) => client.publish(document).await,
            Way::Http(server) => http::submit::publish(server, document).await,
        }
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
        match &self.way {
            Way::Direct(client) => Nodes::new(Arc::clone(client.jobs.ledger())),
            Way::Http(server) => Nodes { way: Way::Http(http::nodes::Nodes::new(server.clone())) },
        }
    }

    /// The queues that have jobs or workers, by name; 1,000 at most.
    pub async fn queues(&self) -> Result<Vec<QueueView>, Error> {
        match &self.way {
            Way::Direct(client) => client.queues().await,
            Way::Http(server) => http::queues(server).await,
        }
    }

    /// The job documents that were refused.
    pub fn dead_letters(&self) -> DeadLetters {
        match &self.way {
            Way::Direct(client) => DeadLetters::new(Arc::clone(&client.broker)),
            Way::Http(server) => {
                let letters = http::dead_letters::DeadLetters::new(server.clone());
                DeadLetters { way: Way::Http(letters) }
            }
        }
    }

    /// Creates, lists and revokes the tokens of the HTTP API.
    pub fn tokens(&self) -> ApiTokens {
        match &self.way {
            Way::Direct(client) => ApiTokens::new(Arc::clone(client.jobs.ledger())),
            Way::Http(server) => {
                ApiTokens { way: Way::Http(http::tokens::ApiTokens::new(server.clone())) }
            }
        }
    }

    /// The broker that the client publishes to; `None` for the client of a server.
    pub fn broker(&self) -> Option<&Arc<dyn Broker>> {
        match &self.way {
            Way::Direct(client) => Some(&client.broker),
            Way::Http(_) => None,
        }
    }

    /// Closes the connection to RabbitMQ, if there is one, within this time.
    pub async fn close(&self, within: Duration) {
        if let Some(broker) = self.broker() {
            broker.close(within).await;
        }
    }
}
