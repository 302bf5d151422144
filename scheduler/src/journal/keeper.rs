//! Follows the journal, moves the ledger's place in it, and has the ledger rebuilt when it lost something.
//!
//! ```text
//!   place in the ledger ─▶ rebuild to the end ─▶ follow: each second move the place ─┬─▶ all is well
//!            ▲                                                                       │
//!            └── gone, or behind where it was; or a job that was told of is missing ◀┘
//! ```
//!
//! Any number of schedulers do so at once: what they put back is put back once, and the place moves from where each
//! believes it to be. One that dies on the way leaves the place where it was, and the next one does all of it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_broker::{Broker, JournalEnd, JournalEntry};
use longshore_ledger::{AdvanceJournalParams, Error, Ledger};
use longshore_protocol::{JobId, JournalEvent, JournalPosition, SchedulerId};
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::line::{Line, Step};
use super::{Journal, Notes, Standing};
use crate::health::{Backoff, Health, Service};

/// Jobs whose presence is asked for at once: one round trip.
const WINDOW: usize = 1_000;

/// Seconds between two looks whether a journal that lapsed works again.
const PROBE_TICKS: u32 = 10;

/// The least time between two beginnings, should one follow another.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Keeper {
    pub(super) me: SchedulerId,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) journal: Arc<Journal>,
    notes: Arc<Notes>,
    health: Health,
}

/// From where the ledger is to be made to reflect the journal.
#[derive(Clone, Debug)]
enum Start {
    /// From where the ledger says that it does. `rolled_back`: it said otherwise before.
    Ledger { rolled_back: bool },
    /// From a place up to which we know that it does. It has been rolled back behind it, and moved on since.
    Place(JournalPosition),
    /// From the beginning.
    Beginning,
}

/// Why keeping stopped.
pub(super) enum Stop {
    /// There is nothing to read.
    Journal(JournalEnd),
    /// The ledger answers what makes no sense.
    Ledger(Error),
    /// The broker keeps no journal.
    Absent,
}

impl Stop {
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Journal(end) => end.to_string(),
            Self::Ledger(error) => error.to_string(),
            Self::Absent => "no journal".to_owned(),
        }
    }
}

impl From<JournalEnd> for Stop {
    fn from(end: JournalEnd) -> Self {
        Self::Journal(end)
    }
}

/// What a look at the head of a record tells: whose presence it implies.
#[derive(Deserialize)]
struct Head {
    is: String,
    job: Option<JobId>,
}

impl Keeper {
    pub(crate) fn new(
        me: SchedulerId,
        broker: Arc<dyn Broker>,
        (ledger, service): (Arc<dyn Ledger>, Service),
        journal: Arc<Journal>,
        notes: Arc<Notes>,
    ) -> Self {
        let health = service.health("keeping the journal");
        Self { me, broker, ledger, journal, notes, health }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        let mut start = Start::Ledger { rolled_back: false };
        let mut backoff = Backoff::new();
        loop {
            start = match self.keep(&start).await {
                Ok(next) => next,
                Err(Stop::Journal(JournalEnd::Lost)) => {
                    warn!("the journal was lost; it is begun again from the ledger");
                    Start::Beginning
                }
                Err(Stop::Journal(JournalEnd::Unsupported(reason))) => {
                    warn!(
                        reason,
                        "the broker keeps no journal; what is admitted won't survive a loss of the ledger"
                    );
                    break;
                }
                Err(Stop::Absent) => break,
                // Whoever closed the broker will stop us too.
                Err(Stop::Journal(JournalEnd::Closed)) => break,
                Err(Stop::Ledger(error)) => {
                    self.health.failed(&error);
                    self.journal.lapse();
                    backoff.wait().await;
                    Start::Beginning
                }
            };
            debug!(?start, "the journal is read again");
            tokio::time::sleep(PAUSE).await;
        }
        self.journal.stand(Standing::Absent);
        std::future::pending::<()>().await;
    }

    /// Makes the ledger reflect the journal and follows it, until there is a reason to begin again.
    async fn keep(&self, start: &Start) -> Result<Start, Stop> {
        let stood = *self.journal.standing.borrow();
        if stood == Standing::Kept {
            self.journal.stand(Standing::Reading);
        }
        let believed = self.insist(|| self.ledger.journal_position()).await?;
        let has_gaps = self.journal.has_gaps.swap(false, Ordering::Relaxed);
        let from = match start {
            _ if has_gaps => None,
            Start::Ledger { .. } => believed.clone(),
            Start::Place(place) => Some(place.clone()),
            Start::Beginning => None,
        };
        let rolled_back = matches!(start, Start::Ledger { rolled_back: true } | Start::Place(_));
        let opened = Line::open(&*self.broker, &self.journal, &self.me, from.clone()).await;
        let mut line = opened.ok_or(Stop::Absent)?;
        let rebuilt = self.rebuild(&mut line, from.as_ref(), rolled_back).await?;
        let Some(place) = self.agree(believed, &rebuilt.end).await? else {
            return Ok(Start::Ledger { rolled_back: true });
        };
        // Something may have been lost again while it was put back.
        let again = from.map_or(Start::Beginning, Start::Place);
        for some in rebuilt.present.chunks(WINDOW) {
            if !self.insist(|| self.ledger.missing(some)).await?.is_empty() {
                return Ok(again);
            }
        }
        if self.journal.has_gaps.load(Ordering::Relaxed) {
            return Ok(Start::Beginning);
        }
        // What was seen while the ledger lacked something is nobody's doing.
        self.notes.clear();
        self.journal.stand(Standing::Kept);
        if stood == Standing::Lapsed {
            info!("the journal is kept again");
        }
        self.follow(&mut line, place, rebuilt.end).await
    }

    /// Moves the ledger's place to `end`, unless another scheduler has brought it further. `None` if the ledger lost something
    /// meanwhile.
    async fn agree(
        &self,
        mut believed: Option<JournalPosition>,
        end: &JournalPosition,
    ) -> Result<Option<JournalPosition>, Stop> {
        loop {
            let advance = AdvanceJournalParams::new(believed.clone(), end.clone());
            let tried = || self.ledger.advance_journal(&advance);
            match self.insist(tried).await? {
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
        line: &mut Line<'_>,
        mut place: JournalPosition,
        mut read: JournalPosition,
    ) -> Result<Start, Stop> {
        let mut known = read.clone();
        let (mut told_of, mut ticks) = (Vec::new(), 0);
        loop {
            match line.next().await? {
                Step::Entry(entry) => {
                    told_of.extend(admitted_in(&entry));
                    read = entry.place;
                    if told_of.len() < WINDOW {
                        continue;
                    }
                }
                Step::End(at) => {
                    read = at;
                    continue;
                }
                Step::Tick => ticks += 1,
            }
            if *self.journal.standing.borrow() == Standing::Lapsed
                && ticks % PROBE_TICKS == 0
                && self.journal.mark(&self.me).await.is_some()
            {
                return Ok(Start::Beginning);
            }
            let noted = self.notes.noted();
            let looked = self.look(&mut place, &read, &told_of).await;
            match self.health.note(looked) {
                Ok(Look::Well) => {
                    self.write(noted).await;
                    known.clone_from(&read);
                    told_of.clear();
                }
                Ok(Look::RolledBack) => return Ok(Start::Ledger { rolled_back: true }),
                Ok(Look::Lacks(jobs)) => {
                    info!(jobs, "the ledger lacks jobs that it had");
                    return Ok(Start::Place(known));
                }
                // It is away; what was read is asked for once it is back.
                Err(_) => self.notes.keep(noted),
            }
        }
    }

    /// Tells what was noted before a look that showed no loss.
    async fn write(&self, noted: Vec<JournalEvent>) {
        let mut noted = noted.into_iter();
        while let Some(news) = noted.next() {
            if !self.journal.write(&news).await {
                self.notes.keep([news].into_iter().chain(noted));
                return;
            }
        }
    }

    /// Moves the ledger's place to what was read, then asks for the jobs that were told of since the last time. In this order: a
    /// ledger that is rolled back in between shows it either way.
    async fn look(
        &self,
        place: &mut JournalPosition,
        read: &JournalPosition,
        told_of: &[JobId],
    ) -> Result<Look, Error> {
        loop {
            let now = if read.offset > place.offset {
                let advance = AdvanceJournalParams::new(Some(place.clone()), read.clone());
                self.ledger.advance_journal(&advance).await?
            } else {
                self.ledger.journal_position().await?
            };
            match now {
                Some(now) if now.offset >= place.offset => *place = now,
                _ => return Ok(Look::RolledBack),
            }
            // Where another scheduler was half-way, it is moved the rest: what we have seen of the ledger's place must not
            // be behind what we forget to have been told of.
            if place.offset >= read.offset {
                break;
            }
        }
        if told_of.is_empty() {
            return Ok(Look::Well);
        }
        let lacking = self.ledger.missing(told_of).await?.len();
        Ok(if lacking == 0 { Look::Well } else { Look::Lacks(lacking) })
    }

    /// Asks until the ledger answers.
    pub(super) async fn insist<T, C>(&self, call: impl Fn() -> C) -> Result<T, Stop>
    where
        C: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new();
        loop {
            match self.health.note(call().await) {
                Ok(answer) => return Ok(answer),
                Err(Error::Unavailable { .. }) => backoff.wait().await,
                Err(error) => return Err(Stop::Ledger(error)),
            }
        }
    }
}

/// How the ledger was found.
enum Look {
    /// It reflects what was read.
    Well,
    /// Its place is gone, or behind where it was.
    RolledBack,
    /// It does not know so many jobs that it knew.
    Lacks(usize),
}

fn is_behind(now: Option<&JournalPosition>, before: Option<&JournalPosition>) -> bool {
    now.map(|now| now.offset) < before.map(|before| before.offset)
}

fn admitted_in(entry: &JournalEntry) -> Option<JobId> {
    let head: Head = serde_json::from_slice(&entry.body).ok()?;
    head.job.filter(|_| matches!(head.is.as_str(), "admitted" | "piece"))
}
