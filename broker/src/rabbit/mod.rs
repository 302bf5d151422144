//! The broker over RabbitMQ (AMQP 0-9-1, lapin): its configuration, its two connections, its calls.
//!
//! ```text
//! publish() --> publisher (one task) --> publishing connection --> RabbitMQ
//!      ^ one answer per message <-- confirms, returns
//! Subscription <-- consumer (a task and a channel each) <-- consuming connection
//!      settle --> the channel that the delivery arrived on
//! JournalReader <-- reader (a task and a channel each) <-- consuming connection
//! ```
//!
//! A loop (`link`) supervises each connection: it connects, watches, and after any error closes and
//! connects again. The publisher and the consumers wait for the link, work on its session while
//! that is open, and start again on the next one.
//!
//! Deliberately absent: lapin's own recovery, which leaves confirms and consumers pending;
//! transactions; retries of publishes, since the caller decides what follows an unknown outcome.

mod address;
mod browse;
mod confirms;
mod consumer;
mod delivery_tracker;
mod examine;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod greeting;
mod journal;
mod link;
mod publisher;
mod retry;
mod sanitizer;
mod session;
mod topology;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Finding, JournalPosition};
use longshore_tls::TlsFiles;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::{
    Broker, Browser, Depth, Error, JournalReader, Link, Outgoing, PublishError, Queue, Subscription,
};

use self::address::Address;
use self::browse::RabbitBrowser;
use self::failure::Failure;
use self::link::Supervised;
use self::publisher::{Publisher, Request};
use self::session::Session;
use self::topology::Topology;

/// Publishes that wait for the publisher. Further callers wait for room, under the same time-out.
const WAITING_PUBLISHES: usize = 1_024;
/// How long the closing handshake of a connection may take before its socket is shut.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The time between two checks of why RabbitMQ is not ready.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// The kind of queue that a work queue is declared as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkQueueKind {
    /// Replicated, and written by a majority before each confirm; for clusters.
    Quorum,
    /// On one node; for a single broker. Decision record 0004 explains why it is the default.
    #[default]
    Classic,
}

/// The time-outs of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting, from the first packet to the open virtual host.
    pub connect: Duration,
    /// A publish, from the call to its confirm, the wait for a connection included.
    pub publish: Duration,
    /// Any other call: a declaration, an acknowledgement, a query.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let five = Duration::from_secs(5);
        Self { connect: five, publish: five, call: five }
    }
}

/// The address of RabbitMQ, and how to use it.
#[derive(Clone)]
pub struct Config {
    /// `amqp://user:password@host:5672/vhost`; `%2f`, and no virtual host at all, mean the virtual
    /// host `/`. `amqps` uses TLS. `?heartbeat=` in seconds, 10 if absent.
    pub url: String,
    /// The prefix of all names.
    pub namespace: String,
    /// The kind of the work queues.
    pub work_queue_kind: WorkQueueKind,
    /// The name of the connections in RabbitMQ's listings.
    pub name: String,
    /// Whom to trust and which certificate to present, with `amqps`.
    pub tls: TlsFiles,
    /// The time-outs of the steps.
    pub timeouts: Timeouts,
}

impl Config {
    /// A configuration with the namespace `longshore`, the default kind of work queue and the
    /// default time-outs.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "longshore".to_owned(),
            work_queue_kind: WorkQueueKind::default(),
            name: name.into(),
            tls: TlsFiles::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Checks the configuration as [`Rabbit::start`] does, without starting anything.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::BadNamespace`] and [`Error::BadFile`].
    pub fn check(&self) -> Result<(), Error> {
        self.parse()?;
        Ok(())
    }

    fn parse(&self) -> Result<(Address, Topology), Error> {
        let address = Address::parse(&self.url)?;
        self.tls.check()?;
        Ok((address, Topology::new(self)?))
    }
}

impl std::fmt::Debug for Config {
    /// Leaves out the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("namespace", &self.namespace)
            .field("work_queue_kind", &self.work_queue_kind)
            .field("name", &self.name)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// The connections of one process to RabbitMQ: one to publish, one to consume.
pub struct Rabbit {
    config: Config,
    address: Address,
    topology: Topology,
    publishing: Supervised,
    consuming: Supervised,
    requests: mpsc::Sender<Request>,
    link: watch::Receiver<Link>,
    /// Cancelled when no new work is accepted.
    closing: CancellationToken,
    /// Cancelled when the connections are to close.
    stop: CancellationToken,
    /// Publishes, settlements and consumers in flight.
    in_flight: TaskTracker,
    tasks: TaskTracker,
}

impl Rabbit {
    /// Checks the URL and connects in the background, and again whenever a connection breaks.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::BadNamespace`] and [`Error::BadFile`].
    pub fn start(config: Config) -> Result<Self, Error> {
        let (address, topology) = config.parse()?;
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let supervise = |role: &'static str| {
            Supervised::start(role, address.clone(), &config, stop.clone(), &tasks)
        };
        let (publishing, consuming) = (supervise("publishing"), supervise("consuming"));
        let (requests, waiting) = mpsc::channel(WAITING_PUBLISHES);
        let publisher = Publisher::new(publishing.follow(), topology.clone(), config.timeouts);
        tasks.spawn(publisher.run(waiting, stop.clone()));
        let (link_in, link) = watch::channel(Link::Down);
        tasks.spawn(follow_both(publishing.follow(), consuming.follow(), link_in));
        let in_flight = TaskTracker::new();
        Ok(Self {
            config,
            address,
            topology,
            publishing,
            consuming,
            requests,
            link,
            closing,
            stop,
            in_flight,
            tasks,
        })
    }

    /// Waits until both connections are open.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after `limit`, with the last failure to connect.
    pub async fn connected(&self, limit: Duration) -> Result<(), Error> {
        let mut link = self.link.clone();
        match timeout(limit, link.wait_for(|link| *link == Link::Up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.address.unavailable(&Failure::closed("the broker was closed"))),
            Err(_) => Err(self.not_connected(limit)),
        }
    }

    /// Waits until both connections are open, however long RabbitMQ is away. Each change is logged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when RabbitMQ refuses this user, since waiting does not help then,
    /// and when the broker is closed.
    pub async fn ready(&self) -> Result<(), Error> {
        loop {
            match self.connected(CHECK_EVERY).await {
                Err(error) if !error.kind().is_refusal() && !self.closing.is_cancelled() => {}
                outcome => return outcome,
            }
        }
    }

    /// The findings of `longshore doctor`: whether RabbitMQ can be reached, which step fails if
    /// not, its version, and the state of the queues of jobs, of dead letters and of the pools that
    /// are named.
    pub async fn examine(&self, pools: &[String]) -> Vec<Finding> {
        examine::examine(&self.address, &self.config, &self.topology, pools).await
    }

    /// Makes a call that may be repeated: where the connection breaks, once more over the next one,
    /// for as long as a call may take. `None` if the queue does not exist.
    async fn call<T, Answer: Future<Output = Result<T, Failure>>>(
        &self,
        call: impl Fn(Arc<Session>) -> Answer,
    ) -> Result<Option<T>, Error> {
        let limit = self.config.timeouts.call;
        let deadline = Instant::now() + limit;
        let mut link = self.consuming.follow();
        while let Ok(Some(session)) = timeout_at(deadline, link.up()).await {
            match call(session.clone()).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(Failure::Refused { code: failure::NOT_FOUND, .. }) => return Ok(None),
                Err(failure @ (Failure::Broken { .. } | Failure::Expelled { .. })) => {
                    session.fail(failure);
                }
                Err(failure) => return Err(self.address.unavailable(&failure)),
            }
        }
        Err(self.not_connected(limit))
    }

    /// The error of a connection that did not open within `limit`.
    fn not_connected(&self, limit: Duration) -> Error {
        let failure = self.publishing.last_failure().or_else(|| self.consuming.last_failure());
        let failure =
            failure.unwrap_or_else(|| Failure::too_late(format!("no connection within {limit:?}")));
        self.address.unavailable(&failure)
    }

    /// The error of a publish that was not confirmed in time.
    fn unconfirmed(&self) -> PublishError {
        let limit = self.config.timeouts.publish;
        if let Some(reason) = self.publishing.blocked() {
            return PublishError::Blocked(reason);
        }
        match self.publishing.last_failure() {
            Some(failure) => {
                let reason = self.address.explain(&failure);
                let reason = format!("not connected within {limit:?}: {reason}");
                PublishError::Unknown { kind: failure.kind(), reason }
            }
            None => Failure::too_late(format!("no confirm within {limit:?}")).into(),
        }
    }
}

/// Reports the link as up while both connections are.
async fn follow_both(
    mut publishing: link::Follower,
    mut consuming: link::Follower,
    link: watch::Sender<Link>,
) {
    loop {
        let up = publishing.is_up() && consuming.is_up();
        let now = if up { Link::Up } else { Link::Down };
        link.send_if_modified(|link| std::mem::replace(link, now) != now);
        let alive = tokio::select! {
            alive = publishing.changed() => alive,
            alive = consuming.changed() => alive,
        };
        if !alive {
            link.send_replace(Link::Down);
            return;
        }
    }
}

#[async_trait]
impl Broker for Rabbit {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        let closed = || PublishError::from(Failure::closed("the broker is closed"));
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        let _in_flight = self.in_flight.token();
        let message = Box::new(self.topology.encode(queue, message)?);
        let (reply, answer) = oneshot::channel();
        let request = Request { queue: queue.clone(), message, reply };
        let attempt = async {
            self.requests.send(request).await.map_err(|_| closed())?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        };
        timeout(self.config.timeouts.publish, attempt)
            .await
            .unwrap_or_else(|_| Err(self.unconfirmed()))
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        let consumer = consumer::Consumer {
            queue: queue.clone(),
            prefetch,
            link: self.consuming.follow(),
            topology: self.topology.clone(),
            call: self.config.timeouts.call,
            closing: self.closing.clone(),
            in_flight: self.in_flight.clone(),
        };
        Box::new(consumer.start())
    }

    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let reader = journal::Reader {
            after,
            link: self.consuming.follow(),
            topology: self.topology.clone(),
            call: self.config.timeouts.call,
            closing: self.closing.clone(),
            in_flight: self.in_flight.clone(),
        };
        Some(Box::new(reader.start()))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        self.call(|session| async move { self.topology.depth(&session, queue).await }).await
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error> {
        let opened = self
            .call(|session| async move {
                let channel = session.channel().await?;
                Ok((session, channel, topology::short(self.topology.name(queue))?))
            })
            .await?;
        let (session, channel, queue) =
            opened.ok_or_else(|| self.not_connected(self.config.timeouts.call))?;
        Ok(Box::new(RabbitBrowser {
            session,
            channel,
            queue,
            address: self.address.clone(),
            has_removed: false,
            _in_flight: self.in_flight.token(),
        }))
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        self.call(|session| async move { self.topology.purge(&session, queue).await }).await?;
        Ok(())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    async fn close(&self, grace: Duration) {
        self.closing.cancel();
        self.in_flight.close();
        let settled = timeout(grace, self.in_flight.wait()).await.is_ok();
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout(CLOSE_WITHIN * 2, self.tasks.wait()).await.is_ok();
        info!(address = %self.address, settled, ended, "connections to RabbitMQ closed");
    }
}

impl Drop for Rabbit {
    /// Dropping without closing stops everything; the outcome of what was in flight is unknown.
    fn drop(&mut self) {
        self.closing.cancel();
        self.stop.cancel();
    }
}
