//! A simulated process of the fleet: whether it lives and runs, and its three connections.
//!
//! All processes share one thread and one time. All effects of a process go through its connections
//! and its handlers, and each of those asks here first. So a killed process has no effect from that
//! moment on, whatever its tasks awaited, and a frozen process has none until it thaws; then
//! everything that it began continues.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_broker::{Link, Settle};
use longshore_ledger::Process as Beating;
use longshore_protocol::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::history::LostWorker;
use crate::world::World;

/// The chunks of a killed worker are queued again within this time (S13).
const KILLED_WITHIN: Duration = Duration::from_millis(500);

/// The chunks of a frozen worker are queued again within this time after `dead_after` (S13).
const FROZEN_WITHIN: Duration = Duration::from_secs(1);

/// A process, from its start to its death.
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    pub(crate) name: String,
    /// Whether the nemesis may kill it, and calls may crash it.
    pub(crate) is_mortal: bool,
    condition: Mutex<Condition>,
    changed: Notify,
    link: watch::Sender<Link>,
    deliveries: Mutex<Deliveries>,
    /// The worker or scheduler that sends heartbeats here.
    beating: Mutex<Option<Beating>>,
    /// Whether the last heartbeat failed.
    missed_beat: AtomicBool,
    /// How often the ledger closed all connections of the process.
    resets: AtomicU64,
    /// The setting of a worker that overrides that of the schedulers.
    dead_after: OnceLock<Duration>,
}

/// The state of a process. Impairments overlap, so they are counted.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    dead: bool,
    impairments: [u32; 4],
    /// The number of the current connection to the broker.
    session: u64,
}

/// A temporary fault of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impairment {
    /// The process does not run.
    Frozen,
    /// The connection to the broker is cut.
    Broker,
    /// The connections to the ledger are cut, except that of the heartbeat.
    Ledger,
    /// The heartbeat's connection to the ledger is cut.
    Heartbeat,
}

/// The unsettled deliveries of one connection.
#[derive(Default)]
struct Deliveries {
    next: u64,
    settles: BTreeMap<u64, Box<dyn Settle>>,
}

impl Process {
    pub(crate) fn start(world: &Arc<World>, name: String, is_mortal: bool) -> Arc<Self> {
        let process = Arc::new(Self {
            world: world.clone(),
            name,
            is_mortal,
            condition: Mutex::default(),
            changed: Notify::new(),
            link: watch::Sender::new(Link::Up),
            deliveries: Mutex::default(),
            beating: Mutex::default(),
            missed_beat: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            dead_after: OnceLock::new(),
        });
        world.processes.lock().push(process.clone());
        process
    }

    /// Sets the `dead_after` that the worker announces.
    pub(crate) fn announces(&self, dead_after: Duration) {
        let _ = self.dead_after.set(dead_after);
    }

    /// After this time without a heartbeat the process may be declared lost.
    pub(crate) fn dead_after(&self) -> Duration {
        self.dead_after.get().copied().unwrap_or(self.world.dead_after)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.condition.lock().dead
    }

    pub(crate) fn has(&self, impairment: Impairment) -> bool {
        self.condition.lock().has(impairment)
    }

    /// Waits while the process is frozen, and for ever if it is dead.
    pub(crate) async fn running(&self) {
        self.until(|condition| !condition.dead && !condition.has(Impairment::Frozen)).await;
    }

    /// Waits for ever if the process is dead.
    pub(crate) async fn alive(&self) {
        self.until(|condition| !condition.dead).await;
    }

    pub(crate) async fn died(&self) {
        self.until(|condition| condition.dead).await;
    }

    /// Waits until the impairment is over.
    pub(crate) async fn without(&self, impairment: Impairment) {
        self.until(|condition| !condition.has(impairment)).await;
    }

    /// Waits for a connection to the broker and returns its number.
    pub(crate) async fn session(&self) -> u64 {
        self.without(Impairment::Broker).await;
        self.condition.lock().session
    }

    /// Waits for the end of a connection to the broker.
    pub(crate) async fn session_over(&self, session: u64) {
        self.until(|condition| condition.dead || condition.session != session).await;
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    async fn until(&self, holds: impl Fn(&Condition) -> bool) {
        loop {
            // Not a watch channel, which wakes its waiters in a random order.
            let changed = self.changed.notified();
            if holds(&self.condition.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.condition.lock());
        self.changed.notify_waiters();
    }

    pub(crate) fn beats_as(&self, name: Beating) {
        *self.beating.lock() = Some(name);
    }

    /// Closes all connections of the process to the ledger.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Records whether a heartbeat failed; returns whether the one before did.
    pub(crate) fn missed_beat(&self, this: bool) -> bool {
        self.missed_beat.swap(this, Ordering::Relaxed)
    }

    /// The worker that sends heartbeats here, if it is a worker.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match &*self.beating.lock() {
            Some(Beating::Worker(node)) => Some(node.clone()),
            _ => None,
        }
    }

    /// Makes the ledger see the registered connection as closed, until the next heartbeat gets
    /// through.
    fn lose_connection(&self) {
        if let Some(name) = &*self.beating.lock() {
            self.world.ledger.disconnect(name);
        }
    }

    /// Closes the connection that a heartbeat registered which was in flight when its process died.
    pub(crate) fn lose_connection_if_dead(&self) {
        if self.is_dead() {
            self.lose_connection();
        }
    }

    // Faults

    /// SIGKILL: the broker requeues unsettled deliveries, and the ledger sees the closed
    /// connection.
    pub(crate) fn kill(&self) {
        self.world.note(|| format!("{} dies", self.name));
        self.change(|condition| {
            condition.dead = true;
            condition.session += 1;
        });
        self.drop_deliveries();
        self.lose_connection();
        self.lost(self.found_within(KILLED_WITHIN));
        if matches!(*self.beating.lock(), Some(Beating::Scheduler(_))) {
            self.world.history.lock().scheduler_died = self.world.now();
        }
    }

    /// With exclusive tasks, a closed connection doesn't prove that they have stopped; only silence
    /// does. Workers that died shortly after each other count as a mass loss, which is given twice
    /// the time.
    fn found_within(&self, usual: Duration) -> Duration {
        let with_exclusive = 2 * self.dead_after() + FROZEN_WITHIN;
        if self.world.has_exclusive() { with_exclusive } else { usual }
    }

    /// Records that a worker stopped, and within which time its chunks must be queued again.
    fn lost(&self, within: Duration) {
        if let Some(Beating::Worker(node)) = &*self.beating.lock() {
            let lost = LostWorker { at: self.world.now(), within };
            self.world.history.lock().lost.insert(node.clone(), lost);
        }
    }

    pub(crate) fn begin(&self, impairment: Impairment) {
        self.world.note(|| format!("{} is impaired: {impairment:?}", self.name));
        self.change(|condition| {
            condition.impairments[impairment as usize] += 1;
            if impairment == Impairment::Broker {
                condition.session += 1;
            }
        });
        if impairment == Impairment::Heartbeat && self.world.rng.chance(500) {
            // Half of the cuts are resets; nothing reports the others.
            self.lose_connection();
        }
        if impairment == Impairment::Frozen && !self.is_dead() {
            self.lost(self.found_within(self.dead_after() + FROZEN_WITHIN));
        }
        if impairment == Impairment::Broker {
            self.drop_deliveries();
            self.link.send_replace(Link::Down);
        }
    }

    pub(crate) fn end(&self, impairment: Impairment) {
        self.change(|condition| condition.impairments[impairment as usize] -= 1);
        if impairment == Impairment::Frozen
            && !self.is_dead()
            && let Some(Beating::Worker(node)) = &*self.beating.lock()
        {
            self.world.history.lock().lost.remove(node);
        }
        if impairment == Impairment::Broker && !self.has(impairment) {
            self.link.send_replace(Link::Up);
        }
    }

    // Deliveries

    /// Keeps the handle that settles a delivery as long as its connection lives.
    pub(crate) fn keep(&self, session: u64, settle: Box<dyn Settle>) -> u64 {
        let mut deliveries = self.deliveries.lock();
        deliveries.next += 1;
        let id = deliveries.next;
        if self.condition.lock().session == session {
            deliveries.settles.insert(id, settle);
        }
        id
    }

    pub(crate) fn take(&self, id: u64) -> Option<Box<dyn Settle>> {
        self.deliveries.lock().settles.remove(&id)
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.deliveries.lock().settles.len()
    }

    fn drop_deliveries(&self) {
        let settles = std::mem::take(&mut self.deliveries.lock().settles);
        drop(settles);
    }
}

impl Condition {
    fn has(&self, impairment: Impairment) -> bool {
        self.impairments[impairment as usize] > 0
    }
}
