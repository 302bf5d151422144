//! Words in motion: queues of messages between applications, schedulers and workers.
//!
//! `rabbit` speaks AMQP to RabbitMQ and is the only code that names lapin; `memory` is the stand-in of the embedded
//! mode and of simulations. One conformance suite holds both to the behaviour that is described here.
//!
//! Deliberately absent: any knowledge of jobs. A message is a disposable hint; what it means is the ledger's.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod memory;
pub mod rabbit;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_protocol::{JournalPosition, NodeId};

/// A queue of one namespace. Declared by whoever publishes to it or consumes from it first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// `<ns>.jobs`: job documents from applications. Quorum, durable, bound to the exchange `<ns>` with key `jobs`.
    Jobs,
    /// `<ns>.waiting`: job documents that can't be judged yet, because what their globs name can't be reached. Quorum,
    /// durable.
    Waiting,
    /// `<ns>.dead`: what could not be accepted, with the reason in the header `reason`. Quorum, durable.
    Dead,
    /// `<ns>.work.<queue>`: chunks that wait for any worker of that pool. Durable; its kind is a setting.
    Work(String),
    /// `<ns>.node.<node>`: chunks placed on one worker. Exclusive to that worker's connection: it goes when the worker
    /// goes, or stops to consume. Never declared by a publish.
    Node(NodeId),
    /// `<ns>.journal`: a stream, durable. Published to like the others, but read with [`Broker::read_journal`] alone: its
    /// records stay where they are.
    Journal,
}

/// A message on its way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What is said.
    pub body: Bytes,
    /// Names the message to whoever gets it; returned messages are recognised by it. Drawn at random when absent.
    pub message_id: Option<String>,
    /// Headers, all of them strings.
    pub headers: Vec<(String, String)>,
}

/// Why a publish is not known to have worked. None of them says that the message did NOT arrive, but for `Unroutable`.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No queue took the message.
    #[error("no queue took the message for {0:?}")]
    Unroutable(Queue),
    /// A nack, a time-out, a connection that broke: the message may or may not have arrived.
    #[error("unknown whether the message arrived: {0}")]
    Unknown(String),
    /// RabbitMQ reads no messages while it is short of memory or disk space; these are its own words. The message may
    /// still arrive once that is over.
    #[error("RabbitMQ accepts no messages: {0}; free memory or disk space on its machine")]
    Blocked(String),
}

/// Why the broker could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached, or refuses us. The text names the address (never the password) and the reason.
    #[error("RabbitMQ at {address}: {reason}{}", advice(reason))]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the client library said, or a time-out.
        reason: String,
    },
    /// The address is not an AMQP URL.
    #[error("amqp_url: {0}")]
    BadUrl(String),
    /// The namespace is not one.
    #[error("{0}")]
    BadNamespace(String),
}

/// What to do about it, as the end of a sentence, where the words of the library or of RabbitMQ tell.
fn advice(reason: &str) -> &'static str {
    const HANGS_UP: &str = "; see whether RabbitMQ is what listens there, and its log";
    const ADVICE: [(&str, &str); 12] = [
        ("ACCESS_REFUSED", "; correct user and password in amqp_url"),
        (
            "NOT_ALLOWED",
            "; correct the virtual host in amqp_url, or create it and allow the user on it",
        ),
        ("Connection refused", "; start RabbitMQ, or correct amqp_url"),
        ("No route to host", "; start RabbitMQ, or correct amqp_url"),
        ("failed to lookup", "; correct the host in amqp_url"),
        (
            "connecting: no answer",
            "; see whether RabbitMQ hangs, and what the network between drops",
        ),
        (
            "no connection within",
            "; see whether RabbitMQ hangs, and what the network between drops",
        ),
        ("no answer within", "; see RabbitMQ's log: it hangs, or is short of memory or disk space"),
        ("onnection reset", HANGS_UP),
        ("onnection aborted", HANGS_UP),
        ("roken pipe", HANGS_UP),
        ("nexpected end of file", HANGS_UP),
    ];
    ADVICE.iter().find(|(word, _)| reason.contains(word)).map_or("", |(_, advice)| advice)
}

/// A message that arrived. Dropping it without settling it leaves it unacknowledged until the subscription ends;
/// then the broker delivers it again.
pub struct Delivery {
    /// What is said.
    pub body: Bytes,
    /// Whether it was delivered before, to us or to somebody else.
    pub redelivered: bool,
    /// The publisher's name for it.
    pub message_id: Option<String>,
    /// Text headers; others are left out.
    pub headers: Vec<(String, String)>,
    /// How to settle it.
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

/// Settles one delivery, once. Never fails: when the connection that brought the message is gone, the broker has
/// already put the message back, and there is nothing left to settle.
#[async_trait]
pub trait Settle: Send + Sync {
    /// The message is dealt with.
    async fn ack(self: Box<Self>);
    /// The message goes back to its queue, for somebody else.
    async fn requeue(self: Box<Self>);
}

/// Deliveries of one queue. Survives reconnects: the broker's own loop connects, declares and consumes again, and
/// unsettled deliveries of the broken connection come again. Dropping it cancels the consumer and puts back
/// what was fetched but not handed out; deliveries already handed out can still be settled.
#[async_trait]
pub trait Subscription: Send {
    /// The next delivery; waits through broken connections. `None` only once the broker has been closed.
    async fn next(&mut self) -> Option<Delivery>;
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Where it stands.
    pub place: JournalPosition,
    /// What it says.
    pub body: Bytes,
}

/// What a reader of the journal comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Reading begins here, or begins again after a broken connection: what is published from now on will be read.
    Attached,
    /// The next record.
    Entry(JournalEntry),
}

/// Why there is nothing more to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalEnd {
    /// The broker was closed.
    #[error("the broker was closed")]
    Closed,
    /// The record that was read last is not where it was: the journal was deleted, or so much of it that what follows can't
    /// be known.
    #[error("the journal is not the one that was read before")]
    Lost,
    /// The broker can't keep a journal.
    #[error("{0}")]
    Unsupported(String),
}

/// Reads the journal in order, each record once, through broken connections. Dropping it ends the reading.
#[async_trait]
pub trait JournalReader: Send {
    /// What comes next; waits for it. After an error there is nothing more. Safe to be dropped while it waits.
    async fn next(&mut self) -> Result<Reading, JournalEnd>;
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait to be delivered; those at a consumer, unacknowledged, are not counted.
    pub ready: u64,
    /// Consumers. A quorum queue counts a cancelled one until the last of its deliveries is settled.
    pub consumers: u64,
}

/// Whether the broker can be reached right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not connected; the loop keeps trying.
    Down,
}

/// A broker of messages, seen from one process. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Publishes and waits for the broker's confirm, at most some seconds; persistently, unless it is a chunk, which is a hint
    /// that the ledger can give again. Many may be in flight. Each
    /// publish is tried once: what follows an unknown outcome is the caller's to decide.
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError>;

    /// Starts to consume, with at most `prefetch` unsettled deliveries at a time. Comes back at once, also while
    /// the broker is down.
    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription>;

    /// Reads the journal: what follows `after`, or all that is left of it. Comes back at once, also while the broker is
    /// down. `None` from a broker that keeps no journal by its nature.
    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let _ = after;
        None
    }

    /// How full a queue is; `None` if it does not exist. A `Node` queue can be looked at by its own worker only.
    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error>;

    /// Throws away the messages that wait in a queue; of the journal, all of it: it begins anew.
    async fn purge(&self, queue: &Queue) -> Result<(), Error>;

    /// Follows the link. The first value is the current one.
    fn link(&self) -> tokio::sync::watch::Receiver<Link>;

    /// Settles what is on its way out, closes the connections and ends every subscription. Waits at most `grace`.
    async fn close(&self, grace: Duration);
}
