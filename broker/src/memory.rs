//! A broker in the memory of the process, for the embedded mode, for tests and for simulations.
//!
//! It behaves as RabbitMQ does, as far as the trait shows it: it pushes messages to consumers in
//! turn, up to their prefetch; messages stay unacknowledged until they are settled or their
//! subscription is dropped, and requeued messages return to their position in the queue. It keeps a
//! journal only on request: a journal serves to rebuild a ledger that was lost while the broker was
//! not, which can't happen within one process.
//!
//! Deliberately absent: persistence, threads and clocks. Everything happens in the caller's own
//! call, in order, so that a simulation of tokio's time controls all of it.

mod browse;
mod journal;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_protocol::{ErrorKind, JournalPosition};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use self::browse::MemoryBrowser;
use self::journal::Journal;
use crate::{
    Broker, Browser, Delivery, Depth, Error, JournalReader, Link, Outgoing, PublishError, Queue,
    Settle, Subscription,
};

/// Most messages that may wait in one queue. The scheduler's window keeps queues short; a queue of
/// this length means that a publisher does not stop, and an error is better than running out of
/// memory. A chunk message takes some 200 bytes.
pub const MAX_READY: usize = 1_000_000;

/// A broker in memory. All clones of the `Arc` around it share its queues.
pub struct MemoryBroker {
    state: Arc<State>,
    link: watch::Sender<Link>,
}

/// The queues and the journal of one broker.
struct State {
    queues: Mutex<HashMap<Queue, Arc<MemoryQueue>>>,
    journal: Option<Arc<Journal>>,
}

/// One queue.
struct MemoryQueue {
    name: Queue,
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    /// Waiting messages by the position that they got on arrival; a requeued message returns to its
    /// position.
    ready: BTreeMap<u64, Message>,
    next_place: u64,
    consumers: Vec<Consumer>,
    next_consumer: u64,
    /// The index of the consumer that is offered the next message first, so that consumers share.
    turn: usize,
}

struct Message {
    place: u64,
    body: Bytes,
    message_id: String,
    headers: Vec<(String, String)>,
    /// How often the message was handed out and came back.
    returns: u64,
}

struct Consumer {
    id: u64,
    /// 0 means no limit, as in AMQP.
    prefetch: usize,
    /// Unsettled messages: in the inbox, handed out, or dropped without being settled.
    held: usize,
    inbox: VecDeque<Message>,
    /// Messages that were dropped without being settled; requeued when the subscription is dropped.
    dropped: Vec<Message>,
    arrival: Arc<Notify>,
}

impl MemoryBroker {
    /// An empty broker without a journal.
    pub fn new() -> Self {
        Self::build(None)
    }

    /// An empty broker that keeps a journal, with every record, until it is dropped.
    pub fn with_journal() -> Self {
        Self::build(Some(Arc::default()))
    }

    fn build(journal: Option<Arc<Journal>>) -> Self {
        let state = Arc::new(State { queues: Mutex::default(), journal });
        Self { state, link: watch::Sender::new(Link::Up) }
    }

    fn is_closed(&self) -> bool {
        *self.link.borrow() == Link::Down
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Finds or creates the queue. `None` for a node's queue that does not exist, unless a consumer
    /// asks: only a consumer creates it.
    fn find(&self, queue: &Queue, for_consumer: bool) -> Option<Arc<MemoryQueue>> {
        let mut queues = self.queues.lock();
        if let Some(found) = queues.get(queue) {
            return Some(found.clone());
        }
        if matches!(queue, Queue::Node(_)) && !for_consumer {
            return None;
        }
        let made = Arc::new(MemoryQueue { name: queue.clone(), state: Mutex::default() });
        queues.insert(queue.clone(), made.clone());
        Some(made)
    }
}

impl QueueState {
    fn enqueue(&mut self, message: Message) {
        self.ready.insert(message.place, message);
    }

    fn requeue(&mut self, mut message: Message) {
        message.returns += 1;
        self.enqueue(message);
    }

    fn consumer(&mut self, id: u64) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|consumer| consumer.id == id)
    }

    /// Passes waiting messages to consumers whose prefetch has room, in turn.
    fn dispatch(&mut self) {
        while !self.ready.is_empty() {
            let count = self.consumers.len();
            let free = (0..count)
                .map(|step| (self.turn + step) % count)
                .find(|&index| self.consumers[index].has_room());
            let Some(index) = free else { return };
            let Some((_, message)) = self.ready.pop_first() else { return };
            let consumer = &mut self.consumers[index];
            consumer.held += 1;
            consumer.inbox.push_back(message);
            consumer.arrival.notify_one();
            self.turn = (index + 1) % count;
        }
    }
}

impl Consumer {
    fn has_room(&self) -> bool {
        self.prefetch == 0 || self.held < self.prefetch
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        if self.is_closed() {
            let reason = "the broker is closed".to_owned();
            return Err(PublishError::Unknown { kind: ErrorKind::Disconnected, reason });
        }
        let unroutable = || PublishError::Unroutable(queue.clone());
        if *queue == Queue::Journal {
            let journal = self.state.journal.as_ref().ok_or_else(unroutable)?;
            journal.append(message);
            return Ok(());
        }
        let found = self.state.find(queue, false).ok_or_else(unroutable)?;
        let mut state = found.state.lock();
        // The consumer of a node's queue may have gone between the look-up and the lock.
        if matches!(queue, Queue::Node(_)) && state.consumers.is_empty() {
            return Err(unroutable());
        }
        if state.ready.len() >= MAX_READY {
            let reason = format!("{MAX_READY} messages wait in {queue:?}");
            return Err(PublishError::Unknown { kind: ErrorKind::Full, reason });
        }
        let place = state.next_place;
        state.next_place += 1;
        let Outgoing { body, message_id, headers } = message;
        let message_id = message_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        state.enqueue(Message { place, body, message_id, headers, returns: 0 });
        state.dispatch();
        Ok(())
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        let arrival = Arc::new(Notify::new());
        let link = self.link.subscribe();
        loop {
            let Some(found) = self.state.find(queue, true) else { continue };
            let mut state = found.state.lock();
            // A node's queue that was just removed can't be consumed from; the next look-up creates
            // a new one.
            if !self.state.holds(&found) {
                continue;
            }
            let id = state.next_consumer;
            state.next_consumer += 1;
            state.consumers.push(Consumer {
                id,
                prefetch: usize::from(prefetch),
                held: 0,
                inbox: VecDeque::new(),
                dropped: Vec::new(),
                arrival: arrival.clone(),
            });
            state.dispatch();
            drop(state);
            return Box::new(MemorySubscription {
                state: self.state.clone(),
                queue: found,
                id,
                arrival,
                link,
            });
        }
    }

    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let journal = self.state.journal.as_ref()?;
        Some(Box::new(journal.read(after, self.link.subscribe())))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        if *queue == Queue::Journal {
            return Ok(self.state.journal.as_ref().map(|journal| journal.depth()));
        }
        let found = self.state.queues.lock().get(queue).cloned();
        Ok(found.map(|queue| {
            let state = queue.state.lock();
            Depth { ready: state.ready.len() as u64, consumers: state.consumers.len() as u64 }
        }))
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, Error> {
        let found = self.state.queues.lock().get(queue).cloned();
        Ok(Box::new(MemoryBrowser::new(found)))
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        if let (Queue::Journal, Some(journal)) = (queue, &self.state.journal) {
            journal.clear();
        }
        let found = self.state.queues.lock().get(queue).cloned();
        if let Some(queue) = found {
            queue.state.lock().ready.clear();
        }
        Ok(())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// No message is ever in flight here, so there is nothing to wait for.
    async fn close(&self, _grace: Duration) {
        self.link.send_replace(Link::Down);
    }
}

impl State {
    /// Whether the queue was not removed. Called with the queue locked; the only place that locks
    /// both uses this order too.
    fn holds(&self, queue: &Arc<MemoryQueue>) -> bool {
        self.queues.lock().get(&queue.name).is_some_and(|held| Arc::ptr_eq(held, queue))
    }
}

struct MemorySubscription {
    state: Arc<State>,
    queue: Arc<MemoryQueue>,
    id: u64,
    arrival: Arc<Notify>,
    link: watch::Receiver<Link>,
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if *self.link.borrow_and_update() == Link::Down {
                return None;
            }
            let message = self.queue.state.lock().consumer(self.id)?.inbox.pop_front();
            if let Some(message) = message {
                return Some(self.hand_out(message));
            }
            tokio::select! {
                biased;
                () = self.arrival.notified() => {}
                changed = self.link.changed() => changed.ok()?,
            }
        }
    }
}

impl MemorySubscription {
    fn hand_out(&self, message: Message) -> Delivery {
        Delivery {
            body: message.body.clone(),
            redelivered: message.returns > 0,
            message_id: Some(message.message_id.clone()),
            headers: message.headers.clone(),
            settle: Box::new(MemorySettle {
                queue: self.queue.clone(),
                consumer: self.id,
                message: Some(message),
            }),
        }
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let Some(index) = state.consumers.iter().position(|consumer| consumer.id == self.id) else {
            return;
        };
        let mut consumer = state.consumers.remove(index);
        // As with RabbitMQ, messages that were fetched but never handed out count as redelivered.
        for message in consumer.inbox.drain(..).chain(consumer.dropped.drain(..)) {
            state.requeue(message);
        }
        state.turn = 0;
        if state.consumers.is_empty() && matches!(self.queue.name, Queue::Node(_)) {
            state.ready.clear();
            self.state.queues.lock().remove(&self.queue.name);
            return;
        }
        state.dispatch();
    }
}

/// Settles one message. `message` is `Some` until it is settled.
struct MemorySettle {
    queue: Arc<MemoryQueue>,
    consumer: u64,
    message: Option<Message>,
}

impl MemorySettle {
    fn release(&self) -> MutexGuard<'_, QueueState> {
        let mut state = self.queue.state.lock();
        if let Some(consumer) = state.consumer(self.consumer) {
            consumer.held -= 1;
        }
        state
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(mut self: Box<Self>) {
        if self.message.take().is_some() {
            self.release().dispatch();
        }
    }

    async fn requeue(mut self: Box<Self>) {
        if let Some(message) = self.message.take() {
            let mut state = self.release();
            state.requeue(message);
            state.dispatch();
        }
    }
}

impl Drop for MemorySettle {
    fn drop(&mut self) {
        let Some(message) = self.message.take() else { return };
        let mut state = self.queue.state.lock();
        match state.consumer(self.consumer) {
            Some(consumer) => consumer.dropped.push(message),
            None => {
                state.requeue(message);
                state.dispatch();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_without_consumers_reports_an_error_before_memory_runs_out() {
        let broker = MemoryBroker::new();
        let queue = Queue::Work("bulk".to_owned());
        for _ in 0..MAX_READY {
            broker.publish(&queue, Outgoing::default()).await.expect("there is room");
        }
        let refused = broker.publish(&queue, Outgoing::default()).await;
        assert!(matches!(refused, Err(PublishError::Unknown { .. })), "{refused:?}");
        broker.purge(&queue).await.expect("purged");
        broker.publish(&queue, Outgoing::default()).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_closed_broker_accepts_no_messages() {
        let broker = MemoryBroker::new();
        broker.close(Duration::ZERO).await;
        let refused = broker.publish(&Queue::Jobs, Outgoing::default()).await;
        assert!(matches!(refused, Err(PublishError::Unknown { .. })), "{refused:?}");
        assert_eq!(*broker.link().borrow(), Link::Down);
    }
}
