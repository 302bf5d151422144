//! Reading the journal, with certainty about where its end is.
//!
//! Whenever reading begins, or begins again, a mark is written; when it has been read, everything that was written before has
//! been too. A mark that was confirmed and does not come means that the stream is another one, too short for the place
//! from which we read.

use std::time::Duration;

use longshore_broker::{Broker, JournalEnd, JournalEntry, JournalReader, Link, Reading};
use longshore_protocol::{JournalPosition, SchedulerId};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{Journal, Standing};

/// How often the caller gets to look at the ledger.
const EVERY: Duration = Duration::from_secs(1);

/// A mark that was confirmed so long ago, with nothing read since, won't come.
const QUIET: Duration = Duration::from_secs(5);

/// A broker that is there and lets nobody read for so long holds up nobody any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reader, and the mark that it waits for.
pub(super) struct Line<'a> {
    journal: &'a Journal,
    me: &'a SchedulerId,
    reader: Box<dyn JournalReader>,
    mark: Mark,
    /// Whether it began behind a record, or has come to one.
    has_place: bool,
    /// When something came last, or the reading began.
    heard: Instant,
    ticks: Interval,
}

enum Mark {
    /// Reading has not begun.
    Detached,
    /// It is to be written.
    Wanted,
    /// It was written.
    Sent { record: String, at: Instant },
    /// It has been read.
    Seen,
}

/// What came.
pub(super) enum Step {
    /// A record.
    Entry(JournalEntry),
    /// Our own mark: everything that was written before it has been read.
    End(JournalPosition),
    /// A second has passed.
    Tick,
}

impl<'a> Line<'a> {
    /// `None` if the broker keeps no journal.
    pub(super) async fn open(
        broker: &dyn Broker,
        journal: &'a Journal,
        me: &'a SchedulerId,
        after: Option<JournalPosition>,
    ) -> Option<Self> {
        let has_place = after.is_some();
        let reader = broker.read_journal(after).await?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let heard = Instant::now();
        Some(Self { journal, me, reader, mark: Mark::Detached, has_place, heard, ticks })
    }

    pub(super) async fn next(&mut self) -> Result<Step, JournalEnd> {
        loop {
            tokio::select! {
                biased;
                _ = self.ticks.tick() => {
                    self.give_up_waiting()?;
                    self.write_mark().await;
                    return Ok(Step::Tick);
                }
                read = self.reader.next() => {
                    self.heard = Instant::now();
                    match read? {
                        Reading::Attached => {
                            self.mark = Mark::Wanted;
                            self.journal.standing.send_if_modified(|standing| {
                                let first = *standing == Standing::Unknown;
                                if first {
                                    *standing = Standing::Reading;
                                }
                                first
                            });
                            self.write_mark().await;
                        }
                        Reading::Entry(entry) => return Ok(self.entry(entry)),
                    }
                }
            }
        }
    }

    fn entry(&mut self, entry: JournalEntry) -> Step {
        self.has_place = true;
        match &self.mark {
            Mark::Sent { record, .. } if *record == entry.place.record => {
                self.mark = Mark::Seen;
                Step::End(entry.place)
            }
            _ => Step::Entry(entry),
        }
    }

    async fn write_mark(&mut self) {
        if matches!(self.mark, Mark::Wanted)
            && let Some(record) = self.journal.mark(self.me).await
        {
            self.mark = Mark::Sent { record, at: Instant::now() };
        }
    }

    fn give_up_waiting(&mut self) -> Result<(), JournalEnd> {
        match self.mark {
            Mark::Sent { at, .. } if self.heard.max(at).elapsed() >= QUIET => {
                if self.has_place {
                    return Err(JournalEnd::Lost);
                }
                self.mark = Mark::Wanted;
            }
            Mark::Detached | Mark::Wanted if self.heard.elapsed() >= PATIENCE => {
                if *self.journal.broker.link().borrow() == Link::Up {
                    self.journal.lapse();
                } else {
                    self.heard = Instant::now();
                }
            }
            _ => {}
        }
        Ok(())
    }
}
