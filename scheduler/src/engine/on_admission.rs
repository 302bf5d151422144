//! This scheduler admits a job: whether a first chunk is opened at once, and what is known after.
//!
//! [`Engine::begin_admission`] comes first, then the event [`Admitted`](super::Event::Admitted) or
//! [`NotAdmitted`](super::Event::NotAdmitted).

use longshore_protocol::document::Placement;
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JobSummary, Timestamp};

use super::Engine;
use super::eager_chunks::EagerChunk;
use super::event::{JobSpec, RoutedChunk};
use super::job::Job;
use super::jobs::{Call, Ownership};
use super::pool::{Pool, PoolKey};
use super::window::{Load, has_room};

#[cfg(doc)]
use super::Event;

impl Engine {
    /// A job is about to be admitted here: until [`Event::Admitted`] or [`Event::NotAdmitted`] says
    /// how that went, hints about the job lead to no call. Returns how many subtasks a first chunk
    /// may have that the ledger opens in the same operation, or `None` if it should open none.
    pub fn begin_admission(
        &mut self,
        now: Timestamp,
        summary: JobSummary,
        spec: JobSpec,
    ) -> Option<u64> {
        let job = summary.id;
        if !self.jobs.add_admitting(job) {
            return None;
        }
        let pool = PoolKey::of(&summary.queue, Some(&summary.task), &self.fleet);
        let size = self.first_chunk(now, &pool, summary, spec)?;
        self.eager_chunks.add(job, EagerChunk { pool, allowed_at: now });
        Some(size)
    }

    /// The size of a first chunk: one is opened if the window has room and no other job of the pool
    /// waits for a slot. Not where chunks are placed by key, since the key has to be read first.
    fn first_chunk(
        &self,
        now: Timestamp,
        key: &PoolKey,
        summary: JobSummary,
        spec: JobSpec,
    ) -> Option<u64> {
        let is_keyed = matches!(spec.placement, Placement::Hash(_));
        let can_publish = self.is_link_up && !self.calls.is_backing_off();
        if is_keyed || !can_publish || !self.peers.owns(&summary.queue) {
            return None;
        }
        let (capacity, mut load) = match self.pools.get(key) {
            Some(pool) if pool.fair_queue.next().is_some() => return None,
            Some(pool) => (pool.capacity, pool.load),
            None => (Pool::new(key, &self.fleet).capacity, Load::default()),
        };
        self.eager_chunks.add_to(key, &mut load);
        let mut job = Job::new(now, self.jobs.count(), summary);
        job.spec = Some(spec);
        let offer = job.offer(now, self.clock.at(now), capacity.slots).ok()?;
        (offer.chunks > 0 && has_room(capacity, load)).then_some(offer.size)
    }

    /// A new job of an own queue need not be read: what the ledger has of it is known.
    pub(super) fn on_admitted(
        &mut self,
        now: Timestamp,
        summary: JobSummary,
        spec: JobSpec,
        opened: &[RoutedChunk],
    ) {
        let (id, jobs) = (summary.id, self.jobs.count());
        let eager = self.eager_chunks.remove(id);
        let Some(entry) = self.jobs.get_mut(id).filter(|entry| entry.call == Call::Admitting)
        else {
            // The job was known before.
            return self.on_job_hint(now, id, summary.state);
        };
        entry.call = Call::Idle;
        let ownership = if self.peers.owns(&summary.queue) {
            let mut job = Job::new(now, jobs, summary);
            job.spec = Some(spec);
            if !opened.is_empty() {
                job.opened(now, 1, opened);
            }
            // The chunk may have been claimed, and its holder lost, before this event came.
            if eager.is_some_and(|it| self.node_recovery.has_verdict_since(it.allowed_at)) {
                job.want_holders();
            }
            Ownership::Ours(Box::new(job))
        } else {
            self.jobs.cede(now, id);
            Ownership::Elsewhere(summary.queue)
        };
        self.set_ownership(id, ownership);
        self.publish(now, id, opened);
        self.refresh(now, id);
    }

    pub(super) fn on_not_admitted(&mut self, now: Timestamp, id: JobId, known: bool) {
        self.eager_chunks.remove(id);
        if self.jobs.is_admitting(id) {
            self.drop_job(id);
        }
        if known {
            self.on_job_hint(now, id, JobState::Queued);
        }
    }
}
