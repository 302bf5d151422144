//! A broker within the process: the stand-in of the embedded mode and of simulations.
//!
//! It behaves as RabbitMQ does where the trait can tell: messages are pushed to consumers in turn up to their
//! prefetch, stay unacknowledged until they are settled or their subscription is dropped, and go back to the place
//! that they had in their queue. A journal is kept only where one is asked for: what it is for, a ledger that is lost while
//! the broker lives on, can't happen within one process.
//!
//! Deliberately absent: persistence, a thread, a clock. Everything happens in the caller's own call, in order, so a
//! simulation of tokio's time sees all of it.

mod journal;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_protocol::JournalPosition;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use self::journal::Journal;
use crate::{
    Broker, Delivery, Depth, Error, JournalReader, Link, Outgoing, PublishError, Queue, Settle,
    Subscription,
};

/// Messages that may wait in one queue. The scheduler's window keeps queues short; reaching this means that somebody
/// publishes without end, and an error is better than the process's memory. A chunk message weighs some 200 bytes.
pub const MAX_READY: usize = 1_000_000;

/// A broker in memory. Every clone of the `Arc` around it sees the same queues.
pub struct MemoryBroker {
    hall: Arc<Hall>,
    link: watch::Sender<Link>,
}

/// All queues of one broker.
struct Hall {
    queues: Mutex<HashMap<Queue, Arc<Line>>>,
    journal: Option<Arc<Journal>>,
}

/// One queue.
struct Line {
    name: Queue,
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    /// Waiting messages by the place that they were given on arrival; a requeue puts them back there.
    ready: BTreeMap<u64, Message>,
    next_place: u64,
    consumers: Vec<Consumer>,
    next_consumer: u64,
    /// The consumer that is asked first for the next message, so that they share.
    turn: usize,
}

struct Message {
    place: u64,
    body: Bytes,
    message_id: String,
    headers: Vec<(String, String)>,
    redelivered: bool,
}

struct Consumer {
    id: u64,
    /// 0 means no limit, as in AMQP.
    prefetch: usize,
    /// Unsettled: in the inbox, handed out, or dropped without being settled.
    held: usize,
    inbox: VecDeque<Message>,
    /// Dropped without being settled; they go back when the subscription is dropped.
    abandoned: Vec<Message>,
    arrival: Arc<Notify>,
}

impl MemoryBroker {
    /// A broker without queues.
    pub fn new() -> Self {
        Self::over(None)
    }

    /// A broker without queues that keeps a journal, every record of it, for as long as it lives.
    pub fn with_journal() -> Self {
        Self::over(Some(Arc::default()))
    }

    fn over(journal: Option<Arc<Journal>>) -> Self {
        let hall = Arc::new(Hall { queues: Mutex::default(), journal });
        Self { hall, link: watch::Sender::new(Link::Up) }
    }

    fn closed(&self) -> bool {
        *self.link.borrow() == Link::Down
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Hall {
    /// The queue, and whether it exists already; it is made unless it is a node's, which only its consumer makes.
    fn find(&self, queue: &Queue, for_consumer: bool) -> Option<Arc<Line>> {
        let mut queues = self.queues.lock();
        if let Some(line) = queues.get(queue) {
            return Some(line.clone());
        }
        if matches!(queue, Queue::Node(_)) && !for_consumer {
            return None;
        }
        let line = Arc::new(Line { name: queue.clone(), state: Mutex::default() });
        queues.insert(queue.clone(), line.clone());
        Some(line)
    }
}

impl LineState {
    fn put(&mut self, message: Message) {
        self.ready.insert(message.place, message);
    }

    fn put_back(&mut self, mut message: Message) {
        message.redelivered = true;
        self.put(message);
    }

    fn consumer(&mut self, id: u64) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|consumer| consumer.id == id)
    }

    /// Hands waiting messages to consumers with room, in turn.
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
        if self.closed() {
            return Err(PublishError::Unknown("the broker is closed".to_owned()));
        }
        let unroutable = || PublishError::Unroutable(queue.clone());
        if *queue == Queue::Journal {
            let journal = self.hall.journal.as_ref().ok_or_else(unroutable)?;
            journal.append(message);
            return Ok(());
        }
        let line = self.hall.find(queue, false).ok_or_else(unroutable)?;
        let mut state = line.state.lock();
        // The node may have gone between the look-up and the lock.
        if matches!(queue, Queue::Node(_)) && state.consumers.is_empty() {
            return Err(unroutable());
        }
        if state.ready.len() >= MAX_READY {
            return Err(PublishError::Unknown(format!("{MAX_READY} messages wait in {queue:?}")));
        }
        let place = state.next_place;
        state.next_place += 1;
        let Outgoing { body, message_id, headers } = message;
        let message_id = message_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        state.put(Message { place, body, message_id, headers, redelivered: false });
        state.dispatch();
        Ok(())
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        let arrival = Arc::new(Notify::new());
        let link = self.link.subscribe();
        loop {
            let Some(line) = self.hall.find(queue, true) else { continue };
            let mut state = line.state.lock();
            // A node's queue that just went is not the one to consume from; the next look makes a new one.
            if !self.hall.holds(&line) {
                continue;
            }
            let id = state.next_consumer;
            state.next_consumer += 1;
            state.consumers.push(Consumer {
                id,
                prefetch: usize::from(prefetch),
                held: 0,
                inbox: VecDeque::new(),
                abandoned: Vec::new(),
                arrival: arrival.clone(),
            });
            state.dispatch();
            drop(state);
            return Box::new(MemorySubscription {
                hall: self.hall.clone(),
                line,
                id,
                arrival,
                link,
            });
        }
    }

    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        let journal = self.hall.journal.as_ref()?;
        Some(Box::new(journal.read(after, self.link.subscribe())))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, Error> {
        if *queue == Queue::Journal {
            return Ok(self.hall.journal.as_ref().map(|journal| journal.depth()));
        }
        let line = self.hall.queues.lock().get(queue).cloned();
        Ok(line.map(|line| {
            let state = line.state.lock();
            Depth { ready: state.ready.len() as u64, consumers: state.consumers.len() as u64 }
        }))
    }

    async fn purge(&self, queue: &Queue) -> Result<(), Error> {
        if let (Queue::Journal, Some(journal)) = (queue, &self.hall.journal) {
            journal.begin_anew();
        }
        let line = self.hall.queues.lock().get(queue).cloned();
        if let Some(line) = line {
            line.state.lock().ready.clear();
        }
        Ok(())
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Nothing is ever on its way here, so there is nothing to wait for.
    async fn close(&self, _grace: Duration) {
        self.link.send_replace(Link::Down);
    }
}

impl Hall {
    fn holds(&self, line: &Arc<Line>) -> bool {
        // Called with the line locked: the only place that locks both takes them in this order too.
        self.queues.lock().get(&line.name).is_some_and(|held| Arc::ptr_eq(held, line))
    }
}

struct MemorySubscription {
    hall: Arc<Hall>,
    line: Arc<Line>,
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
            let message = self.line.state.lock().consumer(self.id)?.inbox.pop_front();
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
            redelivered: message.redelivered,
            message_id: Some(message.message_id.clone()),
            headers: message.headers.clone(),
            settle: Box::new(MemorySettle {
                line: self.line.clone(),
                consumer: self.id,
                message: Some(message),
            }),
        }
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        let Some(index) = state.consumers.iter().position(|consumer| consumer.id == self.id) else {
            return;
        };
        let mut consumer = state.consumers.remove(index);
        // What was fetched but never handed out was delivered as far as RabbitMQ can tell.
        for message in consumer.inbox.drain(..).chain(consumer.abandoned.drain(..)) {
            state.put_back(message);
        }
        state.turn = 0;
        if state.consumers.is_empty() && matches!(self.line.name, Queue::Node(_)) {
            state.ready.clear();
            self.hall.queues.lock().remove(&self.line.name);
            return;
        }
        state.dispatch();
    }
}

/// Settles one message; `message` is there until it is settled.
struct MemorySettle {
    line: Arc<Line>,
    consumer: u64,
    message: Option<Message>,
}

impl MemorySettle {
    fn release(&self) -> MutexGuard<'_, LineState> {
        let mut state = self.line.state.lock();
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
            state.put_back(message);
            state.dispatch();
        }
    }
}

impl Drop for MemorySettle {
    fn drop(&mut self) {
        let Some(message) = self.message.take() else { return };
        let mut state = self.line.state.lock();
        match state.consumer(self.consumer) {
            Some(consumer) => consumer.abandoned.push(message),
            None => {
                state.put_back(message);
                state.dispatch();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_nobody_empties_ends_in_an_error_instead_of_the_memory() {
        let broker = MemoryBroker::new();
        let queue = Queue::Work("bulk".to_owned());
        for _ in 0..MAX_READY {
            broker.publish(&queue, Outgoing::default()).await.expect("there is room");
        }
        let refused = broker.publish(&queue, Outgoing::default()).await;
        assert!(matches!(refused, Err(PublishError::Unknown(_))), "{refused:?}");
        broker.purge(&queue).await.expect("purged");
        broker.publish(&queue, Outgoing::default()).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_closed_broker_takes_nothing() {
        let broker = MemoryBroker::new();
        broker.close(Duration::ZERO).await;
        let refused = broker.publish(&Queue::Jobs, Outgoing::default()).await;
        assert!(matches!(refused, Err(PublishError::Unknown(_))), "{refused:?}");
        assert_eq!(*broker.link().borrow(), Link::Down);
    }
}
