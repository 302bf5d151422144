//! A ledger and a broker that can be taken away, and that count what they are asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longshore_broker::{
    Broker, Depth, JournalReader, Link, Outgoing, PublishError, Queue, Subscription,
};
use longshore_ledger::testing::{Answer, Intercepted, Interceptor, Operation};
use longshore_ledger::{ControlError, Error, Event, Events, Ledger, Topic};
use longshore_protocol::JournalPosition;
use tokio::sync::watch;

use crate::reading::Reading;

/// How the ledger is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers.
    Well,
    /// It can't be reached.
    Away,
    /// It answers `admit` and `reject` with what makes no sense.
    Corrupt,
}

/// Takes the ledger and the broker away from schedulers and workers.
#[derive(Clone)]
pub(crate) struct Outage {
    ledger: watch::Sender<Health>,
    link: watch::Sender<Link>,
    asked: Arc<AtomicU64>,
    published: Arc<AtomicU64>,
    mishap: Arc<Mutex<Option<Mishap>>>,
    journal: watch::Sender<Link>,
    reading: Reading,
    deaf: Arc<AtomicBool>,
}

/// Something that happens before the ledger is asked for the nth time.
struct Mishap {
    before: u64,
    what: Box<dyn FnOnce() + Send>,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            ledger: watch::Sender::new(Health::Well),
            link: watch::Sender::new(Link::Up),
            asked: Arc::default(),
            published: Arc::default(),
            mishap: Arc::default(),
            journal: watch::Sender::new(Link::Up),
            reading: Reading::default(),
            deaf: Arc::default(),
        }
    }

    /// No hint of the ledger arrives at those who begin to follow them from now on.
    pub(crate) fn lose_hints(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Has something happen before the schedulers' nth question to the ledger from now on.
    pub(crate) fn before_question(&self, nth: u64, what: impl FnOnce() + Send + 'static) {
        let mishap = Mishap { before: self.asked() + nth, what: Box::new(what) };
        *self.mishap.lock().unwrap() = Some(mishap);
    }

    /// Whether the journal can be written.
    pub(crate) fn set_journal(&self, link: Link) {
        self.journal.send_replace(link);
    }

    /// Whether the journal can be read.
    pub(crate) fn set_reading(&self, link: Link) {
        self.reading.set(link);
    }

    /// Nobody is told that the journal was lost; reading just goes on in silence.
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

    /// How often schedulers have asked the ledger anything.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// How often schedulers have tried to publish or to learn how full a queue is.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(crate) fn ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let (health, asked) = (self.ledger.subscribe(), self.asked.clone());
        let (mishap, deaf) = (self.mishap.clone(), self.deaf.clone());
        Arc::new(Intercepted(Fickle { inner: inner.clone(), health, asked, mishap, deaf }))
    }

    /// The same, whose calls are not counted.
    pub(crate) fn workers_ledger(&self, inner: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        let health = self.ledger.subscribe();
        let (asked, mishap, deaf) = (Arc::default(), Arc::default(), Arc::default());
        Arc::new(Intercepted(Fickle { inner: inner.clone(), health, asked, mishap, deaf }))
    }

    pub(crate) fn broker(&self, inner: &Arc<dyn Broker>) -> Arc<dyn Broker> {
        let (link, published) = (self.link.subscribe(), self.published.clone());
        let journal = self.journal.subscribe();
        let reading = self.reading.clone();
        Arc::new(Severed { inner: inner.clone(), link, journal, reading, published })
    }
}

struct Fickle {
    inner: Arc<dyn Ledger>,
    health: watch::Receiver<Health>,
    asked: Arc<AtomicU64>,
    mishap: Arc<Mutex<Option<Mishap>>>,
    deaf: Arc<AtomicBool>,
}

/// Hints that never come.
struct Silence;

#[async_trait]
impl Events for Silence {
    async fn next(&mut self) -> Event {
        std::future::pending().await
    }
}

impl Fickle {
    fn ask(&self, operation: &'static str) -> Result<(), Error> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let due = self.mishap.lock().unwrap().take_if(|mishap| mishap.before <= asked);
        if let Some(mishap) = due {
            (mishap.what)();
        }
        let health = *self.health.borrow();
        match (health, operation) {
            (Health::Away, _) => {
                let (address, reason) = ("127.0.0.1:1".into(), "gone".into());
                Err(Error::Unavailable { address, reason })
            }
            (Health::Corrupt, "admit" | "reject") => {
                Err(Error::Corrupt { operation, detail: "a list where a hash was".into() })
            }
            (Health::Well | Health::Corrupt, _) => Ok(()),
        }
    }
}

#[async_trait]
impl Interceptor for Fickle {
    fn ledger(&self) -> &dyn Ledger {
        self.inner.as_ref()
    }

    async fn intercept(&self, operation: Operation) -> Result<Answer, ControlError> {
        self.ask(operation.name())?;
        operation.call(self.inner.as_ref()).await
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        self.ask("events")?;
        let is_deaf = self.deaf.load(Ordering::Relaxed);
        if is_deaf { Ok(Box::new(Silence)) } else { self.inner.events(topic).await }
    }
}

struct Severed {
    inner: Arc<dyn Broker>,
    link: watch::Receiver<Link>,
    journal: watch::Receiver<Link>,
    reading: Reading,
    published: Arc<AtomicU64>,
}

impl Severed {
    fn is_up(&self) -> bool {
        self.published.fetch_add(1, Ordering::Relaxed);
        *self.link.borrow() == Link::Up
    }

    fn gone() -> longshore_broker::Error {
        let (address, reason) = ("127.0.0.1:2".into(), "gone".into());
        longshore_broker::Error::Unreachable { address, reason }
    }
}

#[async_trait]
impl Broker for Severed {
    async fn publish(&self, queue: &Queue, message: Outgoing) -> Result<(), PublishError> {
        let is_lost = *queue == Queue::Journal && *self.journal.borrow() == Link::Down;
        if !self.is_up() || is_lost {
            return Err(PublishError::Unknown("gone".into()));
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
