//! The writing end of the journal, the stream in the broker from which a lost ledger is rebuilt.
//!
//! ```text
//!   admitter ─ admitted ─┐                               ┌─▶ restorer: is anything lost? ─┐
//!   executor ─ ended,    ├─▶ Journal ─▶ broker's stream ─▶ tail                           │
//!     paused, reopened ──┘                               └─▶ rebuild: restore the rest ◀──┘
//! ```
//!
//! A record is written after the ledger holds what the record says, so a ledger that is at a place
//! of the journal has all that the journal says up to there. [`state`] is pure: it reduces all
//! records about a job to the job's last state.
//!
//! Work never waits long for the journal: one that can't be written while the broker is there has
//! lapsed, and is backfilled from the ledger once it works again.

mod backfill;
mod control_log;
mod rebuild;
pub(crate) mod restorer;
mod state;
mod tail;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use longshore_broker::{Broker, Link, Outgoing, Queue};
use longshore_protocol::{JournalEvent, JournalRecord, SchedulerId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use crate::health::{Backoff, Health};

pub(crate) use backfill::{admission_record, backfill_job};
pub(crate) use control_log::ControlLog;

/// After this many writes in a row that fail while the broker is there, the journal has lapsed.
/// With the pauses between them that takes 15 s at least.
const MAX_FAILURES: u32 = 8;

/// Records of jobs that begin or end are written in batches, each at most this long after the one
/// before ...
const BATCH_EVERY: Duration = Duration::from_millis(20);

/// ... or as soon as this many records wait.
const FULL_BATCH: usize = 16;

/// The writing end of the journal.
pub(crate) struct Journal {
    broker: Arc<dyn Broker>,
    status: watch::Sender<JournalStatus>,
    health: Health,
    created_at: Instant,
    /// How many records wait for the next batch.
    waiting: AtomicUsize,
    /// Notified when they are a full batch.
    batch_full: Notify,
    /// Writes that failed in a row.
    failures: AtomicU32,
    /// Records were left out since the journal was last backfilled from the ledger.
    has_gaps: AtomicBool,
}

/// A record that waits for the next batch, until this is dropped.
struct BatchMember<'a> {
    all: &'a AtomicUsize,
    number: usize,
}

impl<'a> BatchMember<'a> {
    fn join(all: &'a AtomicUsize) -> Self {
        Self { all, number: all.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for BatchMember<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the journal is there, and in step with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalStatus {
    /// It was not reached yet.
    Unknown,
    /// It is being read: the ledger may lack what it says.
    Reading,
    /// It is written, and the ledger has what it says.
    InSync,
    /// The broker is there, but the journal can't be written or read. Nothing waits for it.
    Lapsed,
    /// The broker keeps no journal.
    Absent,
}

impl Journal {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            status: watch::Sender::new(JournalStatus::Unknown),
            health: Health::new("writing the journal"),
            created_at: Instant::now(),
            waiting: AtomicUsize::new(0),
            batch_full: Notify::new(),
            failures: AtomicU32::new(0),
            has_gaps: AtomicBool::new(false),
        }
    }

    /// Whether there is a journal to write to, now or soon.
    pub(crate) fn is_wanted(&self) -> bool {
        !matches!(*self.status.borrow(), JournalStatus::Absent | JournalStatus::Lapsed)
    }

    /// Waits while the ledger may lack what the journal says.
    pub(crate) async fn ready(&self) {
        let mut status = self.status.subscribe();
        let settled =
            |now: &JournalStatus| !matches!(now, JournalStatus::Unknown | JournalStatus::Reading);
        // This struct has the sender, so there is no error.
        let _ = status.wait_for(settled).await;
    }

    /// Writes a record, once. Returns false if it has to be written again: whether it arrived is
    /// unknown.
    pub(crate) async fn write(&self, event: &JournalEvent) -> bool {
        match *self.status.borrow() {
            JournalStatus::Absent => return true,
            JournalStatus::Lapsed => {
                self.has_gaps.store(true, Ordering::Relaxed);
                return true;
            }
            JournalStatus::Unknown => return false,
            JournalStatus::Reading | JournalStatus::InSync => {}
        }
        for body in JournalRecord::encode(event) {
            let message = Outgoing { body: body.into(), ..Outgoing::default() };
            if !self.publish(message).await {
                return false;
            }
        }
        true
    }

    /// Waits for the next batch. RabbitMQ, and the schedulers that read the journal, handle several
    /// records that come together for little more than one; and batches rarely delay a short job,
    /// which begins and ends between two of them.
    pub(crate) async fn join_batch(&self) {
        let since_last = self.created_at.elapsed().as_nanos() % BATCH_EVERY.as_nanos();
        let next_batch = tokio::time::sleep(BATCH_EVERY - Duration::from_nanos_u128(since_last));
        let mut batch_full = pin!(self.batch_full.notified());
        batch_full.as_mut().enable();
        let member = BatchMember::join(&self.waiting);
        if member.number >= FULL_BATCH {
            self.batch_full.notify_waiters();
        }
        tokio::select! {
            () = next_batch => {}
            () = batch_full => {}
        }
    }

    /// Writes a record until it is written, or the journal lapses.
    pub(crate) async fn write_until_done(&self, event: &JournalEvent) {
        let mut backoff = Backoff::new();
        while !self.write(event).await {
            backoff.wait().await;
        }
    }

    /// Writes a mark, also into a journal that has lapsed; returns the name of the record once it
    /// is written.
    async fn mark(&self, by: &SchedulerId) -> Option<String> {
        let record = Uuid::new_v4().to_string();
        let body = JournalRecord::encode(&JournalEvent::Mark { by: by.clone() }).concat().into();
        let message_id = Some(record.clone());
        let message = Outgoing { body, message_id, headers: Vec::new() };
        self.publish(message).await.then_some(record)
    }

    async fn publish(&self, message: Outgoing) -> bool {
        let published = self.broker.publish(&Queue::Journal, message).await;
        if self.health.note(published).is_ok() {
            self.failures.store(0, Ordering::Relaxed);
            return true;
        }
        let is_there = *self.broker.link().borrow() == Link::Up;
        if is_there && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_FAILURES {
            self.lapse();
        }
        false
    }

    /// From here on work goes on without the journal.
    fn lapse(&self) {
        if !matches!(
            self.set_status(JournalStatus::Lapsed),
            JournalStatus::Lapsed | JournalStatus::Absent
        ) {
            self.has_gaps.store(true, Ordering::Relaxed);
            warn!("journal can't be written; jobs admitted now won't survive a loss of the ledger");
        }
    }

    /// Sets the status; returns the one before.
    fn set_status(&self, now: JournalStatus) -> JournalStatus {
        self.status.send_replace(now)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use longshore_broker::memory::MemoryBroker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_that_come_at_different_times_are_written_together() {
        let journal = Journal::new(Arc::new(MemoryBroker::new()));
        let begun = Instant::now();
        let from = async |ms| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            journal.join_batch().await;
            begun.elapsed().as_millis()
        };
        let written = tokio::join!(from(0), from(1), from(19), from(20), from(1_000_000_007));
        assert_eq!(written, (20, 20, 20, 40, 1_000_000_020));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_does_not_wait() {
        let journal = Journal::new(Arc::new(MemoryBroker::new()));
        let begun = Instant::now();
        let join = async || {
            journal.join_batch().await;
            begun.elapsed().as_millis()
        };
        assert_eq!(join_all((0..FULL_BATCH).map(|_| join())).await, [0; FULL_BATCH]);
        assert_eq!(join_all((1..FULL_BATCH).map(|_| join())).await, [20; FULL_BATCH - 1]);
        let given_up =
            tokio::time::timeout(Duration::ZERO, join_all((1..FULL_BATCH).map(|_| join())));
        assert!(given_up.await.is_err(), "they are too few for a full batch");
        assert_eq!(join().await, 40, "a record that was given up is in no batch");
    }

    #[tokio::test]
    async fn what_is_written_depends_on_the_status_of_the_journal() {
        // Whether the write is done, how many records there are, whether the journal has a gap.
        let cases = [
            (JournalStatus::Unknown, false, 0, false),
            (JournalStatus::Reading, true, 1, false),
            (JournalStatus::InSync, true, 1, false),
            (JournalStatus::Lapsed, true, 0, true),
            (JournalStatus::Absent, true, 0, false),
        ];
        for (status, is_done, records, has_gap) in cases {
            let broker = Arc::new(MemoryBroker::with_journal());
            let journal = Journal::new(broker.clone());
            journal.set_status(status);
            let event = JournalEvent::Mark { by: SchedulerId::new("s") };
            assert_eq!(journal.write(&event).await, is_done, "{status:?}");
            let depth = broker.depth(&Queue::Journal).await.expect("it is in memory");
            assert_eq!(depth.unwrap_or_default().ready, records, "{status:?}");
            assert_eq!(journal.has_gaps.load(Ordering::Relaxed), has_gap, "{status:?}");
        }
    }
}
