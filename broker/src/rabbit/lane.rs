//! The lane of publishes: one task that owns the publishing channel and answers each publish by itself.
//!
//! One task, because lapin counts a publish before it queues its frames: two tasks on one channel could swap places in
//! between and get each other's confirm. Many publishes are in flight; each is answered when its own confirm arrives.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, interval};
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
    pub(crate) message: Parcel,
    pub(crate) reply: oneshot::Sender<Result<(), PublishError>>,
}

/// A publish in flight.
struct Ticket {
    queue: Queue,
    label: Label,
    sent: Instant,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

type Landed = (u64, Result<Confirmation, Failure>);

pub(crate) struct Lane {
    link: Follower,
    topology: Topology,
    timeouts: Timeouts,
}

/// The lane during one session.
struct Run<'a> {
    lane: &'a Lane,
    session: &'a Session,
    channel: Channel,
    declared: HashSet<Queue>,
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
                channel,
                declared: HashSet::new(),
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
        let mut flights = FuturesUnordered::new();
        let (mut batch, mut landed) = (Vec::with_capacity(BATCH), Vec::new());
        loop {
            let is_blocked = *blocked.borrow_and_update();
            // What is written while RabbitMQ does not read would pile up in lapin without end.
            let room = flights.len() < MOST_IN_FLIGHT && !is_blocked;
            tokio::select! {
                biased;
                reason = &mut ended => {
                    self.give_up(&reason);
                    return false;
                }
                () = poll_fn(|cx| drain(&mut flights, &mut landed, cx)), if !flights.is_empty() => {
                    for arrival in landed.drain(..) {
                        self.land(arrival);
                    }
                    self.answer();
                }
                taken = requests.recv_many(&mut batch, BATCH), if room => {
                    if taken == 0 {
                        return true;
                    }
                    for request in batch.drain(..) {
                        if let Some((number, parcel)) = self.admit(request).await {
                            flights.push(fly(self.channel.clone(), number, parcel));
                        }
                    }
                }
                _ = look.tick() => {
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

    /// Makes a request ready to fly: its queue exists as far as we know.
    async fn admit(&mut self, request: Request) -> Option<(u64, Parcel)> {
        let Request { queue, message, reply } = request;
        // Whoever has given up waiting must not find the message published later.
        if reply.is_closed() {
            return None;
        }
        if !matches!(queue, Queue::Node(_)) && !self.declared.contains(&queue) {
            if let Err(failure) = self.lane.topology.declare(self.session, &queue).await {
                if !matches!(failure, Failure::Refused { .. }) {
                    self.session.fail(failure.to_string());
                }
                tell(reply, Err(PublishError::Unknown(failure.to_string())));
                return None;
            }
            self.declared.insert(queue.clone());
        }
        let label = (message.id.clone(), message.key.to_string());
        self.confirms.sent(label.clone());
        let number = self.next;
        self.next += 1;
        self.tickets.insert(number, Ticket { queue, label, sent: Instant::now(), reply });
        Some((number, message))
    }

    fn land(&mut self, (number, outcome): Landed) {
        let Some(ticket) = self.tickets.remove(&number) else { return };
        let (verdict, returned) = match outcome {
            Ok(Confirmation::Ack(returned)) => (Verdict::Confirmed, returned),
            Ok(Confirmation::Nack(returned)) => (Verdict::Unknown("nack".to_owned()), returned),
            Ok(Confirmation::NotRequested) => {
                (Verdict::Unknown("the channel does not confirm".to_owned()), None)
            }
            Err(failure) => {
                self.session.fail(failure.to_string());
                (Verdict::Unknown(failure.to_string()), None)
            }
        };
        let returned = returned.as_deref().and_then(label_of);
        self.confirms.arrived(ticket.label.clone(), ticket, verdict, returned);
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
        let waiting = self.tickets.into_values().chain(self.confirms.give_up());
        for ticket in waiting {
            tell(ticket.reply, Err(PublishError::Unknown(reason.to_owned())));
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

/// Hands one message to lapin and waits for its confirm; the session's end ends the wait.
async fn fly(channel: Channel, number: u64, parcel: Parcel) -> Landed {
    let Parcel { exchange, key, id: _, properties, body } = parcel;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let published = channel.basic_publish(exchange, key, options, &body, properties).await;
    let confirmed = match published {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (number, confirmed.map_err(Failure::from))
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
