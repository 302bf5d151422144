//! Reduces all records of the journal about a job to the state that a ledger should have of it.
//!
//! Records come twice, late, and from several schedulers at once; times on the ledger's clock
//! decide, not the order. Deliberately absent: documents. A history remembers where its document is
//! in the journal, so that memory follows the number of jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_ledger::PriorState;
use longshore_protocol::{JobId, JournalEnding, JournalEvent, Timestamp};

/// A job is dropped this long after the ledger would have forgotten it: no record is repeated so
/// late.
const REPEATED_WITHIN: Duration = Duration::from_hours(1);

/// What the journal says about all jobs.
#[derive(Debug, Default)]
pub(super) struct JournalState {
    by_job: BTreeMap<JobId, JobHistory>,
}

/// What the journal says about one job.
#[derive(Debug, Default)]
pub(super) struct JobHistory {
    admitted: Option<Admitted>,
    ended: Option<JournalEnding>,
    reopened: Option<Timestamp>,
    deleted: Option<Timestamp>,
    /// When the job was last paused or resumed, and whether it was paused.
    paused: Option<(Timestamp, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Admitted {
    at: Timestamp,
    keep_for: Duration,
    /// The offset of the record that has the document.
    offset: u64,
}

impl JournalState {
    /// Takes in the record at an offset; `now` is the ledger's time.
    pub(super) fn apply(&mut self, offset: u64, event: JournalEvent, now: Timestamp) {
        let Some((job, at)) = event.subject() else { return };
        let history = self.by_job.entry(job).or_default();
        match event {
            JournalEvent::Admitted { keep_for_ms, .. } => {
                let keep_for = Duration::from_millis(keep_for_ms);
                history.admit(Admitted { at, keep_for, offset });
            }
            JournalEvent::Ended { ending, .. } => {
                if history.ended.as_ref().is_none_or(|before| before.finished_at <= at) {
                    history.ended = Some(ending);
                }
            }
            JournalEvent::Paused { .. } => history.pause(at, true),
            JournalEvent::Resumed { .. } => history.pause(at, false),
            JournalEvent::Reopened { .. } => history.reopened = history.reopened.max(Some(at)),
            JournalEvent::Deleted { .. } => history.deleted = history.deleted.max(Some(at)),
            JournalEvent::Piece { .. } | JournalEvent::Mark { .. } => {}
        }
        if history.is_forgotten(now) {
            self.by_job.remove(&job);
        }
    }

    /// Whether the journal has the job's document.
    pub(super) fn has_document(&self, job: JobId) -> bool {
        self.by_job.get(&job).is_some_and(|history| history.admitted.is_some())
    }

    /// Whether the journal has the job's document, and its end.
    pub(super) fn has_ended(&self, job: JobId) -> bool {
        self.has_document(job)
            && self.by_job.get(&job).is_some_and(|history| history.ending().is_some())
    }

    /// Whether the job was reopened, and is still open.
    pub(super) fn was_reopened(&self, job: JobId) -> bool {
        self.by_job.get(&job).is_some_and(|history| history.reopened().is_some())
    }

    /// All jobs, in order of their ids.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (JobId, &JobHistory)> {
        self.by_job.iter().map(|(job, history)| (*job, history))
    }
}

impl JobHistory {
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

    /// When the job was last opened: admitted or reopened.
    fn opened(&self) -> Option<Timestamp> {
        self.admitted.map(|admitted| Some(admitted.at).max(self.reopened)).unwrap_or_default()
    }

    /// How the job ended, unless it is open.
    pub(super) fn ending(&self) -> Option<&JournalEnding> {
        self.ended.as_ref().filter(|ending| Some(ending.finished_at) >= self.opened())
    }

    /// When the job was reopened, unless it has ended since.
    pub(super) fn reopened(&self) -> Option<Timestamp> {
        let admitted = self.admitted.map(|admitted| admitted.at);
        self.reopened.filter(|at| self.ending().is_none() && Some(*at) > admitted)
    }

    /// Whether the job was paused (true) or resumed (false) since it was opened.
    pub(super) fn paused(&self) -> Option<bool> {
        let opened = self.opened();
        self.paused.filter(|(at, _)| Some(*at) >= opened).map(|(_, paused)| paused)
    }

    /// The offset of the record that has the document.
    pub(super) fn offset(&self) -> Option<u64> {
        self.admitted.map(|admitted| admitted.offset)
    }

    /// The state that a ledger should have of the job, if it should have the job at all.
    pub(super) fn prior_state(&self, now: Timestamp) -> Option<PriorState> {
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

    /// `a5` is admitted at second 5, `e` ended, `c` cancelled, `p` paused, `r` resumed, `o`
    /// reopened, `d` deleted.
    fn event(step: &str) -> JournalEvent {
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

    /// Checks the state that a ledger at second 60 should have, whatever the order of the records,
    /// and if each comes twice.
    #[track_caller]
    fn check(steps: &str, expected: &str) {
        let steps: Vec<&str> = steps.split_whitespace().collect();
        for turn in 0..steps.len() {
            let forward = [&steps[turn..], &steps[..turn]].concat();
            let backward: Vec<&str> = forward.iter().rev().copied().collect();
            let twice = [forward.clone(), backward.clone()].concat();
            for order in [forward, backward, twice] {
                let mut state = JournalState::default();
                for (offset, step) in (0..).zip(&order) {
                    state.apply(offset, event(step), at(60));
                }
                let was = state.jobs().next().and_then(|(_, history)| history.prior_state(at(60)));
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
    fn the_latest_record_counts_in_any_order() {
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
    fn a_job_without_a_document_can_not_be_restored() {
        check("e9", "nothing");
        check("p9", "nothing");
    }

    #[test]
    fn an_expired_job_is_left_out_and_forgotten_later() {
        let mut state = JournalState::default();
        state.apply(0, event("a5"), at(104));
        state.apply(1, event("e9"), at(104));
        let was = |state: &JournalState, second| {
            state.jobs().next().and_then(|(_, history)| history.prior_state(at(second)))
        };
        assert!(was(&state, 108).is_some());
        assert_eq!(was(&state, 109), None);
        // A repeat of its admission does not bring it back.
        state.apply(2, event("a5"), at(110));
        assert_eq!(was(&state, 110), None);
        state.apply(3, event("e9"), at(109 + 3_600));
        assert!(!state.has_document(job()));
    }
}
