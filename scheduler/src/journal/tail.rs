//! Reads the journal, writes marks to know when its end is reached, and notices a replaced stream.
//!
//! Whenever reading begins, or begins again, a mark is written; when the mark has been read, all
//! that was written before has been read too. If a mark was confirmed and does not come, the stream
//! is another one, too short for the place from which it is read.

use std::time::Duration;

use longshore_broker::{Broker, JournalEnd, JournalEntry, JournalReader, Link, Reading};
use longshore_protocol::{JournalPosition, SchedulerId};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{Journal, JournalStatus};

/// The time between two ticks, at which the caller checks the ledger.
const EVERY: Duration = Duration::from_secs(1);

/// A mark that was confirmed this long ago, with nothing read since, won't come.
const QUIET: Duration = Duration::from_secs(5);

/// After this time without anything read from a broker that is there, work no longer waits for the
/// journal.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reader of the journal, and the mark that it waits for.
pub(super) struct JournalTail<'a> {
    journal: &'a Journal,
    me: &'a SchedulerId,
    reader: Box<dyn JournalReader>,
    mark: Mark,
    /// Whether reading began behind a record, or has come to one.
    has_place: bool,
    /// When something was read last, or reading began.
    heard: Instant,
    ticks: Interval,
}

enum Mark {
    /// Reading has not begun.
    Detached,
    /// The mark is to be written.
    Wanted,
    /// The mark was written.
    Sent { record: String, at: Instant },
    /// The mark has been read.
    Seen,
}

/// What [`JournalTail::next`] returns.
pub(super) enum Step {
    /// A record.
    Entry(JournalEntry),
    /// The mark: all that was written before has been read.
    End(JournalPosition),
    /// A second has passed.
    Tick,
}

impl<'a> JournalTail<'a> {
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
                            self.journal.status.send_if_modified(|status| {
                                let is_first = *status == JournalStatus::Unknown;
                                if is_first {
                                    *status = JournalStatus::Reading;
                                }
                                is_first
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
