//! The journal: what a ledger that was lost is rebuilt from.
//!
//! ```text
//!   admitter ─ admitted ─┐                               ┌─▶ follow: a ledger that lost something? ─┐
//!   performer ─ ended,   ├─▶ Journal ─▶ broker's stream ─▶ line                                     │
//!     paused, reopened ──┘                               └─▶ rebuild: restore what it lacks ◀───────┘
//! ```
//!
//! A record is written after the ledger holds what it tells of, so a ledger that stands at a place of the journal has all
//! that is told up to there. [`words`] is pure: it makes one word about each job of all records about it.
//!
//! Work never waits for the journal for long: one that can't be written while the broker is there has lapsed, and is begun
//! again from the ledger once it works.

pub(crate) mod keeper;
mod line;
mod notes;
mod rebuild;
mod seed;
mod words;

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

pub(crate) use notes::Notes;
pub(crate) use seed::{admitted, tell};

/// So many writes in a row that fail while the broker is there, and the journal has lapsed. With the pauses between them
/// that is a quarter of a minute at least.
const MOST_FAILURES: u32 = 8;

/// Records of jobs that begin or end wait for one another, at most so long,
const GATHER: Duration = Duration::from_millis(20);

/// and until there are so many.
const CROWD: usize = 16;

/// The writing end of the journal.
pub(crate) struct Journal {
    broker: Arc<dyn Broker>,
    standing: watch::Sender<Standing>,
    health: Health,
    begun: Instant,
    /// How many gather.
    gathered: AtomicUsize,
    /// Told when they are a crowd.
    crowded: Notify,
    /// Writes that failed in a row.
    failures: AtomicU32,
    /// Something was not written since the journal was begun from the ledger last.
    has_gaps: AtomicBool,
}

/// A place among those that gather, until it is dropped.
struct Place<'a> {
    all: &'a AtomicUsize,
    number: usize,
}

impl<'a> Place<'a> {
    fn take(all: &'a AtomicUsize) -> Self {
        Self { all, number: all.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the journal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody has reached it yet.
    Unknown,
    /// It is being read: the ledger may lack something.
    Reading,
    /// It is written, and the ledger has what it tells.
    Kept,
    /// The broker is there, but the journal is not to be had. Nothing waits for it.
    Lapsed,
    /// The broker keeps none.
    Absent,
}

impl Journal {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            standing: watch::Sender::new(Standing::Unknown),
            health: Health::new("writing the journal"),
            begun: Instant::now(),
            gathered: AtomicUsize::new(0),
            crowded: Notify::new(),
            failures: AtomicU32::new(0),
            has_gaps: AtomicBool::new(false),
        }
    }

    /// Whether there is one to write to, now or soon.
    pub(crate) fn is_wanted(&self) -> bool {
        !matches!(*self.standing.borrow(), Standing::Absent | Standing::Lapsed)
    }

    /// Waits while the ledger may lack what the journal tells.
    pub(crate) async fn ready(&self) {
        let mut standing = self.standing.subscribe();
        let settled = |now: &Standing| !matches!(now, Standing::Unknown | Standing::Reading);
        // The sender is ours, so there is no error.
        let _ = standing.wait_for(settled).await;
    }

    /// Writes once. False if it has to be written again: nobody knows whether it arrived.
    pub(crate) async fn write(&self, news: &JournalEvent) -> bool {
        match *self.standing.borrow() {
            Standing::Absent => return true,
            Standing::Lapsed => {
                self.has_gaps.store(true, Ordering::Relaxed);
                return true;
            }
            Standing::Unknown => return false,
            Standing::Reading | Standing::Kept => {}
        }
        for body in JournalRecord::encode(news) {
            let message = Outgoing { body: body.into(), ..Outgoing::default() };
            if !self.publish(message).await {
                return false;
            }
        }
        true
    }

    /// Waits for the next of the moments at which whoever has something to tell tells it. RabbitMQ, and the schedulers that read the
    /// journal, take in several records that come together for little more than one; and so they are rarely in the way of a
    /// short job, which begins and ends between two moments.
    pub(crate) async fn gather(&self) {
        let since_the_last = self.begun.elapsed().as_nanos() % GATHER.as_nanos();
        let moment = tokio::time::sleep(GATHER - Duration::from_nanos_u128(since_the_last));
        let mut crowded = pin!(self.crowded.notified());
        crowded.as_mut().enable();
        let place = Place::take(&self.gathered);
        if place.number >= CROWD {
            self.crowded.notify_waiters();
        }
        tokio::select! {
            () = moment => {}
            () = crowded => {}
        }
    }

    /// Writes until it is written, or the journal lapses.
    pub(crate) async fn insist(&self, news: &JournalEvent) {
        let mut backoff = Backoff::new();
        while !self.write(news).await {
            backoff.wait().await;
        }
    }

    /// Writes a mark, also into a journal that has lapsed; gives the name of the record once it is written.
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
        if is_there && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FAILURES {
            self.lapse();
        }
        false
    }

    /// Work goes on without it.
    fn lapse(&self) {
        if !matches!(self.stand(Standing::Lapsed), Standing::Lapsed | Standing::Absent) {
            self.has_gaps.store(true, Ordering::Relaxed);
            warn!(
                "the journal can't be kept; until it can, what is admitted won't survive a loss of the ledger"
            );
        }
    }

    /// Gives how it stood before.
    fn stand(&self, now: Standing) -> Standing {
        self.standing.send_replace(now)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use longshore_broker::memory::MemoryBroker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_at_different_times_is_gathered_until_one() {
        let journal = Journal::new(Arc::new(MemoryBroker::new()));
        let begun = Instant::now();
        let from = async |ms| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            journal.gather().await;
            begun.elapsed().as_millis()
        };
        let gathered = tokio::join!(from(0), from(1), from(19), from(20), from(1_000_000_007));
        assert_eq!(gathered, (20, 20, 20, 40, 1_000_000_020));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_does_not_wait() {
        let journal = Journal::new(Arc::new(MemoryBroker::new()));
        let begun = Instant::now();
        let gather = async || {
            journal.gather().await;
            begun.elapsed().as_millis()
        };
        assert_eq!(join_all((0..CROWD).map(|_| gather())).await, [0; CROWD]);
        assert_eq!(join_all((1..CROWD).map(|_| gather())).await, [20; CROWD - 1]);
        let given_up = tokio::time::timeout(Duration::ZERO, join_all((1..CROWD).map(|_| gather())));
        assert!(given_up.await.is_err(), "they are too few");
        assert_eq!(gather().await, 40, "who gave up is no part of a crowd");
    }

    #[tokio::test]
    async fn what_is_written_depends_on_how_the_journal_stands() {
        // Whether it need not be written again, how many records there are, whether the journal has a gap.
        let cases = [
            (Standing::Unknown, false, 0, false),
            (Standing::Reading, true, 1, false),
            (Standing::Kept, true, 1, false),
            (Standing::Lapsed, true, 0, true),
            (Standing::Absent, true, 0, false),
        ];
        for (standing, is_done, records, has_gap) in cases {
            let broker = Arc::new(MemoryBroker::with_journal());
            let journal = Journal::new(broker.clone());
            journal.stand(standing);
            let news = JournalEvent::Mark { by: SchedulerId::new("s") };
            assert_eq!(journal.write(&news).await, is_done, "{standing:?}");
            let depth = broker.depth(&Queue::Journal).await.expect("it is in memory");
            assert_eq!(depth.unwrap_or_default().ready, records, "{standing:?}");
            assert_eq!(journal.has_gaps.load(Ordering::Relaxed), has_gap, "{standing:?}");
        }
    }
}
