//! Chooses which call to the ledger is made next for a job, and which waiting jobs get their calls.

use longshore_protocol::{JobId, NodeId, Timestamp};

use super::Engine;
use super::event::Action;
use super::job::Job;
use super::jobs::{Call, Entry, Ownership};

/// The error of a job that fails because its deadline has passed.
const DEADLINE_PASSED: &str = "the deadline has passed";

impl Engine {
    /// Puts a job among those that wait for a call if there is one to make.
    pub(super) fn enqueue_call(&mut self, now: Timestamp, id: JobId) {
        let Some(entry) = self.jobs.get(id).filter(|_| !self.calls.is_queued(id)) else { return };
        if entry.call == Call::Idle && self.next_call(now, id, entry).is_some() {
            self.calls.enqueue(id);
        }
    }

    /// Makes the calls that wait, as many as may be in flight.
    pub(super) fn make_calls(&mut self, now: Timestamp) {
        while let Some(id) = self.calls.next(now) {
            // While a call about the job is in flight the job waits for the answer, which puts it
            // among those that wait again.
            let Some(entry) = self.jobs.get(id).filter(|entry| entry.call == Call::Idle) else {
                continue;
            };
            if let Some(action) = self.next_call(now, id, entry) {
                self.make_call(now, id, action);
            }
        }
    }

    fn make_call(&mut self, now: Timestamp, id: JobId, action: Action) {
        let entry = self.jobs.get_mut(id).expect("the caller looked it up");
        entry.call = match &action {
            Action::ReadJob { .. } => Call::ReadingJob,
            Action::Sweep { suspect_lost, .. } => Call::Sweeping { suspect_lost: *suspect_lost },
            Action::ReadHolders { .. } => Call::ReadingHolders,
            _ => Call::Other,
        };
        if matches!(entry.call, Call::ReadingJob | Call::Sweeping { .. }) {
            entry.wants_read = false;
        }
        if let Ownership::Ours(job) = &mut entry.ownership {
            match &action {
                Action::FailJob { .. } => job.failing(now),
                Action::ReadHolders { .. } => job.reading_holders(now),
                _ => {}
            }
            if let Some(pool) = self.pools.get_mut(&job.pool) {
                pool.fair_queue.hold(id);
            }
        }
        self.calls.started();
        self.actions.push(action);
    }

    /// The call that is to be made for a job, if any.
    fn next_call(&self, now: Timestamp, id: JobId, entry: &Entry) -> Option<Action> {
        match &entry.ownership {
            Ownership::Over => Some(Action::ArchiveJob { job: id }),
            Ownership::Elsewhere(_) => None,
            Ownership::Unseen => entry.wants_read.then_some(Action::ReadJob { job: id }),
            Ownership::Ours(job) => self.next_call_of_own(now, id, job, entry.wants_read),
        }
    }

    fn next_call_of_own(
        &self,
        now: Timestamp,
        id: JobId,
        job: &Job,
        wants_read: bool,
    ) -> Option<Action> {
        if job.has_missed_deadline(now, self.clock.at(now)) {
            return Some(Action::FailJob { job: id, error: DEADLINE_PASSED.into() });
        }
        if job.holders_are_due(now) {
            return Some(Action::ReadHolders { job: id });
        }
        if job.spec.is_none() {
            return Some(Action::LoadSpec { job: id });
        }
        if let Some(nodes) = self.nodes_to_refund(job) {
            return Some(Action::RefundAttempts { job: id, nodes });
        }
        if let Some(request) = self.speculation_request(now, job) {
            return Some(Action::OfferSpeculative { job: id, request });
        }
        if job.sweep_is_due(now) && self.is_link_up {
            return Some(Action::Sweep {
                job: id,
                with_keys: job.is_placed_by_key(),
                with_tried: job.has_failures(),
                unless_queued_in: self.shared_queue(job),
                suspect_lost: job.suspects_are_due(now),
            });
        }
        let is_due = wants_read || job.sweep_is_due(now);
        is_due.then_some(Action::ReadJob { job: id })
    }

    /// The nodes whose failures are not to use up attempts of a job: those that are out of rotation
    /// for its task. `None` if the ledger knows them already, or if the job has nothing to refund.
    fn nodes_to_refund(&self, job: &Job) -> Option<Vec<NodeId>> {
        let isolated = self.fleet.isolated(&job.summary.queue, job.task()?);
        let matters = job.is_open() || job.has_failures() || !job.refunded_nodes.is_empty();
        (matters && isolated != job.refunded_nodes).then_some(isolated)
    }
}
