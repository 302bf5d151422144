//! One process of the fleet as the outside sees it: it lives or not, runs or not, and has three connections that can break.
//!
//! All processes share one thread and one time. What a process does to the world goes through its connections and its
//! handlers, and each of those asks here first. So a process that was killed does nothing any more from that moment on, at
//! whatever await its tasks were, and one that is frozen does nothing until it thaws; then all that it began goes through.

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

/// What a killed worker held is queued again within this time (S13).
const KILLED_WITHIN: Duration = Duration::from_millis(500);

/// The same of a frozen one, after `dead_after`.
const FROZEN_WITHIN: Duration = Duration::from_secs(1);

/// A process, from its start to its death.
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    pub(crate) name: String,
    /// Whether it may crash by itself.
    pub(crate) mortal: bool,
    condition: Mutex<Condition>,
    changed: Notify,
    link: watch::Sender<Link>,
    tray: Mutex<Tray>,
    /// The worker or scheduler whose heart beats here.
    beating: Mutex<Option<Beating>>,
    /// Whether the last heartbeat failed.
    missed_beat: AtomicBool,
    /// How often the server ended all its connections.
    resets: AtomicU64,
    /// A worker's own setting.
    dead_after: OnceLock<Duration>,
}

/// How a process is. Troubles overlap, so they are counted.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    dead: bool,
    troubles: [u32; 4],
    /// Counts the broker's connections.
    session: u64,
}

/// What can be wrong with a process for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It does not run.
    Frozen,
    /// No connection to the broker.
    Broker,
    /// No connection to the ledger, but for that of the heart.
    Ledger,
    /// The heart's connection to the ledger is cut.
    Heart,
}

/// Deliveries of one connection that are not settled.
#[derive(Default)]
struct Tray {
    next: u64,
    settles: BTreeMap<u64, Box<dyn Settle>>,
}

impl Process {
    pub(crate) fn start(world: &Arc<World>, name: String, mortal: bool) -> Arc<Self> {
        let process = Arc::new(Self {
            world: world.clone(),
            name,
            mortal,
            condition: Mutex::default(),
            changed: Notify::new(),
            link: watch::Sender::new(Link::Up),
            tray: Mutex::default(),
            beating: Mutex::default(),
            missed_beat: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            dead_after: OnceLock::new(),
        });
        world.processes.lock().push(process.clone());
        process
    }

    /// A worker's own setting, by which it wants to be judged.
    pub(crate) fn announces(&self, dead_after: Duration) {
        let _ = self.dead_after.set(dead_after);
    }

    /// After so much silence it may be taken for dead.
    pub(crate) fn dead_after(&self) -> Duration {
        self.dead_after.get().copied().unwrap_or(self.world.dead_after)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.condition.lock().dead
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        self.condition.lock().has(trouble)
    }

    /// Waits while the process is frozen; for ever if it is dead.
    pub(crate) async fn running(&self) {
        self.until(|condition| !condition.dead && !condition.has(Trouble::Frozen)).await;
    }

    /// Waits for ever if the process is dead.
    pub(crate) async fn alive(&self) {
        self.until(|condition| !condition.dead).await;
    }

    pub(crate) async fn died(&self) {
        self.until(|condition| condition.dead).await;
    }

    /// Waits until the trouble is over.
    pub(crate) async fn without(&self, trouble: Trouble) {
        self.until(|condition| !condition.has(trouble)).await;
    }

    /// The number of the connection to the broker, once there is one.
    pub(crate) async fn session(&self) -> u64 {
        self.without(Trouble::Broker).await;
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
            // Not a watch channel: that wakes those who wait in a random order.
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

    /// The ledger ends all its connections, this process's among them.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// A heartbeat failed, or not; tells whether the one before did.
    pub(crate) fn missed_beat(&self, this: bool) -> bool {
        self.missed_beat.swap(this, Ordering::Relaxed)
    }

    /// The worker whose heart beats here.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match &*self.beating.lock() {
            Some(Beating::Worker(node)) => Some(node.clone()),
            _ => None,
        }
    }

    /// The ledger sees that the heart's connection is gone; the next beat that gets through undoes it.
    fn sever(&self) {
        if let Some(name) = &*self.beating.lock() {
            self.world.ledger.disconnect(name);
        }
    }

    /// A beat that was on its way when its process died registers a connection that is gone.
    pub(crate) fn lose_connection_if_dead(&self) {
        if self.is_dead() {
            self.sever();
        }
    }

    // What is done to it

    /// SIGKILL: the broker puts back what it had delivered, and the ledger sees that the heart is severed.
    pub(crate) fn kill(&self) {
        self.world.note(|| format!("{} dies", self.name));
        self.change(|condition| {
            condition.dead = true;
            condition.session += 1;
        });
        self.clear_tray();
        self.sever();
        self.lost(self.found_within(KILLED_WITHIN));
        if matches!(*self.beating.lock(), Some(Beating::Scheduler(_))) {
            self.world.history.lock().scheduler_died = self.world.now();
        }
    }

    /// Where there are exclusive tasks, connections that are gone don't prove that these have
    /// stopped. Silence has to, and those who died lately are a crowd that gets twice the time.
    fn found_within(&self, usual: Duration) -> Duration {
        let crowd = 2 * self.dead_after() + FROZEN_WITHIN;
        if self.world.has_exclusive() { crowd } else { usual }
    }

    /// A worker stops: what it holds has to be queued again within this time.
    fn lost(&self, within: Duration) {
        if let Some(Beating::Worker(node)) = &*self.beating.lock() {
            let lost = LostWorker { at: self.world.now(), within };
            self.world.history.lock().lost.insert(node.clone(), lost);
        }
    }

    pub(crate) fn begin(&self, trouble: Trouble) {
        self.world.note(|| format!("{} has trouble: {trouble:?}", self.name));
        self.change(|condition| {
            condition.troubles[trouble as usize] += 1;
            if trouble == Trouble::Broker {
                condition.session += 1;
            }
        });
        if trouble == Trouble::Heart && self.world.dice.chance(500) {
            // Half of the cuts are resets, the others nobody notices.
            self.sever();
        }
        if trouble == Trouble::Frozen && !self.is_dead() {
            self.lost(self.found_within(self.dead_after() + FROZEN_WITHIN));
        }
        if trouble == Trouble::Broker {
            self.clear_tray();
            self.link.send_replace(Link::Down);
        }
    }

    pub(crate) fn end(&self, trouble: Trouble) {
        self.change(|condition| condition.troubles[trouble as usize] -= 1);
        if trouble == Trouble::Frozen
            && !self.is_dead()
            && let Some(Beating::Worker(node)) = &*self.beating.lock()
        {
            self.world.history.lock().lost.remove(node);
        }
        if trouble == Trouble::Broker && !self.has(trouble) {
            self.link.send_replace(Link::Up);
        }
    }

    // Deliveries

    /// Keeps the means to settle a delivery as long as its connection lives.
    pub(crate) fn keep(&self, session: u64, settle: Box<dyn Settle>) -> u64 {
        let mut tray = self.tray.lock();
        tray.next += 1;
        let id = tray.next;
        if self.condition.lock().session == session {
            tray.settles.insert(id, settle);
        }
        id
    }

    pub(crate) fn take(&self, id: u64) -> Option<Box<dyn Settle>> {
        self.tray.lock().settles.remove(&id)
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.tray.lock().settles.len()
    }

    fn clear_tray(&self) {
        let settles = std::mem::take(&mut self.tray.lock().settles);
        drop(settles);
    }
}

impl Condition {
    fn has(&self, trouble: Trouble) -> bool {
        self.troubles[trouble as usize] > 0
    }
}
