//! Restores the jobs that the journal has and the ledger lacks, and repeats lost controls.
//!
//! A new journal gets the jobs that it lacks.
//!
//! The journal is read twice: first to its end for the last state of each job, since one that has
//! ended must not run again; then for the documents of the jobs that are missing. So memory follows
//! the number of jobs, not the size of documents.

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

use super::restorer::{JournalRestorer, StopReason};
use super::state::{JobHistory, JournalState};
use super::tail::{JournalTail, Step};
use super::{JournalStatus, backfill_job};
use crate::admitter;

/// The most jobs that are restored at once, and in one question which of them are missing.
const AT_ONCE: usize = 64;
/// The most bytes of documents that wait to be restored together.
const MAX_BATCH_BYTES: usize = 32 << 20;
/// The most ended jobs, the newest, that are written to a new journal.
const MAX_ENDED: usize = 1_000;

/// The error of an ended job that was restored from its journal record.
const RESULTS_GONE: &str = "the ledger was lost; results and errors of subtasks are gone";

/// How many jobs a rebuild changed.
#[derive(Clone, Copy, Debug, Default)]
struct RebuildCounts {
    /// Open jobs that were admitted again.
    admitted: usize,
    /// Ended jobs that were restored.
    ended: usize,
    /// Jobs of which a control (pause, resume, cancel, retry) was repeated.
    controls: usize,
    /// Jobs that could not be restored.
    unreadable: usize,
}

/// The ledger has all that the journal says up to `end`.
pub(super) struct Rebuilt {
    pub(super) end: JournalPosition,
    /// The jobs that the ledger has to have.
    pub(super) present: Vec<JobId>,
}

impl JournalRestorer {
    /// Reads from `from` (behind which `tail` begins) to the end, and brings the ledger in sync.
    /// With `rolled_back`, what users did to jobs that the ledger still has is repeated; a cancel
    /// in any case, since nothing undoes one.
    pub(super) async fn rebuild(
        &self,
        tail: &mut JournalTail<'_>,
        from: Option<&JournalPosition>,
        rolled_back: bool,
    ) -> Result<Rebuilt, StopReason> {
        let (state, end) = self.read_to_the_end(tail).await?;
        let now = self.retry(|| self.ledger.now()).await?;
        let wanted: BTreeMap<JobId, PriorState> = state
            .jobs()
            .filter_map(|(job, history)| Some((job, history.prior_state(now)?)))
            .collect();
        let mut present: Vec<JobId> = wanted.keys().copied().collect();
        let missing = self.missing(&present).await?;
        let mut counts = RebuildCounts::default();
        let there = state.jobs().filter(|(job, _)| !missing.contains(job));
        for (job, history) in there.filter(|(_, history)| rolled_back || history.was_cancelled()) {
            counts.controls += usize::from(self.repeat_controls(job, history).await?);
        }
        if !missing.is_empty() {
            let gone = self.restore_missing(&state, wanted, missing, from, &mut counts).await?;
            present.retain(|job| !gone.contains(job));
        }
        let RebuildCounts { admitted, ended, controls, unreadable } = counts;
        if admitted + ended + controls + unreadable > 0 {
            warn!(admitted, ended, controls, unreadable, "ledger rebuilt from the journal");
        }
        if from.is_none() {
            self.backfill(&state).await?;
        }
        Ok(Rebuilt { end, present })
    }

    async fn read_to_the_end(
        &self,
        tail: &mut JournalTail<'_>,
    ) -> Result<(JournalState, JournalPosition), StopReason> {
        let (mut state, mut decoder) = (JournalState::default(), JournalDecoder::default());
        let now = self.retry(|| self.ledger.now()).await?;
        loop {
            match tail.next().await? {
                Step::Entry(entry) => {
                    if let Some(event) = self.decode(&mut decoder, &entry) {
                        state.apply(entry.place.offset, event, now);
                    }
                }
                Step::End(end) => {
                    // The journal was read and written, so it has not lapsed.
                    self.journal.set_status(JournalStatus::Reading);
                    return Ok((state, end));
                }
                Step::Tick => {}
            }
        }
    }

    /// The event of a record; `None` for a record of a newer version, which is left to newer
    /// schedulers.
    fn decode(&self, decoder: &mut JournalDecoder, entry: &JournalEntry) -> Option<JournalEvent> {
        let offset = entry.place.offset;
        let decoded = decoder.decode(&entry.body);
        decoded.unwrap_or_else(|error| {
            debug!(offset, %error, "unreadable journal record skipped");
            None
        })
    }

    async fn missing(&self, jobs: &[JobId]) -> Result<BTreeSet<JobId>, StopReason> {
        let mut missing = BTreeSet::new();
        for some in jobs.chunks(AT_ONCE) {
            missing.extend(self.retry(|| self.ledger.missing(some)).await?);
        }
        Ok(missing)
    }

    /// Reads the journal once more and restores the jobs that are missing. Returns those that could
    /// not be restored.
    async fn restore_missing(
        &self,
        state: &JournalState,
        mut wanted: BTreeMap<JobId, PriorState>,
        mut missing: BTreeSet<JobId>,
        from: Option<&JournalPosition>,
        counts: &mut RebuildCounts,
    ) -> Result<BTreeSet<JobId>, StopReason> {
        let offsets: BTreeMap<JobId, u64> = state
            .jobs()
            .filter(|(job, _)| missing.contains(job))
            .filter_map(|(job, history)| Some((job, history.offset()?)))
            .collect();
        let opened = JournalTail::open(&*self.broker, &self.journal, &self.me, from.cloned()).await;
        let mut tail = opened.ok_or(StopReason::Absent)?;
        let mut decoder = JournalDecoder::default();
        let (mut batch, mut bytes, mut gone) = (Vec::new(), 0, BTreeSet::new());
        while !missing.is_empty() {
            let entry = match tail.next().await? {
                Step::Entry(entry) => entry,
                Step::Tick => continue,
                // The rest was dropped from the journal since it was read first.
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
                    if state.was_reopened(job) {
                        admission.deadline = None;
                    }
                    batch.push((admission, was));
                }
                Err(reason) => {
                    warn!(%job, reason, "job can't be restored from the journal");
                    counts.unreadable += 1;
                    gone.insert(job);
                }
            }
            if batch.len() >= AT_ONCE || bytes >= MAX_BATCH_BYTES || missing.is_empty() {
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
        counts: &mut RebuildCounts,
    ) -> Vec<JobId> {
        let restores = batch.into_iter().map(|(admission, was)| async move {
            let params = RestoreParams::new(admission, with_results_gone(was));
            let answer = self.retry(|| self.ledger.restore(&params)).await;
            (params.admission.job, matches!(params.prior, PriorState::Ended(_)), answer)
        });
        let mut gone = Vec::new();
        for (job, had_ended, answer) in join_all(restores).await {
            match answer {
                Ok(Restored::Restored) if had_ended => counts.ended += 1,
                Ok(Restored::Restored) => {
                    info!(%job, "lost job admitted again");
                    counts.admitted += 1;
                }
                // Another scheduler was faster.
                Ok(Restored::Known) => {}
                Ok(Restored::Expired) => gone.push(job),
                Err(stop) => {
                    warn!(%job, error = stop.reason(), "job can't be restored from the journal");
                    counts.unreadable += 1;
                    gone.push(job);
                }
            }
        }
        gone
    }

    /// Repeats what a user did to a job after the moment to which the ledger was rolled back.
    /// Returns whether there was anything to repeat.
    async fn repeat_controls(&self, job: JobId, history: &JobHistory) -> Result<bool, StopReason> {
        let look = || async {
            match self.ledger.job(job).await {
                Err(error @ Error::Unavailable { .. }) => Err(error),
                // Foreign data under the job's key can't be controlled.
                other => Ok(other.unwrap_or_default()),
            }
        };
        let Some(summary) = self.retry(look).await? else { return Ok(false) };
        let state = summary.state;
        let has_ended = state.is_terminal();
        let reopened = history.reopened().filter(|at| summary.finished_at < Some(*at));
        let event = if history.was_cancelled() && !has_ended {
            JobEvent::Cancel
        } else if state.may_be_reopened() && reopened.is_some() {
            JobEvent::Retry
        } else if !has_ended && !state.is_paused() && history.paused() == Some(true) {
            JobEvent::Pause
        } else if state.is_paused() && history.paused() == Some(false) {
            JobEvent::Resume
        } else {
            return Ok(false);
        };
        let done = self.retry(|| self.control(job, event)).await?;
        info!(%job, %event, done, "control that the ledger had lost repeated");
        Ok(true)
    }

    /// Returns whether the control was possible. A user may have changed the job meanwhile.
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

    /// Writes to a journal that was read from its beginning the jobs that it lacks, and the ends
    /// that came while it had lapsed.
    async fn backfill(&self, state: &JournalState) -> Result<(), StopReason> {
        let active = self.retry(|| self.ledger.active_jobs()).await?;
        let ended = self.retry(|| self.ledger.finished_jobs(MAX_ENDED)).await?;
        let mut written = 0;
        let active = active.into_iter().filter(|job| !state.has_document(*job));
        let ended = ended.into_iter().filter(|job| !state.has_ended(*job));
        for job in active.chain(ended) {
            let backfill = || async {
                match backfill_job(&*self.ledger, &self.journal, job).await {
                    Err(error @ Error::Unavailable { .. }) => Err(error),
                    other => Ok(other.unwrap_or_default()),
                }
            };
            written += usize::from(self.retry(backfill).await?);
        }
        if written > 0 {
            info!(jobs = written, "journal begun from the ledger");
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

/// Adds to an ended job the error that its results are gone.
fn with_results_gone(was: PriorState) -> PriorState {
    let PriorState::Ended(ending) = was else { return was };
    let error = match &ending.error {
        Some(error) => format!("{error}; {RESULTS_GONE}"),
        None => RESULTS_GONE.to_owned(),
    };
    PriorState::Ended(JournalEnding { error: Some(error), ..ending })
}
