//! Wrappers of the ledger and the broker that simulate outages, inject faults and count calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longshore_broker::{
    Broker, Browser, Depth, JournalReader, Link, Outgoing, PublishError, Queue, Subscription,
};
use longshore_ledger::testing::{Answer, Intercepted, Interceptor, Operation};
use longshore_ledger::{ControlError, Error, Event, Events, Ledger, Topic};
use longshore_protocol::{ErrorKind, JournalPosition};
use tokio::sync::watch;

use crate::reading::Reading;

/// The state of the ledger.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers.
    Well,
    /// It can't be reached.
    Away,
    /// It gives invalid answers to `admit` and `reject`.
    Corrupt,
}

/// Controls the outages of the ledger and the broker.
#[derive(Clone)]
pub(crate) struct Outage {
    ledger: watch::Sender<Health>,
    link: watch::Sender<Link>,
    calls: Arc<AtomicU64>,
    published: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<Fault>>>,
    journal: watch::Sender<Link>,
    reading: Reading,
    drops_hints: Arc<AtomicBool>,
}

/// An action before the nth call of the ledger.
struct Fault {
    before: u64,
    inject: Box<dyn FnOnce() + Send>,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            ledger: watch::Sender::new(Health::Well),
            link: watch::Sender::new(Link::Up),
            calls: Arc::default(),
            published: Arc::default(),
            fault: Arc::default(),
            journal: watch::Sender::new(Link::Up),
            reading: Reading::default(),
            drops_hints: Arc::default(),
        }
    }

    /// Drops all hints of the ledger for subscriptions from now on.
    pub(crate) fn lose_hints(&self) {
        self.drops_hints.store(true, Ordering::Relaxed);
    }

    /// Runs `inject` before the schedulers' nth call of the ledger from now on.
    pub(crate) fn before_call(&self, nth: u64, inject: impl FnOnce() + Send + 'static) {
        let fault = Fault { before: self.calls() + nth, inject: Box::new(inject) };
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Sets whether the journal can be written.
    pub(crate) fn set_journal(&self, link: Link) {
        self.journal.send_replace(link);
    }

    /// Sets whether the journal can be read.
    pub(crate) fn set_reading(&self, link: Link) {
        self.reading.set(link);
    }

    /// Hides losses of the journal: readers get no error and no records.
    pub(crate) fn hide_losses(&self) {
        self.reading.hide_losses();
    }

    pub(crate) fn set_ledger(&self, health: Health) {
        self.ledger.send_replace(health);
    }

    pub(crate) fn is_away(&self) -> bool {
        *self.ledger.borrow() == Health::Away
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// How many calls of the ledger schedulers have made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How often schedulers have tried to publish or to read the depth of a queue.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(crate) fn ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let (health, calls) = (self.ledger.subscribe(), self.calls.clone());
        let (fault, drops_hints) = (self.fault.clone(), self.drops_hints.clone());
        Arc::new(Intercepted(UnreliableLedger {
            inner: inner.clone(),
            health,
            calls,
            fault,
            drops_hints,
        }))
    }

    /// The same ledger for workers, whose calls are not counted.
    pub(crate) fn workers_ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let health = self.ledger.subscribe();
        let (calls, fault, drops_hints) = (Arc::default(), Arc::default(), Arc::default());
        Arc::new(Intercepted(UnreliableLedger {
            inner: inner.clone(),
            health,
            calls,
            fault,
            drops_hints,
        }))
    }

    pub(crate) fn broker(&self, inner: &Arc<dyn Broker>) -> Arc<dyn Broker> {
        let (link, published) = (self.link.subscribe(), self.published.clone());
        let journal = self.journal.subscribe();
        let reading = self.reading.clone();
        Arc::new(UnreliableBroker { inner: inner.clone(), link, journal, reading, published })
    }
}

struct UnreliableLedger {
    inner: Arc<dyn Ledger>,
    health: watch::Receiver<Health>,
    calls: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<Fault>>>,
    drops_hints: Arc<AtomicBool>,
}

/// A subscription without hints.
struct NoHints;

#[async_trait]
impl Events for NoHints {
    async fn next(&mut self) -> Event {
        std::future::pending().await
    }
}

impl UnreliableLedger {
    fn check(&self, operation: &'static str) -> Result<(), Error> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let due = self.fault.lock().unwrap().take_if(|fault| fault.before <= calls);
        if let Some(fault) = due {
            (fault.inject)();
        }
        let health = *self.health.borrow();
        match (health, operation) {
            (Health::Away, _) => {
                let (address, reason) = ("127.0.0.1:1".into(), "gone".into());
                Err(Error::Unavailable { kind: ErrorKind::Unreachable, address, reason })
            }
            (Health::Corrupt, "admit" | "reject") => {
                Err(Error::Corrupt { operation, detail: "a list where a hash was".into() })
            }
            (Health::Well | Health::Corrupt, _) => Ok(()),
        }
    }
}

#[async_trait]
impl Interceptor for UnreliableLedger {
    fn ledger(&self) -> &dyn Ledger {
        self.inner.as_ref()
    }

    async fn intercept(&self, operation: Operation) -> Result<Answer, ControlError> {
        self.check(operation.name())?;
        operation.call(self.inner.as_ref()).await
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        self.check("events")?;
        let drops_hints = self.drops_hints.load(Ordering::Relaxed);
        if drops_hints { Ok(Box::new(NoHints)) } else { self.inner.events(topic).await }
    }
}

struct UnreliableBroker {
    inner: Arc<dyn Broker>,
    link: watch::Receiver<Link>,
    journal: watch::Receiver<Link>,
    reading: Reading,
    published: Arc<AtomicU64>,
}

impl UnreliableBroker {
    fn is_up(&self) -> bool {
        self.published.fetch_add(1, Ordering::Relaxed);
        *self.link.borrow() == Link::Up
    }

    fn gone() -> longshore_broker::Error {
        let (address, reason) = ("127.0.0.1:2".into(), "gone".into());
        let kind = ErrorKind::Unreachable;
        longshore_broker::Error::Unavailable { kind, address, reason }
    }
}

#[async_trait]
impl Broker for UnreliableBroker {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        let is_lost = *queue == Queue::Journal && *self.journal.borrow() == Link::Down;
        if !self.is_up() || is_lost {
            let (kind, reason) = (ErrorKind::Unreachable, "gone".into());
            return Err(PublishError::Unknown { kind, reason });
        }
        self.inner.publish(queue, message).await
    }

    async fn subscribe(&self, queue: &Queue, prefetch: u16) -> Box<dyn Subscription> {
        self.inner.subscribe(queue, prefetch).await
    }

    async fn read_journal(&self, after: Option<JournalPosition>) -> Option<Box<dyn JournalReader>> {
        Some(self.reading.over(self.inner.read_journal(after).await?))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<Depth>, longshore_broker::Error> {
        if !self.is_up() {
            return Err(Self::gone());
        }
        self.inner.depth(queue).await
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browser>, longshore_broker::Error> {
        self.inner.browse(queue).await
    }

    async fn purge(&self, queue: &Queue) -> Result<(), longshore_broker::Error> {
        self.inner.purge(queue).await
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    async fn close(&self, grace: Duration) {
        self.inner.close(grace).await;
    }
}
