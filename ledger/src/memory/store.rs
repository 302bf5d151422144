//! All jobs, workers and schedulers of a memory ledger, their lists, and when they expire.
//!
//! It also keeps the position in the journal, deletions, and cancels that came before their job.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    Blocked, BlockedScope, Hint, JobCursor, JobId, JobIdPrefix, JobPage, JournalPosition, MAX_PAGE,
    NodeId, NodeRecord, NodeState, SchedulerId, SchedulerRecord, Stall, Timestamp,
};

use super::access::Access;
use super::job::Job;
use crate::op::ListParams;
use crate::op::{
    Admission, Admitted, AdvanceJournalParams, Beat, BeatParams, BlockedParams, DeclareLostParams,
    Event, Held, IsolateParams, LOST_KEPT, LossEvidence, LossVerdict, LostNode, Process,
    RecordCrashParams, RegisterSchedulerParams, ReportBlockedParams, ReportStallParams,
    RestoreParams, Restored, Stop, StopReason,
};
use crate::{CANCEL_KEPT, Cancelled, ControlError, POSTPONED_FOR, STALL_KEPT};

/// A scheduler without a heartbeat for this time is removed; no caller asks for a longer time.
const SCHEDULER_EXPIRES_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the deletion of a job is remembered.
const DELETED_REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The data that the lock of a memory ledger guards.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    jobs: HashMap<JobId, Job>,
    /// The place of every job in lists.
    listed: BTreeSet<JobCursor>,
    /// By the time of submission.
    active: BTreeMap<JobId, Timestamp>,
    /// By the time of the end.
    finished: BTreeMap<JobId, Timestamp>,
    expiring: BTreeSet<(Timestamp, JobId)>,
    deleted: HashMap<JobId, Timestamp>,
    /// Why jobs can't be judged, each with the time of the report.
    postponed: HashMap<JobId, (Timestamp, String)>,
    /// The stalls that workers reported, by job and worker.
    stalls: BTreeMap<(JobId, NodeId), Stall>,
    /// What blocks jobs, by queue and scope.
    blocked: BTreeMap<String, BTreeMap<BlockedScope, Blocked>>,
    /// When jobs that are not known yet were cancelled.
    cancels: HashMap<JobId, Timestamp>,
    /// The place in the journal up to which the ledger reflects it.
    journal: Option<JournalPosition>,
    nodes: BTreeMap<NodeId, Node>,
    lost: BTreeMap<NodeId, LostNode>,
    schedulers: BTreeMap<SchedulerId, Timestamp>,
    disconnected: BTreeSet<Process>,
    pub(super) access: Access,
}

#[derive(Clone, Debug)]
struct Node {
    record: NodeRecord,
    drain: bool,
}

impl Store {
    /// Removes expired jobs. Cheap when there are none, so every operation calls it first.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.expiring.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, job)) = self.expiring.pop_first() {
                self.remove(job);
                self.finished.remove(&job);
            }
        }
    }

    fn insert(&mut self, id: JobId, job: Job) {
        self.listed.insert(place(id, &job));
        self.jobs.insert(id, job);
    }

    fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.listed.remove(&place(id, &job));
        Some(job)
    }

    pub(super) fn list(&self, params: &ListParams) -> JobPage {
        let limit = params.limit.clamp(1, MAX_PAGE);
        let behind = match params.cursor {
            Some(cursor) => self.listed.range(..cursor),
            None => self.listed.range(..),
        };
        let mut page = JobPage::default();
        for place in behind.rev() {
            if page.jobs.len() == limit {
                let last = page.jobs.last();
                page.next = last.map(|job| JobCursor { listed_at: job.submitted_at, job: job.id });
                break;
            }
            let summary = self.jobs.get(&place.job).map(Job::summary);
            page.jobs.extend(summary.filter(|job| params.filter.matches(job)));
        }
        page
    }

    pub(super) fn find_ids(&self, prefix: &JobIdPrefix, limit: usize) -> Vec<JobId> {
        let ids = self.jobs.keys().copied().filter(|job| prefix.is_of(*job));
        let mut ids: Vec<JobId> = ids.collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    pub(super) fn unique_prefixes(&self, jobs: &[JobId]) -> Vec<usize> {
        let ids: BTreeSet<JobId> = self.jobs.keys().copied().collect();
        let length = |job: &JobId| {
            let before = ids.range(..job).next_back();
            let after = ids.range((Bound::Excluded(job), Bound::Unbounded)).next();
            let lengths = before.into_iter().chain(after);
            let lengths = lengths.map(|other| JobIdPrefix::length_to_tell(*job, *other));
            lengths.max().unwrap_or(JobIdPrefix::SHORTEST)
        };
        jobs.iter().map(length).collect()
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    pub(super) fn job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    /// Changes a job, and its lists and its expiry accordingly.
    pub(super) fn change<A>(&mut self, id: JobId, op: impl FnOnce(&mut Job) -> A) -> Option<A> {
        let job = self.jobs.get_mut(&id)?;
        let before = job.expires_at();
        let answer = op(job);
        let after = job.expires_at();
        let submitted_at = job.submitted_at;
        if before != after {
            self.expiring.extend(after.map(|at| (at, id)));
            if let Some(at) = before {
                self.expiring.remove(&(at, id));
                self.active.insert(id, submitted_at);
                self.finished.remove(&id);
            }
        }
        Some(answer)
    }

    pub(super) fn admit(
        &mut self,
        admission: &Admission,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Admitted {
        let id = admission.job;
        match self.jobs.get(&id) {
            Some(known) if known.state.was_accepted() => {
                return if known.admission.digest == admission.digest {
                    Admitted::Known
                } else {
                    Admitted::Conflict
                };
            }
            Some(_) => self.remove_job(id),
            None => {}
        }
        let mut job = Job::admit(admission, now);
        self.deleted.remove(&id);
        self.active.insert(id, now);
        let admitted = if self.take_cancel(id, now) {
            job.end(JobState::Cancelled, None, now, events);
            self.expiring.extend(job.expires_at().map(|at| (at, id)));
            Admitted::Cancelled { at: now }
        } else {
            events.push(job.changed());
            let opened = admission.open.map(|open| job.open(&open, now)).unwrap_or_default();
            Admitted::Accepted { at: now, opened }
        };
        self.insert(id, job);
        admitted
    }

    pub(super) fn restore(
        &mut self,
        params: &RestoreParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Restored {
        let RestoreParams { admission, prior } = params;
        let id = admission.job;
        if self.was_deleted(id, now) {
            return Restored::Known;
        }
        match self.jobs.get(&id) {
            Some(known) if known.state.was_accepted() => return Restored::Known,
            _ => {}
        }
        let mut job = Job::restore(admission, prior, now);
        if job.expires_at().is_some_and(|at| at <= now) {
            return Restored::Expired;
        }
        self.remove_job(id);
        match job.finished_at {
            Some(finished_at) => self.finished.insert(id, finished_at),
            None => self.active.insert(id, job.submitted_at),
        };
        let is_cancelled = self.take_cancel(id, now);
        if is_cancelled && job.finished_at.is_none() {
            job.end(JobState::Cancelled, None, now, events);
        } else {
            events.push(job.changed());
        }
        self.expiring.extend(job.expires_at().map(|at| (at, id)));
        self.insert(id, job);
        Restored::Restored
    }

    pub(super) fn missing(&self, jobs: &[JobId], now: Timestamp) -> Vec<JobId> {
        let is_missing = |id: &JobId| !self.jobs.contains_key(id) && !self.was_deleted(*id, now);
        jobs.iter().copied().filter(is_missing).collect()
    }

    fn was_deleted(&self, id: JobId, now: Timestamp) -> bool {
        self.deleted.get(&id).is_some_and(|at| now.since(*at) < DELETED_REMEMBERED)
    }

    pub(super) fn journal(&self) -> Option<JournalPosition> {
        self.journal.clone()
    }

    pub(super) fn advance(&mut self, params: &AdvanceJournalParams) -> Option<JournalPosition> {
        if self.journal == params.from {
            self.journal = Some(params.to.clone());
        }
        self.journal.clone()
    }

    pub(super) fn reject(
        &mut self,
        id: JobId,
        error: &str,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        if self.jobs.contains_key(&id) {
            return;
        }
        let job = Job::reject(id, error, now);
        events.push(job.changed());
        self.expiring.extend(job.expires_at().map(|at| (at, id)));
        self.active.remove(&id);
        self.finished.insert(id, now);
        self.insert(id, job);
    }

    pub(super) fn postpone(&mut self, id: JobId, reason: &str, now: Timestamp) {
        self.postponed.retain(|_, (at, _)| now.since(*at) < POSTPONED_FOR);
        self.postponed.insert(id, (now, reason.to_owned()));
    }

    pub(super) fn postponed(&self, id: JobId, now: Timestamp) -> Option<String> {
        let (at, reason) = self.postponed.get(&id)?;
        (now.since(*at) < POSTPONED_FOR).then(|| reason.clone())
    }

    pub(super) fn report_stall(&mut self, id: JobId, params: &ReportStallParams, now: Timestamp) {
        let ReportStallParams { node, reason } = params;
        self.stalls.retain(|_, stall| now.since(stall.at) < STALL_KEPT);
        let key = (id, node.clone());
        match reason {
            Some(reason) => {
                let stall = Stall { node: node.clone(), at: now, reason: reason.clone() };
                self.stalls.insert(key, stall);
            }
            None => {
                self.stalls.remove(&key);
            }
        }
    }

    pub(super) fn stalls(&self, id: JobId, now: Timestamp) -> Vec<Stall> {
        let of_job = self.stalls.iter().filter(|((job, _), _)| *job == id);
        let kept = of_job.filter(|(_, stall)| now.since(stall.at) < STALL_KEPT);
        kept.map(|(_, stall)| stall.clone()).collect()
    }

    pub(super) fn report_blocked(&mut self, params: &ReportBlockedParams) {
        let ReportBlockedParams { queue, changes, replaces } = params;
        let reports = self.blocked.entry(queue.clone()).or_default();
        if *replaces {
            reports.clear();
        }
        for (scope, blocked) in changes {
            match blocked {
                Some(blocked) => drop(reports.insert(scope.clone(), *blocked)),
                None => drop(reports.remove(scope)),
            }
        }
        if reports.is_empty() {
            self.blocked.remove(queue);
        }
    }

    pub(super) fn blocked(&self, params: &BlockedParams) -> Vec<Option<Blocked>> {
        let reports = self.blocked.get(&params.queue);
        params.scopes.iter().map(|scope| reports?.get(scope).copied()).collect()
    }

    pub(super) fn cancel(
        &mut self,
        id: JobId,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<Cancelled, ControlError> {
        if let Some(answer) = self.change(id, |job| job.cancel(now, events)) {
            return answer.map(|_| Cancelled::Ended);
        }
        if self.was_deleted(id, now) {
            return Err(ControlError::NotFound);
        }
        self.cancels.retain(|_, at| now.since(*at) < CANCEL_KEPT);
        self.cancels.insert(id, now);
        Ok(Cancelled::BeforeAdmission)
    }

    pub(super) fn pending_cancel(&self, id: JobId, now: Timestamp) -> Option<Timestamp> {
        self.cancels.get(&id).copied().filter(|at| now.since(*at) < CANCEL_KEPT)
    }

    /// Whether the job was cancelled before it was there, which is forgotten by that.
    fn take_cancel(&mut self, id: JobId, now: Timestamp) -> bool {
        let is_pending = self.pending_cancel(id, now).is_some();
        self.cancels.remove(&id);
        is_pending
    }

    pub(super) fn delete(&mut self, id: JobId, now: Timestamp) -> Result<(), ControlError> {
        let state = self.jobs.get(&id).ok_or(ControlError::NotFound)?.state;
        if !state.is_terminal() {
            return Err(ControlError::NotEnded(state));
        }
        self.remove_job(id);
        self.deleted.retain(|_, at| now.since(*at) < DELETED_REMEMBERED);
        self.deleted.insert(id, now);
        Ok(())
    }

    fn remove_job(&mut self, id: JobId) {
        if let Some(at) = self.remove(id).and_then(|job| job.expires_at()) {
            self.expiring.remove(&(at, id));
        }
        self.active.remove(&id);
        self.finished.remove(&id);
    }

    pub(super) fn archive(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            self.active.remove(&id);
            self.finished.remove(&id);
            return;
        };
        if let Some(at) = job.finished_at {
            self.active.remove(&id);
            self.finished.insert(id, at);
        }
    }

    pub(super) fn active_jobs(&self) -> Vec<JobId> {
        by_time(&self.active).map(|(_, job)| job).collect()
    }

    pub(super) fn finished_jobs(&self, limit: usize) -> Vec<JobId> {
        by_time(&self.finished).rev().take(limit).map(|(_, job)| job).collect()
    }

    // Workers and schedulers

    pub(super) fn beat(
        &mut self,
        params: &BeatParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Beat {
        let BeatParams { info, held } = params;
        self.disconnected.remove(&Process::Worker(info.id.clone()));
        self.lost.remove(&info.id);
        let known = self.nodes.get(&info.id);
        let death = known.and_then(|node| node.record.death.clone());
        let isolated = known.map(|node| node.record.isolated.clone()).unwrap_or_default();
        let info = Arc::new(info.clone());
        let record = NodeRecord { death, isolated, ..NodeRecord::new(info.clone(), now) };
        // A worker that drained before the ledger forgot it goes on doing so.
        let drain = match known {
            Some(node) => node.drain,
            None => info.state != NodeState::Active,
        };
        let was = known.map(|node| &node.record.info);
        let has_changed = was.is_some_and(|was| was.state != info.state || was.tasks != info.tasks);
        if was.is_none() || has_changed {
            events.push(Event::Hint(Hint::Node { node: info.id.clone() }));
        }
        self.nodes.insert(info.id.clone(), Node { record, drain });
        let stop = held
            .iter()
            .filter_map(|held| {
                let reason = self.why_stop(held)?;
                Some(Stop { held: held.clone(), reason })
            })
            .collect();
        Beat { stop, drain }
    }

    fn why_stop(&self, held: &Held) -> Option<StopReason> {
        let job = match self.jobs.get(&held.job) {
            Some(job) if !job.state.is_terminal() => job,
            _ => return Some(StopReason::Ended),
        };
        let chunk = job.chunks.get(&held.chunk);
        if chunk.and_then(|chunk| chunk.holder(held.token)).is_none() {
            return Some(StopReason::Revoked);
        }
        (job.state.is_paused()).then_some(StopReason::Paused)
    }

    pub(super) fn nodes(&self) -> Vec<NodeRecord> {
        self.nodes.values().map(|node| node.record.clone()).collect()
    }

    /// Marks the connections of a process as lost until its next heartbeat.
    pub(super) fn disconnect(&mut self, process: &Process) {
        self.disconnected.insert(process.clone());
    }

    pub(super) fn is_disconnected(&self, process: &Process) -> bool {
        self.disconnected.contains(process)
    }

    pub(super) fn drain(&mut self, id: &NodeId, events: &mut Vec<Event>) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return false;
        };
        node.drain = true;
        events.push(Event::Hint(Hint::Node { node: id.clone() }));
        true
    }

    pub(super) fn undrain(&mut self, id: &NodeId, events: &mut Vec<Event>) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return false;
        };
        node.drain = false;
        events.push(Event::Hint(Hint::Node { node: id.clone() }));
        true
    }

    pub(super) fn isolate(&mut self, params: &IsolateParams, events: &mut Vec<Event>) -> bool {
        let Some(node) = self.nodes.get_mut(&params.node) else {
            return false;
        };
        node.record.isolated = params.isolated.clone();
        events.push(Event::Hint(Hint::Node { node: params.node.clone() }));
        true
    }

    pub(super) fn record_crash(
        &mut self,
        params: &RecordCrashParams,
        events: &mut Vec<Event>,
    ) -> bool {
        let Some(node) = self.nodes.get_mut(&params.node) else {
            return false;
        };
        node.record.death = Some(params.death.clone());
        events.push(Event::Hint(Hint::Node { node: params.node.clone() }));
        true
    }

    /// The workers that are lost, by id.
    pub(super) fn lost(&mut self, now: Timestamp) -> Vec<LostNode> {
        self.lost.retain(|_, lost| now.since(lost.at) < LOST_KEPT);
        self.lost.values().cloned().collect()
    }

    pub(super) fn lose(
        &mut self,
        params: &DeclareLostParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> LossVerdict {
        let DeclareLostParams { node: id, evidence, cause } = params;
        let beat_at = self.nodes.get(id).map(|node| node.record.beat_at);
        let beat_at = match (*evidence, beat_at) {
            (LossEvidence::Absent, Some(_)) => return LossVerdict::Lives,
            (LossEvidence::LastBeat(at), Some(beat_at)) if beat_at != at => {
                return LossVerdict::Lives;
            }
            (LossEvidence::SilentSince(at), Some(beat_at)) if beat_at > at => {
                return LossVerdict::Lives;
            }
            (LossEvidence::LastBeat(at), None) => at,
            (_, beat_at) => beat_at.unwrap_or_default(),
        };
        self.lost.retain(|_, lost| now.since(lost.at) < LOST_KEPT);
        if let Some(known) = self.lost.get(id) {
            return LossVerdict::Known(known.clone());
        }
        self.disconnected.remove(&Process::Worker(id.clone()));
        self.nodes.remove(id);
        let lost = LostNode { node: id.clone(), at: now, beat_at, loss: cause.clone() };
        self.lost.insert(id.clone(), lost.clone());
        events.push(Event::Hint(Hint::Node { node: id.clone() }));
        LossVerdict::New(lost)
    }

    pub(super) fn register_scheduler(
        &mut self,
        params: &RegisterSchedulerParams,
        now: Timestamp,
    ) -> Vec<SchedulerRecord> {
        let RegisterSchedulerParams { scheduler, within } = params;
        self.disconnected.remove(&Process::Scheduler(scheduler.clone()));
        self.schedulers.insert(scheduler.clone(), now);
        self.schedulers.retain(|_, at| now.since(*at) <= (*within).max(SCHEDULER_EXPIRES_AFTER));
        let mut present = self.schedulers();
        present.retain(|record| now.since(record.beat_at) <= *within);
        present
    }

    pub(super) fn schedulers(&self) -> Vec<SchedulerRecord> {
        let record = |(id, at): (&SchedulerId, &Timestamp)| SchedulerRecord {
            id: id.clone(),
            beat_at: *at,
            connections: None,
            round_trip: Duration::ZERO,
        };
        self.schedulers.iter().map(record).collect()
    }

    pub(super) fn deregister_scheduler(
        &mut self,
        scheduler: &SchedulerId,
        events: &mut Vec<Event>,
    ) {
        self.disconnected.remove(&Process::Scheduler(scheduler.clone()));
        if self.schedulers.remove(scheduler).is_some() {
            events.push(Event::Hint(Hint::Scheduler { scheduler: scheduler.clone() }));
        }
    }
}

fn by_time(list: &BTreeMap<JobId, Timestamp>) -> std::vec::IntoIter<(Timestamp, JobId)> {
    let mut sorted: Vec<_> = list.iter().map(|(job, at)| (*at, *job)).collect();
    sorted.sort_unstable();
    sorted.into_iter()
}

/// The place of a job in lists.
fn place(id: JobId, job: &Job) -> JobCursor {
    JobCursor { listed_at: job.submitted_at, job: id }
}
