//! The last word about each job, made of all records about it.
//!
//! Records come twice, late, and from several schedulers at once; times on the ledger's clock decide, not their order.
//! Deliberately absent: documents. A word remembers where its document stands in the journal, so that memory follows the
//! number of jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_ledger::PriorState;
use longshore_protocol::{JobId, JournalEnding, JournalEvent, Timestamp};

/// An ended job is left out of account once it would have been forgotten for so long: nobody repeats a record so late.
const REPEATED_WITHIN: Duration = Duration::from_hours(1);

/// What the journal says of jobs.
#[derive(Debug, Default)]
pub(super) struct Words {
    of: BTreeMap<JobId, Word>,
}

/// What it says of one.
#[derive(Debug, Default)]
pub(super) struct Word {
    admitted: Option<Admitted>,
    ended: Option<JournalEnding>,
    reopened: Option<Timestamp>,
    deleted: Option<Timestamp>,
    /// When somebody paused or resumed it, and which of them.
    paused: Option<(Timestamp, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Admitted {
    at: Timestamp,
    keep_for: Duration,
    /// Where its document stands.
    offset: u64,
}

impl Words {
    /// Takes in what stands at an offset; `now` is the ledger's time.
    pub(super) fn take(&mut self, offset: u64, news: JournalEvent, now: Timestamp) {
        let Some((job, at)) = news.subject() else { return };
        let word = self.of.entry(job).or_default();
        match news {
            JournalEvent::Admitted { keep_for_ms, .. } => {
                let keep_for = Duration::from_millis(keep_for_ms);
                word.admit(Admitted { at, keep_for, offset });
            }
            JournalEvent::Ended { ending, .. } => {
                if word.ended.as_ref().is_none_or(|before| before.finished_at <= at) {
                    word.ended = Some(ending);
                }
            }
            JournalEvent::Paused { .. } => word.pause(at, true),
            JournalEvent::Resumed { .. } => word.pause(at, false),
            JournalEvent::Reopened { .. } => word.reopened = word.reopened.max(Some(at)),
            JournalEvent::Deleted { .. } => word.deleted = word.deleted.max(Some(at)),
            JournalEvent::Piece { .. } | JournalEvent::Mark { .. } => {}
        }
        if word.is_forgotten(now) {
            self.of.remove(&job);
        }
    }

    /// Whether the journal has the job's document.
    pub(super) fn has_document(&self, job: JobId) -> bool {
        self.of.get(&job).is_some_and(|word| word.admitted.is_some())
    }

    /// Whether the journal has the job's document, and its end.
    pub(super) fn has_ended(&self, job: JobId) -> bool {
        self.has_document(job) && self.of.get(&job).is_some_and(|word| word.ending().is_some())
    }

    /// Whether the job was re-opened, and is open still.
    pub(super) fn was_reopened(&self, job: JobId) -> bool {
        self.of.get(&job).is_some_and(|word| word.reopened().is_some())
    }

    /// All jobs, in order of their ids.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (JobId, &Word)> {
        self.of.iter().map(|(job, word)| (*job, word))
    }
}

impl Word {
    fn admit(&mut self, admitted: Admitted) {
        if self.admitted.is_some_and(|before| before.at > admitted.at) {
            return;
        }
        self.admitted = Some(admitted);
    }

    fn pause(&mut self, at: Timestamp, paused: bool) {
        if self.paused.is_none_or(|(before, _)| before <= at) {
            self.paused = Some((at, paused));
        }
    }

    /// When the job began to be open last: it was admitted, or re-opened.
    fn opened(&self) -> Option<Timestamp> {
        self.admitted.map(|admitted| Some(admitted.at).max(self.reopened)).unwrap_or_default()
    }

    /// How it ended, unless it is open.
    pub(super) fn ending(&self) -> Option<&JournalEnding> {
        self.ended.as_ref().filter(|ending| Some(ending.finished_at) >= self.opened())
    }

    /// When it was re-opened, if that is not over.
    pub(super) fn reopened(&self) -> Option<Timestamp> {
        let admitted = self.admitted.map(|admitted| admitted.at);
        self.reopened.filter(|at| self.ending().is_none() && Some(*at) > admitted)
    }

    /// Whether it is paused, if somebody said so.
    pub(super) fn paused(&self) -> Option<bool> {
        let opened = self.opened();
        self.paused.filter(|(at, _)| Some(*at) >= opened).map(|(_, paused)| paused)
    }

    /// Where the document stands.
    pub(super) fn offset(&self) -> Option<u64> {
        self.admitted.map(|admitted| admitted.offset)
    }

    /// How the job stood, if a ledger should know it.
    pub(super) fn was(&self, now: Timestamp) -> Option<PriorState> {
        let Admitted { at: submitted_at, keep_for, .. } = self.admitted?;
        if self.deleted >= Some(submitted_at) {
            return None;
        }
        match self.ending() {
            Some(ending) if ending.finished_at.plus(keep_for) <= now => None,
            Some(ending) => Some(PriorState::Ended(ending.clone())),
            None => {
                Some(PriorState::Open { submitted_at, paused: self.paused().unwrap_or_default() })
            }
        }
    }

    pub(super) fn was_cancelled(&self) -> bool {
        self.ending().is_some_and(|ending| ending.state.is_cancelled())
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        let kept = self.admitted.map(|admitted| admitted.keep_for);
        let over = self.ending().zip(kept).map(|(ending, kept)| ending.finished_at.plus(kept));
        over.is_some_and(|over| over.plus(REPEATED_WITHIN) <= now)
    }
}

#[cfg(test)]
mod tests {
    use longshore_protocol::state::JobState;
    use uuid::Uuid;

    use super::*;

    fn job() -> JobId {
        JobId::from_uuid(Uuid::from_u128(7))
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn ending(state: JobState, second: u64) -> JournalEnding {
        JournalEnding {
            state,
            finished_at: at(second),
            submitted_at: at(0),
            started_at: None,
            done: 1,
            failed: 0,
            cancelled: 0,
            reduce_done: 0,
            reduce_failed: 0,
            reduce_cancelled: 0,
            generation: 0,
            attempts: 1,
            busy_ms: 1,
            lost: 0,
            error: None,
        }
    }

    /// `a5` is admitted at second 5, `e` ended, `c` cancelled, `p` paused, `r` resumed, `o` re-opened, `d` deleted.
    fn news(step: &str) -> JournalEvent {
        let (kind, second) = step.split_at(1);
        let (job, at) = (job(), at(second.parse().expect("a second")));
        let ended =
            |state| JournalEvent::Ended { job, ending: ending(state, at.as_millis() / 1_000) };
        match kind {
            "a" => {
                let document = String::new();
                JournalEvent::Admitted { job, at, keep_for_ms: 100_000, document, manifest: None }
            }
            "e" => ended(JobState::Succeeded),
            "c" => ended(JobState::Cancelled),
            "p" => JournalEvent::Paused { job, at },
            "r" => JournalEvent::Resumed { job, at },
            "o" => JournalEvent::Reopened { job, at },
            "d" => JournalEvent::Deleted { job, at },
            _ => panic!("{step}"),
        }
    }

    /// What a ledger at second 60 should know, whatever the order in which the records come, and if each comes twice.
    #[track_caller]
    fn check(steps: &str, expected: &str) {
        let steps: Vec<&str> = steps.split_whitespace().collect();
        for turn in 0..steps.len() {
            let forward = [&steps[turn..], &steps[..turn]].concat();
            let backward: Vec<&str> = forward.iter().rev().copied().collect();
            let twice = [forward.clone(), backward.clone()].concat();
            for order in [forward, backward, twice] {
                let mut words = Words::default();
                for (offset, step) in (0..).zip(&order) {
                    words.take(offset, news(step), at(60));
                }
                let was = words.jobs().next().and_then(|(_, word)| word.was(at(60)));
                let shown = match was {
                    None => "nothing".to_owned(),
                    Some(PriorState::Open { submitted_at, paused }) => {
                        let second = submitted_at.as_millis() / 1_000;
                        format!("{}{second}", if paused { "paused " } else { "open " })
                    }
                    Some(PriorState::Ended(ending)) => {
                        format!("{} {}", ending.state, ending.finished_at.as_millis() / 1_000)
                    }
                };
                assert_eq!(shown, expected, "{order:?}");
            }
        }
    }

    #[test]
    fn the_last_word_counts_in_any_order() {
        check("a5", "open 5");
        check("a5 e9", "succeeded 9");
        check("a5 c5", "cancelled 5");
        check("a5 p6", "paused 5");
        check("a5 p6 r7", "open 5");
        check("a5 p6 r7 p8", "paused 5");
        check("a5 e9 o10", "open 5");
        check("a5 e9 o10 p11", "paused 5");
        check("a5 p6 e9 o10", "open 5");
        check("a5 e9 o10 e12", "succeeded 12");
        check("a5 e9 a20", "open 20");
        check("a5 p6 e9 a20 e25", "succeeded 25");
        check("a5 d9", "nothing");
        check("a5 e8 d9", "nothing");
        check("a5 d9 a20", "open 20");
    }

    #[test]
    fn without_a_document_there_is_nothing_to_put_back() {
        check("e9", "nothing");
        check("p9", "nothing");
    }

    #[test]
    fn what_is_kept_no_longer_is_left_out_and_forgotten_later() {
        let mut words = Words::default();
        words.take(0, news("a5"), at(104));
        words.take(1, news("e9"), at(104));
        let was = |words: &Words, second| words.jobs().next().and_then(|(_, w)| w.was(at(second)));
        assert!(was(&words, 108).is_some());
        assert_eq!(was(&words, 109), None);
        // A repeat of its admission does not bring it back.
        words.take(2, news("a5"), at(110));
        assert_eq!(was(&words, 110), None);
        words.take(3, news("e9"), at(109 + 3_600));
        assert!(!words.has_document(job()));
    }
}
