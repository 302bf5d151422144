//! RabbitMQ over AMQP 0-9-1, through lapin.
//!
//! ```text
//! publish() --> lane (one task) --> publishing connection --> RabbitMQ
//!      ^ one answer a message <-- confirms, returns
//! Subscription <-- feed (one task each, a channel of its own) <-- consuming connection
//!      settle --> the channel that brought the delivery
//! JournalReader <-- reader (one task each, a channel of its own) <-- consuming connection
//! ```
//!
//! Each connection is supervised by a loop of ours (`link`): connect, run, and on any error tear down and begin again.
//! Lanes and feeds wait for the link, work on its session for as long as that lives, and begin anew on the next one.
//!
//! Deliberately absent: lapin's own recovery, which leaves confirms and consumers pending; transactions; retries of
//! publishes, since what follows an unknown outcome is the caller's to decide.

mod address;
mod attempts;
mod confirms;
mod examine;
mod failure;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod greeting;
mod journal;
mod lane;
mod link;
mod sanitizer;
mod session;
mod topology;
mod transport;
mod tray;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Finding, JournalPosition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::{
    Broker, Depth, Error, JournalReader, Link, Outgoing, PublishError, Queue, Subscription,
};

use self::address::Address;
use self::failure::Failure;
use self::lane::{Lane, Request};
use self::link::Supervised;
use self::session::Session;
use self::topology::Topology;

/// Publishes that wait for the lane to take them. More callers than this wait for their turn, under the same time-out.
const WAITING_PUBLISHES: usize = 1_024;
/// How long a connection may take to say good-bye before its socket is shut.
const GOODBYE: Duration = Duration::from_secs(2);

/// What kind of queue a work queue is declared as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkQueueKind {
    /// Replicated, written by a majority before each confirm; for clusters.
    Quorum,
    /// On one node; for a single broker. The decision record 0004 says why it is the default.
    #[default]
    Classic,
}

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first packet to an open virtual host.
    pub connect: Duration,
    /// A publish, from the call to its confirm, waiting for the link included.
    pub publish: Duration,
    /// Everything else: a declaration, an acknowledgement, a question.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let five = Duration::from_secs(5);
        Self { connect: five, publish: five, call: five }
    }
}

/// Where RabbitMQ is, and how to use it.
#[derive(Clone)]
pub struct Config {
    /// `amqp://user:password@host:5672/vhost`; `%2f` is the virtual host `/`, and so is none. `amqps` speaks TLS.
    /// `?heartbeat=` in seconds, 10 if absent.
    pub url: String,
    /// What all names start with.
    pub namespace: String,
    /// The kind of the work queues.
    pub work_queue_kind: WorkQueueKind,
    /// What RabbitMQ shows as the connections' name.
    pub name: String,
    /// How long each step may take.
    pub timeouts: Timeouts,
}

impl Config {
    /// The namespace `longshore`, the default kind of work queue and the default time-outs.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "longshore".to_owned(),
            work_queue_kind: WorkQueueKind::default(),
            name: name.into(),
            timeouts: Timeouts::default(),
        }
    }

    /// Says what [`Rabbit::start`] would say of it, without starting anything.
    ///
    /// # Errors
    /// For an address that can't be understood and a namespace that can't be used.
    pub fn check(&self) -> Result<(), Error> {
        Address::parse(&self.url)?;
        Topology::new(self)?;
        Ok(())
    }
}

impl std::fmt::Debug for Config {
    /// Without the URL, which holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("namespace", &self.namespace)
            .field("work_queue_kind", &self.work_queue_kind)
            .field("name", &self.name)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// A RabbitMQ, seen from one process: one connection to publish, one to consume.
pub struct Rabbit {
    config: Config,
    address: Address,
    topology: Topology,
    publishing: Supervised,
    consuming: Supervised,
    requests: mpsc::Sender<Request>,
    link: watch::Receiver<Link>,
    /// Cancelled when no new work is taken.
    closing: CancellationToken,
    /// Cancelled when the connections end.
    stop: CancellationToken,
    /// Publishes, settlements and feeds that are under way.
    underway: TaskTracker,
    tasks: TaskTracker,
}

impl Rabbit {
    /// Checks the URL and starts to connect in the background, and again whenever a connection breaks.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::BadUrl`] when the URL can't be understood.
    pub fn start(config: Config) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let topology = Topology::new(&config)?;
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let supervise = |role: &'static str| {
            Supervised::start(role, address.clone(), &config, stop.clone(), &tasks)
        };
        let (publishing, consuming) = (supervise("publishing"), supervise("consuming"));
        let (requests, waiting) = mpsc::channel(WAITING_PUBLISHES);
        let lane = Lane::new(publishing.follow(), topology.clone(), config.timeouts);
        tasks.spawn(lane.run(waiting, stop.clone()));
        let (link_in, link) = watch::channel(Link::Down);
        tasks.spawn(follow_both(publishing.follow(), consuming.follow(), link_in));
        let underway = TaskTracker::new();
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
            underway,
            tasks,
        })
    }

    /// Waits until both connections stand.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after `limit`, with the reason of the last failure.
    pub async fn connected(&self, limit: Duration) -> Result<(), Error> {
        let mut link = self.link.clone();
        match timeout(limit, link.wait_for(|link| *link == Link::Up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.address.unreachable("the broker was closed")),
            Err(_) => Err(self.unreachable(format!("no connection within {limit:?}"))),
        }
    }

    /// What `longshore doctor` says about RabbitMQ: whether it can be reached, which step fails if not, its version, and
    /// how the queues stand: jobs, dead letters, and the work queues of the pools named.
    pub async fn examine(&self, pools: &[String]) -> Vec<Finding> {
        examine::examine(&self.address, &self.config, &self.topology, pools).await
    }

    /// Asks what may be asked twice: where the connection breaks, once more over the next, for as long as a call may
    /// take. `None` where there is no such queue.
    async fn ask<T, Answer: Future<Output = Result<T, Failure>>>(
        &self,
        question: impl Fn(Arc<Session>) -> Answer,
    ) -> Result<Option<T>, Error> {
        let limit = self.config.timeouts.call;
        let deadline = Instant::now() + limit;
        let mut link = self.consuming.follow();
        while let Ok(Some(session)) = timeout_at(deadline, link.up()).await {
            match question(session.clone()).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(Failure::Refused { code: failure::NOT_FOUND, .. }) => return Ok(None),
                Err(failure @ (Failure::Broken(_) | Failure::Expelled { .. })) => {
                    session.fail(failure.to_string());
                }
                Err(failure) => return Err(self.address.unreachable(failure.to_string())),
            }
        }
        Err(self.unreachable(format!("no connection within {limit:?}")))
    }

    fn unreachable(&self, otherwise: String) -> Error {
        let reason = self.publishing.last_failure().or_else(|| self.consuming.last_failure());
        self.address.unreachable(reason.unwrap_or(otherwise))
    }

    fn unconfirmed(&self) -> PublishError {
        let limit = self.config.timeouts.publish;
        if let Some(reason) = self.publishing.blocked() {
            return PublishError::Blocked(reason);
        }
        PublishError::Unknown(match self.publishing.last_failure() {
            Some(reason) => format!("not connected within {limit:?}: {reason}"),
            None => format!("no confirm within {limit:?}"),
        })
    }
}

/// The link is up while both connections are.
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
        let closed = || PublishError::Unknown("the broker is closed".to_owned());
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        let _underway = self.underway.token();
        let message = Box::new(self.topology.address(queue, message)?);
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
        let feed = feed::Feed {
            queue: queue.clone(),
            prefetch,
            link: self.consuming.follow(),
            topology: self.topology.clone(),
            call: self.config.timeouts.call,
            closing: self.closing.clone(),
            underway: self.underway.clone(),
        };
        Box::new(feed.start())
    }

    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let reader = journal::Reader {
            after,
            link: self.consuming.follow(),
            topology: self.topology.clone(),
            call: self.config.timeouts.call,
            closing: self.closing.clone(),
            underway: self.underway.clone(),
        };
        Some(Box::new(reader.start()))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        self.ask(|session| async move { self.topology.depth(&session, queue).await }).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        self.ask(|session| async move { self.topology.purge(&session, queue).await }).await?;
        Ok(())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    async fn close(&self, grace: Duration) {
        self.closing.cancel();
        self.underway.close();
        let settled = timeout(grace, self.underway.wait()).await.is_ok();
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout(GOODBYE * 2, self.tasks.wait()).await.is_ok();
        info!(address = %self.address, settled, ended, "closed RabbitMQ");
    }
}

impl Drop for Rabbit {
    /// Dropping without closing leaves nothing running; what was on its way is unknown.
    fn drop(&mut self) {
        self.closing.cancel();
        self.stop.cancel();
    }
}
