//! Gives the ledger what the journal tells and the ledger lacks.
//!
//! The journal is read twice: first to its end for the last word about each job, since one that ended must not run again; then
//! for the documents of those jobs that are missing. So memory follows the number of jobs, not the size of documents.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use longshore_broker::JournalEntry;
use longshore_ledger::{
    Admission, ControlError, Error, PriorState, RestoreParams, Restored, RetryParams,
};
use longshore_protocol::state::JobEvent;
use longshore_protocol::{
    JobDocument, JobId, JournalDecoder, JournalEnding, JournalEvent, JournalPosition, Manifest,
    Plan,
};
use tracing::{debug, info, warn};

use super::keeper::{Keeper, Stop};
use super::line::{Line, Step};
use super::words::{Word, Words};
use super::{Standing, tell};
use crate::admitter;

/// Jobs that are put back side by side, and asked for at once.
const AT_ONCE: usize = 64;
/// Bytes of documents that may wait to be put back together.
const MOST_WAITING: usize = 32 << 20;
/// Ended jobs that a new journal is told of, the newest.
const MOST_ENDED: usize = 1_000;

/// What a job says that was put back by its numbers.
const RESULTS_GONE: &str = "the ledger was lost; results and errors of subtasks are gone";

/// What a rebuild did.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    admitted: usize,
    ended: usize,
    controls: usize,
    unreadable: usize,
}

/// A ledger that has all that the journal tells up to `end`.
pub(super) struct Rebuilt {
    pub(super) end: JournalPosition,
    /// Jobs that are there because they must be.
    pub(super) present: Vec<JobId>,
}

impl Keeper {
    /// Reads from `from` (which `line` begins behind) to the end, and makes the ledger reflect it. With `rolled_back`, what
    /// users did to jobs that are there still is done again; a cancel in any case, since nothing undoes one.
    pub(super) async fn rebuild(
        &self,
        line: &mut Line<'_>,
        from: Option<&JournalPosition>,
        rolled_back: bool,
    ) -> Result<Rebuilt, Stop> {
        let (words, end) = self.read_to_the_end(line).await?;
        let now = self.insist(|| self.ledger.now()).await?;
        let wanted: BTreeMap<JobId, PriorState> =
            words.jobs().filter_map(|(job, word)| Some((job, word.was(now)?))).collect();
        let mut present: Vec<JobId> = wanted.keys().copied().collect();
        let missing = self.missing(&present).await?;
        let mut counts = Counts::default();
        let there = words.jobs().filter(|(job, _)| !missing.contains(job));
        for (job, word) in there.filter(|(_, word)| rolled_back || word.was_cancelled()) {
            counts.controls += usize::from(self.repeat_controls(job, word).await?);
        }
        if !missing.is_empty() {
            let gone = self.put_back(&words, wanted, missing, from, &mut counts).await?;
            present.retain(|job| !gone.contains(job));
        }
        let Counts { admitted, ended, controls, unreadable } = counts;
        if admitted + ended + controls + unreadable > 0 {
            warn!(admitted, ended, controls, unreadable, "ledger rebuilt from the journal");
        }
        if from.is_none() {
            self.seed(&words).await?;
        }
        Ok(Rebuilt { end, present })
    }

    async fn read_to_the_end(&self, line: &mut Line<'_>) -> Result<(Words, JournalPosition), Stop> {
        let (mut words, mut decoder) = (Words::default(), JournalDecoder::default());
        let now = self.insist(|| self.ledger.now()).await?;
        loop {
            match line.next().await? {
                Step::Entry(entry) => {
                    if let Some(news) = self.decode(&mut decoder, &entry) {
                        words.take(entry.place.offset, news, now);
                    }
                }
                Step::End(end) => {
                    // It is read and written, so it has not lapsed.
                    self.journal.stand(Standing::Reading);
                    return Ok((words, end));
                }
                Step::Tick => {}
            }
        }
    }

    /// What a newer version wrote is left to newer schedulers.
    fn decode(&self, decoder: &mut JournalDecoder, entry: &JournalEntry) -> Option<JournalEvent> {
        let offset = entry.place.offset;
        let decoded = decoder.decode(&entry.body);
        decoded.unwrap_or_else(|error| {
            debug!(offset, %error, "a record of the journal that can't be read");
            None
        })
    }

    async fn missing(&self, jobs: &[JobId]) -> Result<BTreeSet<JobId>, Stop> {
        let mut missing = BTreeSet::new();
        for some in jobs.chunks(AT_ONCE) {
            missing.extend(self.insist(|| self.ledger.missing(some)).await?);
        }
        Ok(missing)
    }

    /// Reads once more and puts back what is missing. Gives the jobs that are not there for all that.
    async fn put_back(
        &self,
        words: &Words,
        mut wanted: BTreeMap<JobId, PriorState>,
        mut missing: BTreeSet<JobId>,
        from: Option<&JournalPosition>,
        counts: &mut Counts,
    ) -> Result<BTreeSet<JobId>, Stop> {
        let offsets: BTreeMap<JobId, u64> = words
            .jobs()
            .filter(|(job, _)| missing.contains(job))
            .filter_map(|(job, word)| Some((job, word.offset()?)))
            .collect();
        let opened = Line::open(&*self.broker, &self.journal, &self.me, from.cloned()).await;
        let mut line = opened.ok_or(Stop::Absent)?;
        let mut decoder = JournalDecoder::default();
        let (mut batch, mut bytes, mut gone) = (Vec::new(), 0, BTreeSet::new());
        while !missing.is_empty() {
            let entry = match line.next().await? {
                Step::Entry(entry) => entry,
                Step::Tick => continue,
                // What is still missing was dropped from the journal since it was read first.
                Step::End(_) => break,
            };
            let Some(JournalEvent::Admitted { job, document, manifest, .. }) =
                self.decode(&mut decoder, &entry)
            else {
                continue;
            };
            if offsets.get(&job) != Some(&entry.place.offset) || !missing.remove(&job) {
                continue;
            }
            let Some(was) = wanted.remove(&job) else { continue };
            bytes += document.len() + manifest.as_ref().map_or(0, String::len);
            match admission(job, &document, manifest.as_deref()) {
                Ok(mut admission) => {
                    if words.was_reopened(job) {
                        admission.deadline = None;
                    }
                    batch.push((admission, was));
                }
                Err(reason) => {
                    warn!(%job, reason, "a job of the journal can't be put back");
                    counts.unreadable += 1;
                    gone.insert(job);
                }
            }
            if batch.len() >= AT_ONCE || bytes >= MOST_WAITING || missing.is_empty() {
                gone.extend(self.restore(std::mem::take(&mut batch), counts).await);
                bytes = 0;
            }
        }
        gone.extend(self.restore(batch, counts).await);
        gone.extend(missing);
        Ok(gone)
    }

    async fn restore(
        &self,
        batch: Vec<(Admission, PriorState)>,
        counts: &mut Counts,
    ) -> Vec<JobId> {
        let restores = batch.into_iter().map(|(admission, was)| async move {
            let params = RestoreParams::new(admission, explained(was));
            let answer = self.insist(|| self.ledger.restore(&params)).await;
            (params.admission.job, matches!(params.prior, PriorState::Ended(_)), answer)
        });
        let mut gone = Vec::new();
        for (job, had_ended, answer) in join_all(restores).await {
            match answer {
                Ok(Restored::Restored) if had_ended => counts.ended += 1,
                Ok(Restored::Restored) => {
                    info!(%job, "job admitted again");
                    counts.admitted += 1;
                }
                // Another scheduler was faster.
                Ok(Restored::Known) => {}
                Ok(Restored::Expired) => gone.push(job),
                Err(stop) => {
                    warn!(%job, error = stop.reason(), "a job of the journal can't be put back");
                    counts.unreadable += 1;
                    gone.push(job);
                }
            }
        }
        gone
    }

    /// Does again what somebody did to a job after the moment to which the ledger was rolled back. Whether it did.
    async fn repeat_controls(&self, job: JobId, word: &Word) -> Result<bool, Stop> {
        let look = || async {
            match self.ledger.job(job).await {
                Err(error @ Error::Unavailable { .. }) => Err(error),
                // What is no job is nobody's to control.
                other => Ok(other.unwrap_or_default()),
            }
        };
        let Some(summary) = self.insist(look).await? else { return Ok(false) };
        let state = summary.state;
        let has_ended = state.is_terminal();
        let reopened = word.reopened().filter(|at| summary.finished_at < Some(*at));
        let event = if word.was_cancelled() && !has_ended {
            JobEvent::Cancel
        } else if state.may_be_reopened() && reopened.is_some() {
            JobEvent::Retry
        } else if !has_ended && !state.is_paused() && word.paused() == Some(true) {
            JobEvent::Pause
        } else if state.is_paused() && word.paused() == Some(false) {
            JobEvent::Resume
        } else {
            return Ok(false);
        };
        let done = self.insist(|| self.control(job, event)).await?;
        info!(%job, %event, done, "a control that the ledger lost is repeated");
        Ok(true)
    }

    /// Whether it was possible. Somebody else may have done it, or something else, meanwhile.
    async fn control(&self, job: JobId, event: JobEvent) -> Result<bool, Error> {
        let ledger = &self.ledger;
        let answer = match event {
            JobEvent::Cancel => ledger.cancel(job).await.map(drop),
            JobEvent::Retry => ledger.retry(job, &RetryParams::all()).await.map(drop),
            JobEvent::Pause => ledger.pause(job).await.map(drop),
            _ => ledger.resume(job).await.map(drop),
        };
        match answer {
            Err(ControlError::Ledger(error)) => Err(error),
            answer => Ok(answer.is_ok()),
        }
    }

    /// Tells a journal that was read from its beginning of the jobs that it does not know, and of ends that came while it had
    /// lapsed.
    async fn seed(&self, words: &Words) -> Result<(), Stop> {
        let active = self.insist(|| self.ledger.active_jobs()).await?;
        let ended = self.insist(|| self.ledger.finished_jobs(MOST_ENDED)).await?;
        let mut told = 0;
        let active = active.into_iter().filter(|job| !words.has_document(*job));
        let ended = ended.into_iter().filter(|job| !words.has_ended(*job));
        for job in active.chain(ended) {
            let tell = || async {
                match tell(&*self.ledger, &self.journal, job).await {
                    Err(error @ Error::Unavailable { .. }) => Err(error),
                    other => Ok(other.unwrap_or_default()),
                }
            };
            told += usize::from(self.insist(tell).await?);
        }
        if told > 0 {
            info!(jobs = told, "journal begun from the ledger");
        }
        Ok(())
    }
}

fn admission(job: JobId, document: &str, manifest: Option<&str>) -> Result<Admission, String> {
    let mut document =
        JobDocument::parse(document.as_bytes()).map_err(|invalid| invalid.to_string())?;
    document.id = Some(job);
    let manifest: Manifest = match manifest {
        Some(text) => serde_json::from_str(text).map_err(|e| format!("manifest: {e}"))?,
        None => Manifest::default(),
    };
    let plan = Plan::new(document, manifest).map_err(|invalid| invalid.to_string())?;
    Ok(admitter::admission(job, &plan))
}

/// A job whose results are gone says so.
fn explained(was: PriorState) -> PriorState {
    let PriorState::Ended(ending) = was else { return was };
    let error = match &ending.error {
        Some(error) => format!("{error}; {RESULTS_GONE}"),
        None => RESULTS_GONE.to_owned(),
    };
    PriorState::Ended(JournalEnding { error: Some(error), ..ending })
}
