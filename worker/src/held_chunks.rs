//! The chunks that this worker holds, each with a lease that tells its pipeline how to stop.
//!
//! Here the pipeline, the heartbeat and the hints of the ledger meet.
//!
//! ```text
//!   pipeline --- hold, drop ---> HeldChunks <--- stop --- heartbeat (answers, fencing, hints)
//!   pipeline <-- drain, cancel, abandon --- ChunkLease
//! ```
//!
//! Deliberately absent: the ledger. A lease tells the pipeline to stop; the pipeline stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use longshore_ledger::{Held, Stop, StopReason};
use longshore_protocol::{JobId, Token};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;

/// How the work on a chunk is to stop, mildest first; a harder mode overrides a milder one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopMode {
    /// Finish the subtask that runs, commit, release the rest.
    Drain,
    /// Cancel the subtask that runs, commit what is settled, release the rest.
    Cancel,
    /// Cancel the subtask that runs; commit nothing any more.
    Abandon,
}

/// One chunk that this worker claimed, or tries to claim.
#[derive(Debug)]
pub(crate) struct ChunkLease {
    /// The job, the chunk and the token of the claim.
    pub(crate) held: Held,
    is_granted: AtomicBool,
    /// Whether the chunk's task is exclusive: the chunk stops when the worker is fenced.
    is_exclusive: AtomicBool,
    /// 0 while the work goes on, else the [`StopMode`] plus 1.
    stop_mode: Arc<AtomicU8>,
    cancel: CancellationToken,
    abandoned: CancellationToken,
}

impl ChunkLease {
    /// The claim went through: heartbeats list the chunk from now on.
    pub(crate) fn granted(&self) {
        self.is_granted.store(true, Ordering::Release);
    }

    /// Marks the chunk's task as exclusive. The caller checks afterwards whether the worker is
    /// fenced: a fence that comes before this call does not see the mark.
    pub(crate) fn make_exclusive(&self) {
        self.is_exclusive.store(true, Ordering::SeqCst);
    }

    /// Whether the chunk's task is exclusive.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.is_exclusive.load(Ordering::SeqCst)
    }

    /// Whether another subtask may begin.
    pub(crate) fn goes_on(&self) -> bool {
        self.stop_mode.load(Ordering::Acquire) == 0
    }

    /// The same, for a thread that does not borrow the lease.
    pub(crate) fn goes_on_token(&self) -> GoesOn {
        GoesOn(self.stop_mode.clone())
    }

    /// Whether nothing may be committed any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }

    /// Cancelled when the subtask that runs must stop.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Cancelled when nothing may be committed any more.
    pub(crate) fn abandoned(&self) -> &CancellationToken {
        &self.abandoned
    }

    /// Stops the work in this mode, or in a harder one that was set before.
    pub(crate) fn stop(&self, mode: StopMode) {
        self.stop_mode.fetch_max(mode as u8 + 1, Ordering::AcqRel);
        if mode >= StopMode::Abandon {
            self.abandoned.cancel();
        }
        if mode >= StopMode::Cancel {
            self.cancel.cancel();
        }
    }
}

/// Tells whether another subtask of a chunk may begin.
pub(crate) struct GoesOn(Arc<AtomicU8>);

impl GoesOn {
    pub(crate) fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// All chunks that a worker holds.
#[derive(Debug, Default)]
pub(crate) struct HeldChunks {
    leases: Mutex<FxHashMap<Token, Arc<ChunkLease>>>,
    /// Jobs of chunks that were taken on since the last heartbeat that got through.
    unreported_jobs: Mutex<BTreeSet<JobId>>,
    /// The mode in which every new lease stops at once: a worker that drains takes nothing on.
    closing: Mutex<Option<StopMode>>,
}

impl HeldChunks {
    /// Adds a chunk, before the first try to claim it, so that no stop gets lost in between. The
    /// guard removes it.
    pub(crate) fn hold(self: &Arc<Self>, held: Held) -> LeaseGuard {
        let lease = Arc::new(ChunkLease {
            held,
            is_granted: AtomicBool::new(false),
            is_exclusive: AtomicBool::new(false),
            stop_mode: Arc::default(),
            cancel: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        });
        self.unreported_jobs.lock().insert(lease.held.job);
        self.leases.lock().insert(lease.held.token, lease.clone());
        if let Some(mode) = *self.closing.lock() {
            lease.stop(mode);
        }
        LeaseGuard { lease, chunks: self.clone() }
    }

    /// The granted chunks: what a heartbeat lists.
    pub(crate) fn granted(&self) -> Vec<Held> {
        let leases = self.leases.lock();
        let granted = leases.values().filter(|lease| lease.is_granted.load(Ordering::Acquire));
        granted.map(|lease| lease.held.clone()).collect()
    }

    /// The jobs that a heartbeat names: those of all leases, granted or not, and of the leases
    /// since the heartbeat before. A heartbeat has to name them all: chunks that the ledger lists
    /// as held by this worker count as orphaned where it does not name their job.
    pub(crate) fn take_jobs_to_report(&self) -> BTreeSet<JobId> {
        let mut jobs = std::mem::take(&mut *self.unreported_jobs.lock());
        jobs.extend(self.leases.lock().values().map(|lease| lease.held.job));
        jobs
    }

    /// The heartbeat with these jobs did not get through.
    pub(crate) fn jobs_not_reported(&self, jobs: Option<BTreeSet<JobId>>) {
        self.unreported_jobs.lock().extend(jobs.into_iter().flatten());
    }

    /// The number of leases.
    pub(crate) fn len(&self) -> usize {
        self.leases.lock().len()
    }

    /// Stops the chunks that the answer to a heartbeat names.
    pub(crate) fn stop(&self, stops: &[Stop]) {
        let leases = self.leases.lock();
        for stop in stops {
            if let Some(lease) = leases.get(&stop.held.token) {
                lease.stop(match stop.reason {
                    StopReason::Ended | StopReason::Revoked => StopMode::Abandon,
                    StopReason::Paused => StopMode::Drain,
                });
            }
        }
    }

    /// Stops the chunks of a job: a hint said that the job ended or was paused.
    pub(crate) fn stop_job(&self, job: JobId, mode: StopMode) {
        for lease in self.leases.lock().values().filter(|lease| lease.held.job == job) {
            lease.stop(mode);
        }
    }

    /// Stops all chunks, and those that are taken on later at once.
    pub(crate) fn close(&self, mode: StopMode) {
        {
            let mut closing = self.closing.lock();
            *closing = (*closing).max(Some(mode));
        }
        for lease in self.leases.lock().values() {
            lease.stop(mode);
        }
    }

    /// Chunks that are taken on later don't stop at once any more. There is none left of before.
    pub(crate) fn reopen(&self) {
        *self.closing.lock() = None;
    }

    /// The worker is fenced: chunks of exclusive tasks stop, all others go on.
    pub(crate) fn fence(&self) {
        for lease in self.leases.lock().values().filter(|lease| lease.is_exclusive()) {
            lease.stop(StopMode::Abandon);
        }
    }
}

/// A lease that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct LeaseGuard {
    lease: Arc<ChunkLease>,
    chunks: Arc<HeldChunks>,
}

impl std::ops::Deref for LeaseGuard {
    type Target = ChunkLease;

    fn deref(&self) -> &ChunkLease {
        &self.lease
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.chunks.leases.lock().remove(&self.lease.held.token);
    }
}

#[cfg(test)]
mod tests {
    use longshore_protocol::ChunkId;

    use super::*;

    fn held(job: u128, token: u8) -> Held {
        Held {
            job: JobId::from_uuid(uuid::Uuid::from_u128(job)),
            chunk: ChunkId(1),
            token: Token::from_bytes([token; 16]),
        }
    }

    #[track_caller]
    fn check(lease: &ChunkLease, goes_on: bool, cancelled: bool, abandoned: bool) {
        let found = (lease.goes_on(), lease.cancel().is_cancelled(), lease.is_abandoned());
        assert_eq!(found, (goes_on, cancelled, abandoned), "goes on, cancelled, abandoned");
    }

    #[test]
    fn a_harder_stop_mode_overrides_a_milder_one_and_never_the_other_way() {
        let chunks = Arc::new(HeldChunks::default());
        let lease = chunks.hold(held(1, 1));
        check(&lease, true, false, false);
        lease.stop(StopMode::Drain);
        check(&lease, false, false, false);
        lease.stop(StopMode::Cancel);
        check(&lease, false, true, false);
        lease.stop(StopMode::Abandon);
        check(&lease, false, true, true);
        lease.stop(StopMode::Drain);
        check(&lease, false, true, true);
    }

    #[test]
    fn only_granted_chunks_are_listed_and_only_while_they_are_held() {
        let chunks = Arc::new(HeldChunks::default());
        let lease = chunks.hold(held(1, 1));
        assert_eq!(chunks.granted(), []);
        lease.granted();
        assert_eq!(chunks.granted(), [held(1, 1)]);
        drop(lease);
        assert_eq!(chunks.granted(), []);
    }

    #[test]
    fn a_heartbeat_names_every_job_with_chunks_held_since_the_one_before() {
        let chunks = Arc::new(HeldChunks::default());
        let (one, two) = (held(1, 1).job, held(2, 2).job);
        let lease = chunks.hold(held(1, 1));
        drop(chunks.hold(held(2, 2)));
        let jobs = chunks.take_jobs_to_report();
        assert_eq!(jobs, [one, two].into());
        chunks.jobs_not_reported(Some(jobs));
        assert_eq!(chunks.take_jobs_to_report(), [one, two].into(), "the last one was lost");
        assert_eq!(chunks.take_jobs_to_report(), [one].into());
        drop(lease);
        assert_eq!(chunks.take_jobs_to_report(), [].into());
    }

    #[test]
    fn a_hint_stops_the_chunks_of_its_own_job_alone() {
        let chunks = Arc::new(HeldChunks::default());
        let (one, two) = (chunks.hold(held(1, 1)), chunks.hold(held(2, 2)));
        chunks.stop_job(one.held.job, StopMode::Abandon);
        check(&one, false, true, true);
        check(&two, true, false, false);
    }

    #[test]
    fn a_fence_stops_chunks_of_exclusive_tasks_alone() {
        let chunks = Arc::new(HeldChunks::default());
        let (one, two) = (chunks.hold(held(1, 1)), chunks.hold(held(1, 2)));
        one.make_exclusive();
        chunks.fence();
        check(&one, false, true, true);
        check(&two, true, false, false);
    }

    #[test]
    fn a_chunk_that_is_taken_on_after_the_close_stops_at_once() {
        let chunks = Arc::new(HeldChunks::default());
        chunks.close(StopMode::Cancel);
        chunks.close(StopMode::Drain);
        check(&chunks.hold(held(1, 1)), false, true, false);
    }
}
