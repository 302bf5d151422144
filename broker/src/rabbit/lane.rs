//! The lane of publishes: one task that owns the publishing channel and answers each publish by itself.
//!
//! One task, because lapin counts a publish before it queues its frames: two tasks on one channel could swap places in
//! between and get each other's confirm. Many publishes are in flight; each is answered when its own confirm arrives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
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
use super::topology::{Parcel, Topology};

/// Publishes in flight. Beyond this RabbitMQ itself is the bottleneck, and more would only lengthen its queues.
const MOST_IN_FLIGHT: usize = 4_096;
/// Publishes taken from the waiting ones at once.
const BATCH: usize = 64;
/// How often overdue confirms are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// A publish, and whom to tell.
pub(crate) struct Request {
    pub(crate) queue: Queue,
    pub(crate) message: Box<Parcel>,
    pub(crate) reply: oneshot::Sender<Result<(), PublishError>>,
}

/// A publish in flight.
struct Ticket {
    queue: Queue,
    label: Label,
    sent: Instant,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// RabbitMQ's answer to a publish, and the label of a returned message that came with it.
type Answer = (Verdict, Option<Label>);

/// What the lane waits for.
enum Task {
    Declare(Arc<Session>, Topology, Queue),
    Publish(Arc<Channel>, u64, Box<Parcel>),
}

/// What has come of it.
enum Landed {
    LossVerdict(Queue, Result<(), Failure>),
    Published(u64, Result<Answer, Failure>),
}

pub(crate) struct Lane {
    link: Follower,
    topology: Topology,
    timeouts: Timeouts,
}

/// The lane during one session.
struct Run<'a> {
    lane: &'a Lane,
    session: &'a Arc<Session>,
    channel: Arc<Channel>,
    declared: HashSet<Queue>,
    /// Requests whose queue is being declared. One queue's trouble must not hold up the others.
    held: HashMap<Queue, Vec<Request>>,
    tickets: BTreeMap<u64, Ticket>,
    confirms: Confirms<Ticket>,
    next: u64,
}

impl Lane {
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
                    session.fail(failure.to_string());
                    continue;
                }
            };
            let run = Run {
                lane: &self,
                session: &session,
                channel: Arc::new(channel),
                declared: HashSet::new(),
                held: HashMap::new(),
                tickets: BTreeMap::new(),
                confirms: Confirms::new(),
                next: 0,
            };
            if run.until_the_end(&mut requests, &stop).await {
                return;
            }
        }
    }
}

impl Run<'_> {
    /// Publishes until the session ends; `true` when there is nothing more to publish.
    async fn until_the_end(
        mut self,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> bool {
        let mut ended = pin!(self.session.ended());
        let mut blocked = self.session.blocked();
        let mut unblocked_since = Instant::now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut flights = FuturesUnordered::new();
        let (mut batch, mut landed) = (Vec::with_capacity(BATCH), Vec::new());
        loop {
            let is_blocked = blocked.borrow_and_update().is_some();
            // What is written while RabbitMQ does not read would pile up in lapin without end.
            let room = self.waiting() < MOST_IN_FLIGHT && !is_blocked;
            tokio::select! {
                biased;
                reason = &mut ended => {
                    self.give_up(&reason);
                    return false;
                }
                () = poll_fn(|cx| drain(&mut flights, &mut landed, cx)), if !flights.is_empty() => {
                    for arrival in landed.drain(..) {
                        flights.extend(self.land(arrival).into_iter().map(perform));
                    }
                    self.answer();
                }
                taken = requests.recv_many(&mut batch, BATCH), if room => {
                    if taken == 0 {
                        return true;
                    }
                    let tasks = batch.drain(..).filter_map(|request| self.admit(request));
                    flights.extend(tasks.map(perform));
                }
                _ = look.tick(), if !self.tickets.is_empty() => {
                    if is_blocked {
                        unblocked_since = Instant::now();
                    } else {
                        self.end_if_overdue(unblocked_since);
                    }
                }
                changed = blocked.changed() => {
                    if changed.is_err() {
                        self.session.fail("the connection was dropped");
                    }
                }
                () = stop.cancelled() => {
                    self.give_up("the broker was closed");
                    return true;
                }
            }
        }
    }

    /// What to do for a request: publish it, or declare its queue first; nothing if that is under way.
    fn admit(&mut self, request: Request) -> Option<Task> {
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
        Some(Task::Declare(self.session.clone(), self.lane.topology.clone(), queue))
    }

    fn publish(&mut self, request: Request) -> Option<Task> {
        let Request { queue, message, reply } = request;
        // Whoever has given up waiting must not find the message published later.
        if reply.is_closed() {
            return None;
        }
        let label = (message.id.clone(), message.key.to_string());
        self.confirms.sent(label.clone());
        let number = self.next;
        self.next += 1;
        self.tickets.insert(number, Ticket { queue, label, sent: Instant::now(), reply });
        Some(Task::Publish(self.channel.clone(), number, message))
    }

    fn land(&mut self, landed: Landed) -> Vec<Task> {
        match landed {
            Landed::LossVerdict(queue, outcome) => self.declared(queue, outcome),
            Landed::Published(number, outcome) => {
                self.published(number, outcome);
                Vec::new()
            }
        }
    }

    /// The requests that waited for the declaration are published now, or told why not.
    fn declared(&mut self, queue: Queue, outcome: Result<(), Failure>) -> Vec<Task> {
        let held = self.held.remove(&queue).unwrap_or_default();
        match outcome {
            Ok(()) => {
                self.declared.insert(queue);
                held.into_iter().filter_map(|request| self.publish(request)).collect()
            }
            Err(failure) => {
                if matches!(failure, Failure::Expelled { .. } | Failure::Broken(_)) {
                    self.session.fail(failure.to_string());
                }
                for request in held {
                    tell(request.reply, Err(PublishError::Unknown(failure.to_string())));
                }
                Vec::new()
            }
        }
    }

    fn published(&mut self, number: u64, outcome: Result<Answer, Failure>) {
        let Some(ticket) = self.tickets.remove(&number) else { return };
        let (verdict, returned) = outcome.unwrap_or_else(|failure| {
            self.session.fail(failure.to_string());
            (Verdict::Unknown(failure.to_string()), None)
        });
        self.confirms.arrived(ticket.label.clone(), ticket, verdict, returned);
    }

    fn waiting(&self) -> usize {
        self.tickets.len() + self.held.values().map(Vec::len).sum::<usize>()
    }

    fn answer(&mut self) {
        for (ticket, verdict) in self.confirms.known() {
            let result = match verdict {
                Verdict::Confirmed => Ok(()),
                Verdict::Unroutable => {
                    // It was deleted since we declared it; the next publish declares it again.
                    self.declared.remove(&ticket.queue);
                    Err(PublishError::Unroutable(ticket.queue))
                }
                Verdict::Unknown(reason) => Err(PublishError::Unknown(reason)),
            };
            tell(ticket.reply, result);
        }
    }

    /// A confirm that has been missing for twice the time-out will not come: the callers are gone, and a connection
    /// that answers no more is not worth keeping.
    fn end_if_overdue(&self, unblocked_since: Instant) {
        let limit = self.lane.timeouts.publish * 2;
        let oldest = self.tickets.first_key_value().map(|(_, ticket)| ticket.sent);
        if oldest.is_some_and(|sent| sent.max(unblocked_since).elapsed() > limit) {
            self.session.fail(format!("no confirm within {limit:?}"));
        }
    }

    fn give_up(self, reason: &str) {
        let tickets = self.tickets.into_values().chain(self.confirms.give_up());
        let held = self.held.into_values().flatten().map(|request| request.reply);
        for reply in tickets.map(|ticket| ticket.reply).chain(held) {
            tell(reply, Err(PublishError::Unknown(reason.to_owned())));
        }
    }
}

/// Takes everything that has landed. It asks once more after the first "nothing", because a round of futures that
/// woke without being done ends the stream's turn early; `Confirms` relies on having heard everything.
fn drain<F: Future<Output = Landed>>(
    flights: &mut FuturesUnordered<F>,
    landed: &mut Vec<Landed>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut silences = 0;
    while silences < 2 {
        match flights.poll_next_unpin(cx) {
            Poll::Ready(Some(arrival)) => landed.push(arrival),
            Poll::Ready(None) => break,
            Poll::Pending => silences += 1,
        }
    }
    if landed.is_empty() { Poll::Pending } else { Poll::Ready(()) }
}

async fn perform(task: Task) -> Landed {
    match task {
        Task::Declare(session, topology, queue) => {
            let outcome = topology.declare(&session, &queue).await;
            Landed::LossVerdict(queue, outcome)
        }
        Task::Publish(channel, number, parcel) => {
            Landed::Published(number, publish(&channel, *parcel).await.map_err(Failure::from))
        }
    }
}

/// Hands one message to lapin and waits for its confirm; the session's end ends the wait.
async fn publish(channel: &Channel, parcel: Parcel) -> lapin::Result<Answer> {
    let Parcel { exchange, key, id: _, properties, body } = parcel;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel.basic_publish(exchange, key, options, &body, properties).await?;
    let unknown = |reason: &str| Verdict::Unknown(reason.to_owned());
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

fn tell(reply: oneshot::Sender<Result<(), PublishError>>, result: Result<(), PublishError>) {
    if reply.send(result).is_err() {
        debug!("nobody waits for this publish any more");
    }
}
