//! Decides which chunks may be claimed now, and which claimed chunk gets the next slot.
//!
//! ```text
//!   OnDemand:  message -- admit: wait for a slot ---------> claim ----------------------> run
//!   Ahead:     message -- admit: wait for a place ahead --> claim -- into_slot: wait ---> run
//! ```
//!
//! All waits are short: a message or a chunk that gets no place in time goes back to the queue,
//! since another worker may have a free slot. Deliberately absent: when to change the mode
//! (`prefetch_controller`).

use std::time::Duration;

use longshore_protocol::{ChunkMessage, Epoch};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::heartbeat::LivenessReceiver;
use crate::prefetch_controller::{PrefetchController, PrefetchMode};
use crate::recently_requeued::RecentlyRequeued;

/// How long the message of a chunk that was queued again (after its node was lost, for example)
/// waits for a slot before it is requeued for another worker: the chunk has waited enough.
const REQUEUE_AFTER: Duration = Duration::from_millis(10);

/// The same for a message that this worker requeued before: all workers may be busy.
const REQUEUE_AGAIN_AFTER: Duration = Duration::from_millis(60);

/// How long a message or a chunk that was fetched ahead waits for a place or a slot.
const WAIT_AHEAD: Duration = Duration::from_millis(100);

/// Hands out the slots of a worker, and the places for chunks that are claimed ahead of them.
pub(crate) struct Prefetcher {
    controller: PrefetchController,
    requeued: RecentlyRequeued,
    slots: Semaphore,
    slot_count: u32,
    /// Places for chunks that are claimed before they have a slot.
    ahead: Semaphore,
    ahead_count: u32,
    /// How long the message of a new chunk waits for a slot on demand. Behind long subtasks it
    /// would otherwise wait until RabbitMQ closes the channel.
    ack_after: Duration,
    liveness: LivenessReceiver,
    closing: CancellationToken,
}

/// What allows a worker to claim one chunk.
pub(crate) enum Admission<'a> {
    /// A free slot.
    Slot(Slot<'a>),
    /// A place ahead of the slots.
    Ahead(Ahead<'a>),
}

/// A slot, occupied until this is dropped.
pub(crate) struct Slot<'a> {
    prefetcher: &'a Prefetcher,
    _permit: SemaphorePermit<'a>,
}

/// A place ahead of the slots, occupied until this is dropped.
pub(crate) struct Ahead<'a> {
    prefetcher: &'a Prefetcher,
    _permit: SemaphorePermit<'a>,
}

impl Prefetcher {
    /// Nothing is admitted once `closing` is cancelled, or while `liveness` says that the ledger
    /// does not know of this worker.
    pub(crate) fn new(
        config: &Config,
        liveness: LivenessReceiver,
        closing: CancellationToken,
    ) -> Self {
        let ahead_after = config.prefetch_ahead_after.saturating_mul(config.slots).max(1);
        let ahead_count = places_ahead(config.slots);
        Self {
            controller: PrefetchController::new(ahead_after),
            requeued: RecentlyRequeued::default(),
            slots: Semaphore::new(config.slots as usize),
            slot_count: config.slots,
            ahead: Semaphore::new(ahead_count as usize),
            ahead_count,
            ack_after: config.ack_after,
            liveness,
            closing,
        }
    }

    /// Waits until the worker is in this mode.
    pub(crate) async fn until(&self, mode: PrefetchMode) {
        self.controller.until(mode).await;
    }

    /// How many messages of a queue the broker may deliver for the slots: one for each, and some on
    /// their way to the slots that become free meanwhile.
    pub(crate) fn message_limit(&self) -> u16 {
        u16::try_from(self.slot_count + (self.slot_count / 16).max(1)).unwrap_or(u16::MAX)
    }

    /// How many messages of a queue the broker may deliver ahead of the slots.
    pub(crate) fn message_limit_ahead(&self) -> u16 {
        4 * u16::try_from(self.ahead_count).unwrap_or(u16::MAX)
    }

    /// Waits until the chunk of a message may be claimed; `None` if its message is to be requeued.
    /// `is_prefetched` tells that the message was fetched ahead of the slots.
    pub(crate) async fn admit(
        &self,
        message: &ChunkMessage,
        is_prefetched: bool,
    ) -> Option<Admission<'_>> {
        match (self.controller.mode(), message.epoch) {
            (PrefetchMode::Ahead, Epoch::FIRST) => self.admit_ahead().await,
            (PrefetchMode::OnDemand, _) if is_prefetched => None,
            _ => self.admit_on_demand(message).await,
        }
    }

    async fn admit_on_demand(&self, message: &ChunkMessage) -> Option<Admission<'_>> {
        let patience = match (message.epoch != Epoch::FIRST, self.requeued.contains(message)) {
            (true, false) => REQUEUE_AFTER,
            (true, true) => REQUEUE_AGAIN_AFTER,
            (false, _) => self.ack_after,
        };
        let Some(permit) = self.acquire(&self.slots, 1, patience).await else {
            self.requeued.insert(message);
            return None;
        };
        Some(Admission::Slot(Slot { prefetcher: self, _permit: permit }))
    }

    async fn admit_ahead(&self) -> Option<Admission<'_>> {
        let weight = self.controller.weight(self.ahead_count, self.slot_count);
        let Some(permit) = self.acquire(&self.ahead, weight, WAIT_AHEAD).await else {
            self.controller.stop_ahead();
            return None;
        };
        Some(Admission::Ahead(Ahead { prefetcher: self, _permit: permit }))
    }

    /// Acquires `count` permits, and waits until the ledger knows that the worker lives.
    async fn acquire<'a>(
        &self,
        permits: &'a Semaphore,
        count: u32,
        patience: Duration,
    ) -> Option<SemaphorePermit<'a>> {
        let ready = async {
            let permit = permits.acquire_many(count).await.ok()?;
            self.liveness.until_live().await;
            Some(permit)
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            permit = tokio::time::timeout(patience, ready) => permit.ok().flatten(),
        }
    }
}

impl<'a> Admission<'a> {
    /// The slot of a chunk that was claimed; `None` if the chunk was cancelled or no slot became
    /// free in time.
    pub(crate) async fn into_slot(self, cancel: &CancellationToken) -> Option<Slot<'a>> {
        let place = match self {
            Self::Slot(slot) => return Some(slot),
            Self::Ahead(place) => place,
        };
        let prefetcher = place.prefetcher;
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            permit = tokio::time::timeout(WAIT_AHEAD, prefetcher.slots.acquire()) => permit.ok(),
        };
        if let Some(Ok(permit)) = permit {
            return Some(Slot { prefetcher, _permit: permit });
        }
        prefetcher.controller.stop_ahead();
        None
    }
}

impl Slot<'_> {
    /// Frees the slot, and records how long it was busy.
    pub(crate) fn free(self, busy: Duration) {
        self.prefetcher.controller.record(busy);
    }
}

/// How many very short chunks may be claimed ahead of the slots, so that ledger calls and
/// acknowledgements of dozens go together also where slots are few.
fn places_ahead(slots: u32) -> u32 {
    (8 * slots).clamp(128, 256)
}
