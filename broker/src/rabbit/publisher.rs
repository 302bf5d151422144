//! The one task that publishes: it owns the channel and answers each publish by its confirm.
//!
//! There is one task, because lapin counts a publish before it queues the publish's frames: two
//! tasks on one channel could interleave in between and receive each other's confirm. Many
//! publishes are in flight at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use longshore_protocol::ErrorKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{PublishError, Queue};

use super::Timeouts;
use super::confirms::{Confirms, Label, Verdict};
use super::failure::Failure;
use super::link::Follower;
use super::session::Session;
use super::topology::{EncodedMessage, Topology};

/// Publishes in flight. Beyond this RabbitMQ itself is the bottleneck, and more would only lengthen
/// its queues.
const MOST_IN_FLIGHT: usize = 4_096;
/// Most requests that are taken from the channel at once.
const BATCH: usize = 64;
/// The time between two checks for overdue confirms.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A publish, and where its outcome goes.
pub(crate) struct Request {
    pub(crate) queue: Queue,
    pub(crate) message: Box<EncodedMessage>,
    pub(crate) reply: oneshot::Sender<Result<(), PublishError>>,
}

/// A publish in flight.
struct PendingPublish {
    queue: Queue,
    label: Label,
    sent: Instant,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// RabbitMQ's answer to a publish, and the label of a returned message that came with it.
type Answer = (Verdict, Option<Label>);

/// An operation that runs while the publisher goes on.
enum Operation {
    Declare(Arc<Session>, Topology, Queue),
    Publish(Arc<Channel>, u64, Box<EncodedMessage>),
}

/// The outcome of an [`Operation`].
enum Completion {
    Declared(Queue, Result<(), Failure>),
    Published(u64, Result<Answer, Failure>),
}

/// Publishes over one session after the other.
pub(crate) struct Publisher {
    link: Follower,
    topology: Topology,
    timeouts: Timeouts,
}

/// The publisher during one session.
struct SessionPublisher<'a> {
    publisher: &'a Publisher,
    session: &'a Arc<Session>,
    channel: Arc<Channel>,
    declared: HashSet<Queue>,
    /// Requests whose queue is being declared. A queue that can't be declared must not delay the
    /// others.
    held: HashMap<Queue, Vec<Request>>,
    pending: BTreeMap<u64, PendingPublish>,
    confirms: Confirms<PendingPublish>,
    /// The number of the next publish.
    next: u64,
}

impl Publisher {
    pub(crate) fn new(link: Follower, topology: Topology, timeouts: Timeouts) -> Self {
        Self { link, topology, timeouts }
    }

    /// Publishes until `stop`, over as many sessions as it takes.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut link = self.link.clone();
        loop {
            let session = tokio::select! {
                session = link.up() => session,
                () = stop.cancelled() => None,
            };
            let Some(session) = session else { return };
            let channel = match session.confirming_channel().await {
                Ok(channel) => channel,
                Err(failure) => {
                    session.fail(failure);
                    continue;
                }
            };
            let publisher = SessionPublisher {
                publisher: &self,
                session: &session,
                channel: Arc::new(channel),
                declared: HashSet::new(),
                held: HashMap::new(),
                pending: BTreeMap::new(),
                confirms: Confirms::new(),
                next: 0,
            };
            if publisher.run(&mut requests, &stop).await {
                return;
            }
        }
    }
}

impl SessionPublisher<'_> {
    /// Publishes until the session ends; `true` when there is nothing more to publish.
    async fn run(
        mut self,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> bool {
        let mut ended = pin!(self.session.ended());
        let mut blocked = self.session.blocked();
        let mut unblocked_since = Instant::now();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut operations = FuturesUnordered::new();
        let (mut batch, mut completions) = (Vec::with_capacity(BATCH), Vec::new());
        loop {
            let is_blocked = blocked.borrow_and_update().is_some();
            // Messages that are written while RabbitMQ does not read would accumulate in lapin
            // without bound.
            let has_room = self.in_flight() < MOST_IN_FLIGHT && !is_blocked;
            tokio::select! {
                biased;
                failure = &mut ended => {
                    self.give_up(&failure);
                    return false;
                }
                () = poll_fn(|cx| collect(&mut operations, &mut completions, cx)),
                    if !operations.is_empty() =>
                {
                    for completion in completions.drain(..) {
                        operations.extend(self.complete(completion).into_iter().map(perform));
                    }
                    self.answer();
                }
                taken = requests.recv_many(&mut batch, BATCH), if has_room => {
                    if taken == 0 {
                        return true;
                    }
                    let begun = batch.drain(..).filter_map(|request| self.begin(request));
                    operations.extend(begun.map(perform));
                }
                _ = check.tick(), if !self.pending.is_empty() => {
                    if is_blocked {
                        unblocked_since = Instant::now();
                    } else {
                        self.end_if_overdue(unblocked_since);
                    }
                }
                changed = blocked.changed() => {
                    if changed.is_err() {
                        self.session.fail(Failure::closed("the connection was dropped"));
                    }
                }
                () = stop.cancelled() => {
                    self.give_up(&Failure::closed("the broker was closed"));
                    return true;
                }
            }
        }
    }

    /// The operation that a request begins with: its publish, or first the declaration of its
    /// queue. `None` while that declaration is in flight.
    fn begin(&mut self, request: Request) -> Option<Operation> {
        let queue = &request.queue;
        if matches!(queue, Queue::Node(_)) || self.declared.contains(queue) {
            return self.publish(request);
        }
        if let Some(held) = self.held.get_mut(queue) {
            held.push(request);
            return None;
        }
        let queue = queue.clone();
        self.held.insert(queue.clone(), vec![request]);
        Some(Operation::Declare(self.session.clone(), self.publisher.topology.clone(), queue))
    }

    fn publish(&mut self, request: Request) -> Option<Operation> {
        let Request { queue, message, reply } = request;
        // A message whose caller has given up must not be published later.
        if reply.is_closed() {
            return None;
        }
        let label = (message.id.clone(), message.key.to_string());
        self.confirms.sent(label.clone());
        let number = self.next;
        self.next += 1;
        let pending = PendingPublish { queue, label, sent: Instant::now(), reply };
        self.pending.insert(number, pending);
        Some(Operation::Publish(self.channel.clone(), number, message))
    }

    /// Takes note of an outcome, and gives the operations that follow from it.
    fn complete(&mut self, completion: Completion) -> Vec<Operation> {
        match completion {
            Completion::Declared(queue, outcome) => self.declared(queue, outcome),
            Completion::Published(number, outcome) => {
                self.published(number, outcome);
                Vec::new()
            }
        }
    }

    /// The requests that waited for the declaration are published now, or answered with its
    /// failure.
    fn declared(&mut self, queue: Queue, outcome: Result<(), Failure>) -> Vec<Operation> {
        let held = self.held.remove(&queue).unwrap_or_default();
        match outcome {
            Ok(()) => {
                self.declared.insert(queue);
                held.into_iter().filter_map(|request| self.publish(request)).collect()
            }
            Err(failure) => {
                if matches!(failure, Failure::Expelled { .. } | Failure::Broken { .. }) {
                    self.session.fail(failure.clone());
                }
                for request in held {
                    reply_with(request.reply, Err(failure.clone().into()));
                }
                Vec::new()
            }
        }
    }

    fn published(&mut self, number: u64, outcome: Result<Answer, Failure>) {
        let Some(pending) = self.pending.remove(&number) else { return };
        let (verdict, returned) = outcome.unwrap_or_else(|failure| {
            self.session.fail(failure.clone());
            (Verdict::Unknown(failure), None)
        });
        self.confirms.arrived(pending.label.clone(), pending, verdict, returned);
    }

    fn in_flight(&self) -> usize {
        self.pending.len() + self.held.values().map(Vec::len).sum::<usize>()
    }

    fn answer(&mut self) {
        for (publish, verdict) in self.confirms.known() {
            let result = match verdict {
                Verdict::Confirmed => Ok(()),
                Verdict::Unroutable => {
                    // The queue was deleted after it was declared here; the next publish declares
                    // it again.
                    self.declared.remove(&publish.queue);
                    Err(PublishError::Unroutable(publish.queue))
                }
                Verdict::Unknown(failure) => Err(failure.into()),
            };
            reply_with(publish.reply, result);
        }
    }

    /// Ends the session when a confirm has been missing for twice the time-out: its caller is gone,
    /// and the connection no longer answers.
    fn end_if_overdue(&self, unblocked_since: Instant) {
        let limit = self.publisher.timeouts.publish * 2;
        let oldest = self.pending.first_key_value().map(|(_, publish)| publish.sent);
        if oldest.is_some_and(|sent| sent.max(unblocked_since).elapsed() > limit) {
            self.session.fail(Failure::too_late(format!("no confirm within {limit:?}")));
        }
    }

    fn give_up(self, failure: &Failure) {
        let pending = self.pending.into_values().chain(self.confirms.give_up());
        let held = self.held.into_values().flatten().map(|request| request.reply);
        for reply in pending.map(|publish| publish.reply).chain(held) {
            reply_with(reply, Err(failure.clone().into()));
        }
    }
}

/// Collects every outcome that is there. It polls once more after the first `Pending`, because
/// futures that woke without being done end the stream's turn early, and `Confirms` relies on
/// having been told everything.
fn collect<F: Future<Output = Completion>>(
    operations: &mut FuturesUnordered<F>,
    completions: &mut Vec<Completion>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut pending = 0;
    while pending < 2 {
        match operations.poll_next_unpin(cx) {
            Poll::Ready(Some(completion)) => completions.push(completion),
            Poll::Ready(None) => break,
            Poll::Pending => pending += 1,
        }
    }
    if completions.is_empty() { Poll::Pending } else { Poll::Ready(()) }
}

async fn perform(operation: Operation) -> Completion {
    match operation {
        Operation::Declare(session, topology, queue) => {
            let outcome = topology.declare(&session, &queue).await;
            Completion::Declared(queue, outcome)
        }
        Operation::Publish(channel, number, message) => {
            Completion::Published(number, publish(&channel, *message).await.map_err(Failure::from))
        }
    }
}

/// Passes one message to lapin and waits for its confirm; the session's end ends the wait.
async fn publish(channel: &Channel, message: EncodedMessage) -> lapin::Result<Answer> {
    let EncodedMessage { exchange, key, id: _, properties, body } = message;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel.basic_publish(exchange, key, options, &body, properties).await?;
    let unknown = |text: &str| {
        Verdict::Unknown(Failure::Broken { kind: ErrorKind::Other, text: text.to_owned() })
    };
    let (verdict, returned) = match confirm.await? {
        Confirmation::Ack(returned) => (Verdict::Confirmed, returned),
        Confirmation::Nack(returned) => (unknown("nack"), returned),
        Confirmation::NotRequested => (unknown("the channel does not confirm"), None),
    };
    Ok((verdict, returned.as_deref().and_then(label_of)))
}

fn label_of(returned: &lapin::message::Delivery) -> Option<Label> {
    let id = returned.properties.message_id().as_ref()?.to_string();
    Some((id, returned.routing_key.to_string()))
}

fn reply_with(reply: oneshot::Sender<Result<(), PublishError>>, result: Result<(), PublishError>) {
    if reply.send(result).is_err() {
        debug!("the caller of a publish has given up");
    }
}
