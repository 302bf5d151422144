//! The trait of a message broker: its queues, messages and errors, and how each call must behave.
//!
//! `rabbit` speaks AMQP to RabbitMQ and is the only code that uses lapin; `memory` serves the
//! embedded mode, tests and simulations. One conformance suite tests both for the behaviour that is
//! described here.
//!
//! Deliberately absent: any knowledge of jobs. A message is a hint that may be lost; the ledger
//! decides what it means.

mod browse;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod memory;
pub mod rabbit;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_protocol::{ErrorKind, JournalPosition, NodeId};

pub use browse::{Browsed, Browser};

/// A queue of one namespace. The first publisher or consumer declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// `<ns>.jobs`: job documents from applications. Quorum, durable, bound to the exchange `<ns>`
    /// with key `jobs`.
    Jobs,
    /// `<ns>.waiting`: job documents that can't be validated yet, because files or objects of their
    /// globs can't be reached. Quorum, durable.
    Waiting,
    /// `<ns>.dead`: job documents that could not be accepted, with the reason in the header
    /// `reason` and the time in `dead-at`. Quorum, durable.
    Dead,
    /// `<ns>.work.<queue>`: chunks for any worker of that pool. Durable; its kind is a setting.
    Work(String),
    /// `<ns>.node.<node>`: chunks placed on one worker. Exclusive to that worker's connection:
    /// RabbitMQ deletes it when the worker disconnects or stops consuming. Never declared by a
    /// publisher.
    Node(NodeId),
    /// `<ns>.journal`: a stream, durable. Published to like the other queues, but read with
    /// [`Broker::read_journal`] alone; reading removes nothing.
    Journal,
}

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The content.
    pub body: Bytes,
    /// Identifies the message to its receiver, and returned messages to the publisher. Drawn at
    /// random when absent.
    pub message_id: Option<String>,
    /// Headers; all values are strings.
    pub headers: Vec<(String, String)>,
}

/// Why a publish is not known to have worked. Only `Unroutable` says that the message did not
/// arrive.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The message was routed to no queue.
    #[error("the message for {0:?} was routed to no queue")]
    Unroutable(Queue),
    /// A nack, a time-out, a connection that broke: the message may or may not have arrived.
    #[error("unknown whether the message arrived: {reason}")]
    Unknown {
        /// The kind of failure.
        kind: ErrorKind,
        /// What the client library or RabbitMQ said, or a time-out.
        reason: String,
    },
    /// RabbitMQ reads no messages while it is short of memory or disk space; holds RabbitMQ's
    /// reason. The message may still arrive later.
    #[error("RabbitMQ accepts no messages: {0}; free memory or disk space on its machine")]
    Blocked(String),
}

/// Why a call to the broker failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RabbitMQ can't be reached, or refuses us. The text names the address (never the password)
    /// and the reason.
    #[error("RabbitMQ at {address}: {reason}{}", advice(*kind))]
    Unavailable {
        /// The kind of failure.
        kind: ErrorKind,
        /// Host and port.
        address: String,
        /// What the client library said, or a time-out.
        reason: String,
    },
    /// The address is not an AMQP URL.
    #[error("amqp_url: {0}")]
    BadUrl(String),
    /// A file for TLS can't be used.
    #[error(transparent)]
    BadFile(#[from] longshore_tls::FileError),
    /// The namespace can't be used.
    #[error("{0}")]
    BadNamespace(String),
}

impl Error {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { kind, .. } => *kind,
            Self::BadUrl(_) | Self::BadFile(_) | Self::BadNamespace(_) => ErrorKind::BadConfig,
        }
    }
}

impl PublishError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unroutable(_) => ErrorKind::NotFound,
            Self::Unknown { kind, .. } => *kind,
            Self::Blocked(_) => ErrorKind::Full,
        }
    }
}

/// What an operator can do about RabbitMQ, as the end of a sentence; empty where the kind of
/// failure does not tell.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unreachable => "; start RabbitMQ, or correct amqp_url",
        ErrorKind::Timeout => {
            "; see whether RabbitMQ hangs or is short of memory or disk space, and what the \
             network between drops"
        }
        ErrorKind::Disconnected => "; see whether RabbitMQ is what listens there, and its log",
        ErrorKind::LoginRefused => "; correct user and password in amqp_url",
        ErrorKind::Forbidden => {
            "; correct the virtual host in amqp_url, or create it and give the user the \
             permissions that docs/rabbitmq.md lists"
        }
        _ => "",
    }
}

/// A message that arrived. If it is dropped without being settled, it stays unacknowledged until
/// the subscription ends; then the broker delivers it again.
pub struct Delivery {
    /// The content.
    pub body: Bytes,
    /// Whether the message was delivered before, to this consumer or another one.
    pub redelivered: bool,
    /// The id that the publisher gave it.
    pub message_id: Option<String>,
    /// The headers whose values are text.
    pub headers: Vec<(String, String)>,
    /// Settles the delivery.
    pub settle: Box<dyn Settle>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("message_id", &self.message_id)
            .field("redelivered", &self.redelivered)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Settles one delivery, once. Never fails: when the connection of the delivery is gone, the broker
/// has requeued the message already, and there is nothing left to settle.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Acknowledges the message: it is processed.
    async fn ack(self: Box<Self>);
    /// Returns the message to its queue, for any consumer.
    async fn requeue(self: Box<Self>);
}

/// The deliveries of one queue. A subscription survives reconnects: the broker connects, declares
/// and consumes again, and delivers again what was unsettled on the broken connection. Dropping the
/// subscription cancels the consumer and requeues messages that were fetched but not handed out;
/// deliveries that were handed out can still be settled.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next delivery, through broken connections. `None` only once the broker has
    /// been closed.
    async fn next(&mut self) -> Option<Delivery>;
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The record's place in the journal.
    pub place: JournalPosition,
    /// The content.
    pub body: Bytes,
}

/// An event of reading the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Reading has begun, or begun again after a broken connection: records that are published from
    /// now on will be read.
    Attached,
    /// The next record.
    Entry(JournalEntry),
}

/// Why the journal can't be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalEnd {
    /// The broker was closed.
    #[error("the broker was closed")]
    Closed,
    /// The record that was read last is not in its place: the journal, or its beginning up to some
    /// later record, was deleted.
    #[error("the journal is not the one that was read before")]
    Lost,
    /// The broker can't keep a journal, for this reason.
    #[error("{0}")]
    Unsupported(String),
}

/// Reads the journal in order, each record once, through broken connections, until it is dropped.
#[async_trait]
pub trait JournalReader: Send {
    /// Waits for the next event. After an error there are no more. The future may be dropped while
    /// it waits.
    async fn next(&mut self) -> Result<Reading, JournalEnd>;
}

/// The messages and consumers of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait to be delivered; unacknowledged ones at a consumer are not counted.
    pub ready: u64,
    /// Consumers. A quorum queue counts a cancelled consumer until the last of its deliveries is
    /// settled.
    pub consumers: u64,
}

/// The state of the connection to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not connected; connecting is tried again.
    Down,
}

/// A message broker, seen from one process. Shared behind an `Arc`.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Publishes a message and waits for the broker's confirm, for at most some seconds. Messages
    /// are persistent, except chunk messages, which are hints that the ledger can issue again. Many
    /// publishes may be in flight. Each is tried once: the caller decides what follows an unknown
    /// outcome.
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError>;

    /// Starts to consume, with at most `prefetch` unsettled deliveries at a time. Returns at once,
    /// also while the broker is down.
    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription>;

    /// Reads the journal: the records after `after`, or all that it still has. Returns at once,
    /// also while the broker is down. `None` from a broker that keeps no journal by design.
    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let _ = after;
        None
    }

    /// The depth of a queue; `None` if the queue does not exist. Only its own worker can ask for
    /// the depth of a `Node` queue.
    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error>;

    /// Looks through the messages that wait in a queue. A queue that does not exist has none. Not
    /// for the journal, which [`Self::read_journal`] reads.
    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error>;

    /// Deletes the messages that wait in a queue. Of the journal, deletes everything.
    async fn purge(&self, queue: &Queue) -> Result<(), Error>;

    /// Follows the state of the connection. The first value is the current one.
    fn link(&self) -> tokio::sync::watch::Receiver<Link>;

    /// Waits for publishes and settlements that are in flight, for at most `grace`; then closes the
    /// connections and ends every subscription.
    async fn close(&self, grace: Duration);
}
