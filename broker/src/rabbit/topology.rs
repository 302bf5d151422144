//! Names and declarations of the exchange and the queues, and the encoding of messages.
//!
//! The only queue argument is `x-queue-type`; everything tunable is a policy, so that versions of
//! Longshore never conflict over a declaration. A queue of another kind, or one that this user may
//! not declare, is used as it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use parking_lot::Mutex;
use tracing::warn;
use uuid::Uuid;

use longshore_protocol::names::check_namespace;
use longshore_protocol::{ErrorKind, Timestamp};

use crate::{Depth, Error, Outgoing, PublishError, Queue};

use super::failure::{ACCESS_REFUSED, Failure, NOT_FOUND, PRECONDITION_FAILED};
use super::session::Session;
use super::{Config, WorkQueueKind};

/// AMQP's delivery mode of messages that a restart of the server may lose.
const TRANSIENT: u8 = 1;
/// AMQP's delivery mode of messages that survive a restart of the server.
const PERSISTENT: u8 = 2;
/// The routing key of job documents.
const JOBS_KEY: &str = "jobs";
/// The routing key of the probe that `longshore doctor` publishes. No queue is bound to it.
const PROBE_KEY: &str = "doctor";
/// The body of the probe. Not empty: a blocked connection shows only when RabbitMQ stops reading
/// before the body.
const PROBE: &[u8] = b"doctor";

/// The header of a dead letter that says when it was put into the queue, Unix milliseconds. A
/// letter that is put there again keeps it.
const DEAD_AT: &str = "dead-at";

/// The exchange and the queues of one namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Topology {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: String,
    work_queue_kind: WorkQueueKind,
    /// Queues of another kind that were warned about.
    warned: Mutex<HashSet<String>>,
}

/// A message with its exchange, routing key and AMQP properties.
pub(crate) struct EncodedMessage {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    pub(crate) id: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl WorkQueueKind {
    /// The kind, in RabbitMQ's terms.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

impl Topology {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let namespace = config.namespace.clone();
        check_namespace("namespace", &namespace)
            .map_err(|invalid| Error::BadNamespace(invalid.to_string()))?;
        let work_queue_kind = config.work_queue_kind;
        let warned = Mutex::default();
        Ok(Self { inner: Arc::new(Inner { namespace, work_queue_kind, warned }) })
    }

    pub(crate) fn name(&self, queue: &Queue) -> String {
        let namespace = &self.inner.namespace;
        match queue {
            Queue::Jobs => format!("{namespace}.jobs"),
            Queue::Waiting => format!("{namespace}.waiting"),
            Queue::Dead => format!("{namespace}.dead"),
            Queue::Work(pool) => format!("{namespace}.work.{pool}"),
            Queue::Node(node) => format!("{namespace}.node.{node}"),
            Queue::Journal => format!("{namespace}.journal"),
        }
    }

    /// The kind that the queue is declared as, in RabbitMQ's terms.
    pub(crate) fn kind(&self, queue: &Queue) -> &'static str {
        match queue {
            Queue::Jobs | Queue::Waiting | Queue::Dead => WorkQueueKind::Quorum.name(),
            Queue::Work(_) => self.inner.work_queue_kind.name(),
            // Exclusive queues are never replicated.
            Queue::Node(_) => WorkQueueKind::Classic.name(),
            Queue::Journal => "stream",
        }
    }

    /// Encodes a message for a queue. Job documents go through the exchange, to which other queues
    /// may be bound; everything else goes directly to its queue.
    pub(crate) fn encode(
        &self,
        queue: &Queue,
        message: Outgoing,
    ) -> Result<EncodedMessage, PublishError> {
        let bad = |e: lapin::types::ShortStringError| PublishError::Unknown {
            kind: ErrorKind::BadInput,
            reason: e.to_string(),
        };
        let (exchange, key) = match queue {
            Queue::Jobs => (self.inner.namespace.clone(), JOBS_KEY.to_owned()),
            _ => (String::new(), self.name(queue)),
        };
        let id = message.message_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut properties = BasicProperties::default()
            .with_delivery_mode(delivery_mode(queue))
            .with_content_type("application/json".into())
            .with_message_id(ShortString::try_new(id.as_str()).map_err(bad)?);
        let mut texts = message.headers;
        if *queue == Queue::Dead && !texts.iter().any(|(name, _)| name == DEAD_AT) {
            texts.push((DEAD_AT.to_owned(), now().to_string()));
        }
        if !texts.is_empty() {
            let mut headers = FieldTable::default();
            for (name, value) in texts {
                let name = ShortString::try_new(name).map_err(bad)?;
                headers.insert(name, AMQPValue::LongString(LongString::from(value)));
            }
            properties = properties.with_headers(headers);
        }
        let exchange = ShortString::try_new(exchange).map_err(bad)?;
        let key = ShortString::try_new(key).map_err(bad)?;
        Ok(EncodedMessage { exchange, key, id, properties, body: message.body })
    }

    /// Declares the queue, and for job documents the exchange.
    pub(crate) async fn declare(&self, session: &Session, queue: &Queue) -> Result<(), Failure> {
        let through_exchange = matches!(queue, Queue::Jobs);
        if through_exchange {
            self.declare_exchange(session).await?;
        }
        let name = short(self.name(queue))?;
        let declared = self.declare_queue(session, queue, name.clone(), false).await;
        match declared {
            Err(Failure::Refused { code: PRECONDITION_FAILED, text }) => {
                match self.declare_queue(session, queue, name.clone(), true).await {
                    // No queue of another kind exists: the server does not know the kind.
                    Err(Failure::Refused { code: NOT_FOUND, .. }) => {
                        return Err(Failure::Refused { code: PRECONDITION_FAILED, text });
                    }
                    other => other?,
                }
                self.warn_once(&name, &text);
            }
            Err(Failure::Refused { code: ACCESS_REFUSED, .. }) => {
                self.declare_queue(session, queue, name.clone(), true).await?;
            }
            other => other?,
        }
        if through_exchange { self.bind(session, name).await } else { Ok(()) }
    }

    async fn declare_queue(
        &self,
        session: &Session,
        queue: &Queue,
        name: ShortString,
        passive: bool,
    ) -> Result<(), Failure> {
        let of_node = matches!(queue, Queue::Node(_));
        let options = QueueDeclareOptions {
            passive,
            durable: !of_node,
            exclusive: of_node,
            auto_delete: of_node,
            nowait: false,
        };
        let mut arguments = FieldTable::default();
        let kind = LongString::from(self.kind(queue));
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind));
        let channel = session.channel().await?;
        let declare = channel.queue_declare(name, options, arguments);
        session.within("declaring a queue", declare).await.map(drop)
    }

    async fn declare_exchange(&self, session: &Session) -> Result<(), Failure> {
        let name = short(self.inner.namespace.clone())?;
        let declare = async |passive| {
            let channel = session.channel().await?;
            let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
            let kind = ExchangeKind::Direct;
            let declare = channel.exchange_declare(name.clone(), kind, options, no_arguments());
            session.within("declaring the exchange", declare).await
        };
        match declare(false).await {
            Err(Failure::Refused { code: ACCESS_REFUSED, .. }) => declare(true).await,
            other => other,
        }
    }

    async fn bind(&self, session: &Session, queue: ShortString) -> Result<(), Failure> {
        let channel = session.channel().await?;
        let exchange = short(self.inner.namespace.clone())?;
        let options = QueueBindOptions::default();
        let bind = channel.queue_bind(queue, exchange, JOBS_KEY.into(), options, no_arguments());
        match session.within("binding a queue", bind).await {
            // A user with more permissions has bound the queue; a missing binding shows as
            // Unroutable.
            Err(Failure::Refused { code: ACCESS_REFUSED, .. }) => Ok(()),
            other => other,
        }
    }

    fn warn_once(&self, queue: &ShortString, reason: &str) {
        if self.inner.warned.lock().insert(queue.to_string()) {
            warn!(%queue, reason, "the queue exists with other properties; using it as it is");
        }
    }

    pub(crate) async fn depth(&self, session: &Session, queue: &Queue) -> Result<Depth, Failure> {
        let channel = session.channel().await?;
        let name = short(self.name(queue))?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declare = channel.queue_declare(name, options, no_arguments());
        let found = session.within("asking for the depth of a queue", declare).await?;
        let (ready, consumers) = (found.message_count(), found.consumer_count());
        Ok(Depth { ready: ready.into(), consumers: consumers.into() })
    }

    /// Publishes a message that is routed to no queue, and waits for its confirm.
    pub(crate) async fn probe(&self, session: &Session) -> Result<(), Failure> {
        let channel = session.confirming_channel().await?;
        let exchange = short(self.inner.namespace.clone())?;
        let (key, options) = (ShortString::from(PROBE_KEY), BasicPublishOptions::default());
        let confirmed = async {
            let properties = BasicProperties::default().with_delivery_mode(TRANSIENT);
            channel.basic_publish(exchange, key, options, PROBE, properties).await?.await
        };
        session.within("publishing", confirmed).await.map(drop)
    }

    pub(crate) async fn purge(&self, session: &Session, queue: &Queue) -> Result<(), Failure> {
        let channel: Channel = session.channel().await?;
        if *queue == Queue::Journal {
            // A stream can't be emptied.
            let delete = channel.queue_delete(short(self.name(queue))?, Default::default());
            return session.within("deleting the journal", delete).await.map(drop);
        }
        let purge = channel.queue_purge(short(self.name(queue))?, QueuePurgeOptions::default());
        session.within("purging a queue", purge).await.map(drop)
    }

    /// Whether an existing queue is of the kind that it would be declared as.
    pub(crate) async fn is_of_its_kind(
        &self,
        session: &Session,
        queue: &Queue,
    ) -> Result<bool, Failure> {
        match self.declare_queue(session, queue, short(self.name(queue))?, false).await {
            Ok(()) => Ok(true),
            Err(Failure::Refused { code: PRECONDITION_FAILED, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "letters are dated by the clock of their publisher")]
fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn no_arguments() -> FieldTable {
    FieldTable::default()
}

/// Chunk messages are transient: the ledger holds every chunk, and the scheduler publishes it again
/// after a restart.
fn delivery_mode(queue: &Queue) -> u8 {
    match queue {
        Queue::Work(_) | Queue::Node(_) => TRANSIENT,
        Queue::Jobs | Queue::Waiting | Queue::Dead | Queue::Journal => PERSISTENT,
    }
}

pub(crate) fn short(name: String) -> Result<ShortString, Failure> {
    ShortString::try_new(name)
        .map_err(|e| Failure::Broken { kind: ErrorKind::BadInput, text: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_protocol::NodeId;

    #[track_caller]
    fn check(queue: &Queue, name: &str, exchange: &str, key: &str) {
        let topology = Topology::new(&Config::new("amqp://localhost", "test")).expect("valid");
        assert_eq!(topology.name(queue), name);
        let message = topology.encode(queue, Outgoing::default()).expect("encoded");
        assert_eq!((message.exchange.as_str(), message.key.as_str()), (exchange, key));
    }

    #[test]
    fn only_job_documents_go_through_the_exchange() {
        let node = Queue::Node(NodeId::new("quay-7"));
        check(&Queue::Jobs, "longshore.jobs", "longshore", "jobs");
        check(&Queue::Waiting, "longshore.waiting", "", "longshore.waiting");
        check(&Queue::Dead, "longshore.dead", "", "longshore.dead");
        check(&Queue::Work("gpu".to_owned()), "longshore.work.gpu", "", "longshore.work.gpu");
        check(&node, "longshore.node.quay-7", "", "longshore.node.quay-7");
        check(&Queue::Journal, "longshore.journal", "", "longshore.journal");
    }

    #[test]
    fn a_name_that_is_too_long_for_amqp_is_an_error() {
        let topology = Topology::new(&Config::new("amqp://localhost", "test")).expect("valid");
        let queue = Queue::Work("x".repeat(300));
        assert!(topology.encode(&queue, Outgoing::default()).is_err());
        let long_id = Outgoing { message_id: Some("x".repeat(300)), ..Outgoing::default() };
        assert!(topology.encode(&Queue::Jobs, long_id).is_err());
        let config = Config { namespace: String::new(), ..Config::new("amqp://localhost", "test") };
        assert!(Topology::new(&config).is_err());
    }
}
