//! Opens chunks while a pool's window has room; finds and reports what blocks jobs otherwise.

use longshore_ledger::op::MAX_CHUNKS_A_CALL;
use longshore_protocol::{BlockedScope, JobId, ReasonCode, Timestamp};
use rustc_hash::FxHashMap;

use super::Engine;
use super::event::Action;
use super::fair_queue::QueueStatus;
use super::job::{Job, Offer, Opening};
use super::jobs::Call;
use super::pool::PoolKey;
use super::window::{AHEAD, Load, has_room};

/// A chunk that takes longer is not opened beside those of other jobs that come before it. Calls in
/// flight overtake each other, and a chunk that gets behind such a long one waits for long.
const LONG_US: f64 = AHEAD.as_micros() as f64;

/// Chunks of one job that are about to be opened.
struct Order {
    job: JobId,
    offer: Offer,
    chunks: u64,
}

impl Engine {
    /// Opens chunks while the pool's window has room.
    pub(super) fn fill(&mut self, now: Timestamp, key: &PoolKey) {
        let ledger_now = self.clock.at(now);
        let Some(pool) = self.pools.get_mut(key) else { return };
        if !self.is_link_up || self.calls.is_backing_off() {
            self.note_blocked(now, key);
            return;
        }
        // In the order of their first picks, so that the chunks of the job that is next are also
        // published first.
        let mut orders: Vec<Order> = Vec::new();
        let mut places: FxHashMap<JobId, usize> = FxHashMap::default();
        while has_room(pool.capacity, pool.load) {
            let Some(id) = pool.fair_queue.next() else { break };
            let Some(job) = self.jobs.own_mut(id) else { break };
            let place = *places.entry(id).or_insert(orders.len());
            if place == orders.len() {
                let offer = job.offer(now, ledger_now, pool.capacity.slots).unwrap_or_default();
                if offer.chunks == 0 {
                    // Time has passed since the job was refreshed.
                    places.remove(&id);
                    pool.fair_queue.set_status(id, QueueStatus::Idle);
                    continue;
                }
                if place > 0 && job.estimated_cost_us(offer.size, ledger_now) > LONG_US {
                    break;
                }
                orders.push(Order { job: id, offer, chunks: 0 });
            }
            let Order { offer, chunks, .. } = &mut orders[place];
            *chunks += 1;
            let cost_us = job.estimated_cost_us(offer.size, ledger_now);
            job.charge(cost_us);
            pool.fair_queue.serve(id, cost_us);
            count_one_more(job, &mut pool.load, *chunks, *offer, ledger_now);
            if *chunks == offer.chunks {
                pool.fair_queue.set_status(id, QueueStatus::Spent);
            } else if *chunks == u64::from(MAX_CHUNKS_A_CALL) {
                pool.fair_queue.set_status(id, QueueStatus::Busy);
            }
        }
        for Order { job: id, offer: Offer { size, .. }, chunks } in orders {
            pool.fair_queue.hold(id);
            let job = self.jobs.own(id).expect("it was just served");
            let (with_keys, with_tried) = (job.is_placed_by_key(), job.has_failures());
            let entry = self.jobs.get_mut(id).expect("it was just served");
            entry.call = Call::Opening(Opening { chunks, size });
            self.calls.started();
            let chunks = u32::try_from(chunks).expect("at most MAX_CHUNKS_A_CALL");
            self.actions.push(Action::Open { job: id, chunks, size, with_keys, with_tried });
        }
        self.note_blocked(now, key);
    }

    /// Notes what blocks all jobs of a pool that have something to open. While the window has room
    /// nothing does: the next job only waits for the answer to a call.
    fn note_blocked(&mut self, now: Timestamp, key: &PoolKey) {
        let Some(pool) = self.pools.get(key) else { return };
        let reason = if !pool.fair_queue.has_work() {
            None
        } else if !self.is_link_up {
            Some(ReasonCode::BrokerBlocked)
        } else if pool.capacity.slots == 0 {
            Some(self.why_no_worker(key))
        } else if has_room(pool.capacity, pool.load) {
            return;
        } else {
            Some(ReasonCode::SlotsBusy)
        };
        self.blocked.found(now, self.clock.at(now), &key.queue, key.scope(), reason);
    }

    /// Why no worker takes chunks of a pool.
    fn why_no_worker(&self, key: &PoolKey) -> ReasonCode {
        match &key.task {
            None => ReasonCode::NoWorkerForQueue,
            Some(task) if self.fleet.isolated(&key.queue, task).is_empty() => {
                ReasonCode::NoWorkerForTask
            }
            Some(_) => ReasonCode::SuspectIsolated,
        }
    }

    /// Has the ledger told what blocks the jobs of our queues, where that has changed.
    pub(super) fn report_blocked(&mut self, now: Timestamp) {
        let (peers, pools, jobs) = (&self.peers, &self.pools, &self.jobs);
        self.blocked.retain_scopes(|queue, scope| match scope {
            BlockedScope::Queue => pools.get(&PoolKey::shared(queue)).is_some(),
            BlockedScope::Task(task) => pools.get(&PoolKey::with_task(queue, task)).is_some(),
            BlockedScope::Job(id) => jobs.own(*id).is_some_and(|job| job.summary.queue == queue),
        });
        self.blocked.retain_queues(|queue| peers.owns(queue), |queue| pools.has_queue(queue));
        self.actions.extend(self.blocked.take_due(now).into_iter().map(Action::ReportBlocked));
    }
}

/// Adds a chunk that one job is about to open to the load of the pool.
fn count_one_more(
    job: &mut Job,
    load: &mut Load,
    ordered: u64,
    offer: Offer,
    ledger_now: Option<Timestamp>,
) {
    let opening = Opening { chunks: ordered, size: offer.size };
    let counted = job.load(Some(opening), ledger_now);
    load.replace(job.counted_load, counted);
    job.counted_load = counted;
}
