//! Follows the journal, checks each second whether the ledger lost something, and has it rebuilt.
//!
//! It also moves the ledger's position in the journal.
//!
//! ```text
//!   place in the ledger ─▶ rebuild to the end ─▶ follow: each second move the place ─┬─▶ in sync
//!            ▲                                                                       │
//!            └── place gone or behind where it was; or an admitted job is missing ◀──┘
//! ```
//!
//! Any number of schedulers do so at once: each job is restored once, and the place moves from
//! where each scheduler believes it to be. One that dies meanwhile leaves the place where it was,
//! and the next one does all of it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_broker::{Broker, JournalEnd, JournalEntry};
use longshore_ledger::{AdvanceJournalParams, Error, Ledger};
use longshore_protocol::{JobId, JournalEvent, JournalPosition, SchedulerId};
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::tail::{JournalTail, Step};
use super::{ControlLog, Journal, JournalStatus};
use crate::health::{Backoff, Health, Service};

/// The most jobs in one question which of them are missing.
const WINDOW: usize = 1_000;

/// Ticks (seconds) between two checks whether a journal that lapsed works again.
const PROBE_TICKS: u32 = 10;

/// The pause before the journal is read again.
const PAUSE: Duration = Duration::from_millis(100);

/// Rebuilds the ledger from the journal.
pub(crate) struct JournalRestorer {
    pub(super) me: SchedulerId,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) journal: Arc<Journal>,
    control_log: Arc<ControlLog>,
    health: Health,
}

/// From where the journal is read.
#[derive(Clone, Debug)]
enum Start {
    /// From the ledger's place in the journal. `rolled_back`: the place was further on before.
    Ledger { rolled_back: bool },
    /// From a place up to which the ledger had all. It was rolled back to before that, and has
    /// moved on since.
    Place(JournalPosition),
    /// From the beginning of the journal.
    Beginning,
}

/// Why the journal is not followed any more.
pub(super) enum StopReason {
    /// The journal can't be read.
    Journal(JournalEnd),
    /// The ledger failed otherwise than by being away.
    Ledger(Error),
    /// The broker keeps no journal.
    Absent,
}

impl StopReason {
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Journal(end) => end.to_string(),
            Self::Ledger(error) => error.to_string(),
            Self::Absent => "no journal".to_owned(),
        }
    }
}

impl From<JournalEnd> for StopReason {
    fn from(end: JournalEnd) -> Self {
        Self::Journal(end)
    }
}

/// The fields of a record that say which job the ledger has to have.
#[derive(Deserialize)]
struct Head {
    is: String,
    job: Option<JobId>,
}

impl JournalRestorer {
    pub(crate) fn new(
        me: SchedulerId,
        broker: Arc<dyn Broker>,
        (ledger, service): (Arc<dyn Ledger>, Service),
        journal: Arc<Journal>,
        control_log: Arc<ControlLog>,
    ) -> Self {
        let health = service.health("following the journal");
        Self { me, broker, ledger, journal, control_log, health }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        let mut start = Start::Ledger { rolled_back: false };
        let mut backoff = Backoff::new();
        loop {
            start = match self.run_once(&start).await {
                Ok(next) => next,
                Err(StopReason::Journal(JournalEnd::Lost)) => {
                    warn!("journal lost; a new one is written from the ledger");
                    Start::Beginning
                }
                Err(StopReason::Journal(JournalEnd::Unsupported(reason))) => {
                    warn!(
                        reason,
                        "the broker keeps no journal; jobs won't survive a loss of the ledger"
                    );
                    break;
                }
                Err(StopReason::Absent) => break,
                // The broker was closed; this scheduler will be stopped too.
                Err(StopReason::Journal(JournalEnd::Closed)) => break,
                Err(StopReason::Ledger(error)) => {
                    self.health.failed(&error);
                    self.journal.lapse();
                    backoff.wait().await;
                    Start::Beginning
                }
            };
            debug!(?start, "journal is read again");
            tokio::time::sleep(PAUSE).await;
        }
        self.journal.set_status(JournalStatus::Absent);
        std::future::pending::<()>().await;
    }

    /// Brings the ledger in sync with the journal and follows the journal, until it has to be read
    /// again.
    async fn run_once(&self, start: &Start) -> Result<Start, StopReason> {
        let status_before = *self.journal.status.borrow();
        if status_before == JournalStatus::InSync {
            self.journal.set_status(JournalStatus::Reading);
        }
        let believed = self.retry(|| self.ledger.journal_position()).await?;
        let has_gaps = self.journal.has_gaps.swap(false, Ordering::Relaxed);
        let from = match start {
            _ if has_gaps => None,
            Start::Ledger { .. } => believed.clone(),
            Start::Place(place) => Some(place.clone()),
            Start::Beginning => None,
        };
        let rolled_back = matches!(start, Start::Ledger { rolled_back: true } | Start::Place(_));
        let opened = JournalTail::open(&*self.broker, &self.journal, &self.me, from.clone()).await;
        let mut tail = opened.ok_or(StopReason::Absent)?;
        let rebuilt = self.rebuild(&mut tail, from.as_ref(), rolled_back).await?;
        let Some(place) = self.advance(believed, &rebuilt.end).await? else {
            return Ok(Start::Ledger { rolled_back: true });
        };
        // Jobs may have been lost again while they were restored.
        let again = from.map_or(Start::Beginning, Start::Place);
        for some in rebuilt.present.chunks(WINDOW) {
            if !self.retry(|| self.ledger.missing(some)).await?.is_empty() {
                return Ok(again);
            }
        }
        if self.journal.has_gaps.load(Ordering::Relaxed) {
            return Ok(Start::Beginning);
        }
        // What reads showed while the ledger lacked something was not done by users.
        self.control_log.clear();
        self.journal.set_status(JournalStatus::InSync);
        if status_before == JournalStatus::Lapsed {
            info!("journal is written again");
        }
        self.follow(&mut tail, place, rebuilt.end).await
    }

    /// Moves the ledger's place to `end`, unless another scheduler has moved it further. `None` if
    /// the ledger lost something meanwhile.
    async fn advance(
        &self,
        mut believed: Option<JournalPosition>,
        end: &JournalPosition,
    ) -> Result<Option<JournalPosition>, StopReason> {
        loop {
            let params = AdvanceJournalParams::new(believed.clone(), end.clone());
            let advance = || self.ledger.advance_journal(&params);
            match self.retry(advance).await? {
                Some(now) if now.offset >= end.offset => return Ok(Some(now)),
                now if now.is_none() || is_behind(now.as_ref(), believed.as_ref()) => {
                    return Ok(None);
                }
                now => believed = now,
            }
        }
    }

    /// Follows the journal from `read` on; the ledger's place is at `place`.
    async fn follow(
        &self,
        tail: &mut JournalTail<'_>,
        mut place: JournalPosition,
        mut read: JournalPosition,
    ) -> Result<Start, StopReason> {
        let mut known = read.clone();
        let (mut admitted, mut ticks) = (Vec::new(), 0);
        loop {
            match tail.next().await? {
                Step::Entry(entry) => {
                    admitted.extend(admitted_in(&entry));
                    read = entry.place;
                    if admitted.len() < WINDOW {
                        continue;
                    }
                }
                Step::End(at) => {
                    read = at;
                    continue;
                }
                Step::Tick => ticks += 1,
            }
            if *self.journal.status.borrow() == JournalStatus::Lapsed
                && ticks % PROBE_TICKS == 0
                && self.journal.mark(&self.me).await.is_some()
            {
                return Ok(Start::Beginning);
            }
            let pending = self.control_log.take_pending();
            let checked = self.check(&mut place, &read, &admitted).await;
            match self.health.note(checked) {
                Ok(Check::InSync) => {
                    self.write(pending).await;
                    known.clone_from(&read);
                    admitted.clear();
                }
                Ok(Check::RolledBack) => return Ok(Start::Ledger { rolled_back: true }),
                Ok(Check::Lacks(jobs)) => {
                    info!(jobs, "ledger lacks jobs that it had; it is rebuilt");
                    return Ok(Start::Place(known));
                }
                // The ledger is away; the jobs are asked for once it is back.
                Err(_) => self.control_log.put_back(pending),
            }
        }
    }

    /// Writes what users did, as far as it was read before a check that showed no loss.
    async fn write(&self, pending: Vec<JournalEvent>) {
        let mut pending = pending.into_iter();
        while let Some(event) = pending.next() {
            if !self.journal.write(&event).await {
                self.control_log.put_back([event].into_iter().chain(pending));
                return;
            }
        }
    }

    /// Moves the ledger's place to what was read, then asks for the jobs that were admitted since
    /// the last check. In this order a ledger that is rolled back in between shows it either way.
    async fn check(
        &self,
        place: &mut JournalPosition,
        read: &JournalPosition,
        admitted: &[JobId],
    ) -> Result<Check, Error> {
        loop {
            let now = if read.offset > place.offset {
                let params = AdvanceJournalParams::new(Some(place.clone()), read.clone());
                self.ledger.advance_journal(&params).await?
            } else {
                self.ledger.journal_position().await?
            };
            match now {
                Some(now) if now.offset >= place.offset => *place = now,
                _ => return Ok(Check::RolledBack),
            }
            // If another scheduler has moved the place only half-way, it is moved the rest: the
            // place that was seen must not be behind the jobs that are forgotten after this check.
            if place.offset >= read.offset {
                break;
            }
        }
        if admitted.is_empty() {
            return Ok(Check::InSync);
        }
        let lacking = self.ledger.missing(admitted).await?.len();
        Ok(if lacking == 0 { Check::InSync } else { Check::Lacks(lacking) })
    }

    /// Repeats a call until the ledger answers.
    pub(super) async fn retry<T, C>(&self, call: impl Fn() -> C) -> Result<T, StopReason>
    where
        C: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new();
        loop {
            match self.health.note(call().await) {
                Ok(answer) => return Ok(answer),
                Err(Error::Unavailable { .. }) => backoff.wait().await,
                Err(error) => return Err(StopReason::Ledger(error)),
            }
        }
    }
}

/// What a check of the ledger found.
enum Check {
    /// The ledger has all that was read.
    InSync,
    /// The ledger's place is gone, or behind where it was.
    RolledBack,
    /// The ledger lacks this many jobs that it had.
    Lacks(usize),
}

fn is_behind(now: Option<&JournalPosition>, before: Option<&JournalPosition>) -> bool {
    now.map(|now| now.offset) < before.map(|before| before.offset)
}

fn admitted_in(entry: &JournalEntry) -> Option<JobId> {
    let head: Head = serde_json::from_slice(&entry.body).ok()?;
    head.job.filter(|_| matches!(head.is.as_str(), "admitted" | "piece"))
}
