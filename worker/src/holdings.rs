//! What this worker holds: the one place where the pipeline, the heart and the hints of the ledger
//! meet.
//!
//! ```text
//!   pipeline --- take, drop ---> Holdings <--- stop --- heart (beats, fencing, hints)
//!   pipeline <-- wind_up, leave, abandon --- Hold
//! ```
//!
//! Deliberately absent: the ledger. A hold tells what to do with a chunk; doing it is the
//! pipeline's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use longshore_ledger::{Held, Stop, StopReason};
use longshore_protocol::{JobId, Token};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;

/// How a hold is to end, mildest first; a harder one overrides a milder one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Finish the subtask that runs, commit, release the rest.
    Yield,
    /// Stop the subtask that runs, commit what is settled, release the rest.
    Leave,
    /// Stop the subtask that runs; nothing is committed any more.
    Abandon,
}

/// One chunk that this worker claimed, or tries to claim.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) held: Held,
    granted: AtomicBool,
    /// Whether the chunk's task is exclusive: it stops when the worker loses the ledger.
    exclusive: AtomicBool,
    ending: Arc<AtomicU8>,
    cancel: CancellationToken,
    abandoned: CancellationToken,
}

impl Hold {
    /// The claim went through: heartbeats list it from now on.
    pub(crate) fn granted(&self) {
        self.granted.store(true, Ordering::Release);
    }

    /// Marks the chunk's task as exclusive. The caller looks at the liveness afterwards: a fence
    /// that comes before this call does not see the mark.
    pub(crate) fn make_exclusive(&self) {
        self.exclusive.store(true, Ordering::SeqCst);
    }

    /// Whether the chunk's task is exclusive.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::SeqCst)
    }

    /// Whether to begin another subtask.
    pub(crate) fn goes_on(&self) -> bool {
        self.ending.load(Ordering::Acquire) == 0
    }

    /// The same, to be asked elsewhere.
    pub(crate) fn goes_on_token(&self) -> GoesOn {
        GoesOn(self.ending.clone())
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

    /// Ends the hold this way, or a harder one that came before.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.fetch_max(ending as u8 + 1, Ordering::AcqRel);
        if ending >= Ending::Abandon {
            self.abandoned.cancel();
        }
        if ending >= Ending::Leave {
            self.cancel.cancel();
        }
    }
}

/// Tells whether to begin another subtask of a hold.
pub(crate) struct GoesOn(Arc<AtomicU8>);

impl GoesOn {
    pub(crate) fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// All holds of a worker.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    holds: Mutex<FxHashMap<Token, Arc<Hold>>>,
    /// Jobs of which something was taken on since the last heartbeat that got through.
    untold: Mutex<BTreeSet<JobId>>,
    /// What every new hold begins with: a worker that drains takes nothing on.
    closing: Mutex<Option<Ending>>,
}

impl Holdings {
    /// Takes a chunk on, before the first try to claim it, so that no stop gets lost on the way.
    pub(crate) fn take(self: &Arc<Self>, held: Held) -> Taken {
        let hold = Arc::new(Hold {
            held,
            granted: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
            ending: Arc::default(),
            cancel: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        });
        self.untold.lock().insert(hold.held.job);
        self.holds.lock().insert(hold.held.token, hold.clone());
        if let Some(ending) = *self.closing.lock() {
            hold.end(ending);
        }
        Taken { hold, holdings: self.clone() }
    }

    /// What a heartbeat lists.
    pub(crate) fn held(&self) -> Vec<Held> {
        let holds = self.holds.lock();
        let granted = holds.values().filter(|hold| hold.granted.load(Ordering::Acquire));
        granted.map(|hold| hold.held.clone()).collect()
    }

    /// The jobs that a heartbeat names: of which there are holds, granted or not, or were since the
    /// one before. It has to name them all, since the scheduler takes for orphaned what the ledger
    /// has us hold of others.
    pub(crate) fn jobs_to_tell(&self) -> BTreeSet<JobId> {
        let mut jobs = std::mem::take(&mut *self.untold.lock());
        jobs.extend(self.holds.lock().values().map(|hold| hold.held.job));
        jobs
    }

    /// The heartbeat did not get through.
    pub(crate) fn untold(&self, jobs: Option<BTreeSet<JobId>>) {
        self.untold.lock().extend(jobs.into_iter().flatten());
    }

    /// How many slots are busy.
    pub(crate) fn busy(&self) -> usize {
        self.holds.lock().len()
    }

    /// What a heartbeat was told to stop.
    pub(crate) fn stop(&self, stops: &[Stop]) {
        let holds = self.holds.lock();
        for stop in stops {
            if let Some(hold) = holds.get(&stop.held.token) {
                hold.end(match stop.reason {
                    StopReason::Ended | StopReason::Revoked => Ending::Abandon,
                    StopReason::Paused => Ending::Yield,
                });
            }
        }
    }

    /// A hint said that a job ended or was paused.
    pub(crate) fn end_job(&self, job: JobId, ending: Ending) {
        for hold in self.holds.lock().values().filter(|hold| hold.held.job == job) {
            hold.end(ending);
        }
    }

    /// Everything ends now, and what is taken on later ends at once.
    pub(crate) fn close(&self, ending: Ending) {
        {
            let mut closing = self.closing.lock();
            *closing = (*closing).max(Some(ending));
        }
        self.end_all(ending);
    }

    /// The worker lost the ledger: chunks of exclusive tasks end, all others go on.
    pub(crate) fn fence(&self) {
        for hold in self.holds.lock().values().filter(|hold| hold.is_exclusive()) {
            hold.end(Ending::Abandon);
        }
    }

    /// Everything that is held now ends.
    fn end_all(&self, ending: Ending) {
        for hold in self.holds.lock().values() {
            hold.end(ending);
        }
    }
}

/// A hold that is taken off the list when the pipeline lets go of it.
#[derive(Debug)]
pub(crate) struct Taken {
    hold: Arc<Hold>,
    holdings: Arc<Holdings>,
}

impl std::ops::Deref for Taken {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.hold
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.holdings.holds.lock().remove(&self.hold.held.token);
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
    fn stands(hold: &Hold, goes_on: bool, cancelled: bool, abandoned: bool) {
        let found = (hold.goes_on(), hold.cancel().is_cancelled(), hold.is_abandoned());
        assert_eq!(found, (goes_on, cancelled, abandoned), "goes on, cancelled, abandoned");
    }

    #[test]
    fn a_harder_ending_overrides_a_milder_one_and_never_the_other_way() {
        let holdings = Arc::new(Holdings::default());
        let hold = holdings.take(held(1, 1));
        stands(&hold, true, false, false);
        hold.end(Ending::Yield);
        stands(&hold, false, false, false);
        hold.end(Ending::Leave);
        stands(&hold, false, true, false);
        hold.end(Ending::Abandon);
        stands(&hold, false, true, true);
        hold.end(Ending::Yield);
        stands(&hold, false, true, true);
    }

    #[test]
    fn only_granted_chunks_are_listed_and_only_while_they_are_held() {
        let holdings = Arc::new(Holdings::default());
        let hold = holdings.take(held(1, 1));
        assert_eq!(holdings.held(), []);
        hold.granted();
        assert_eq!(holdings.held(), [held(1, 1)]);
        drop(hold);
        assert_eq!(holdings.held(), []);
    }

    #[test]
    fn a_heartbeat_names_every_job_that_was_held_since_the_one_before() {
        let holdings = Arc::new(Holdings::default());
        let (one, two) = (held(1, 1).job, held(2, 2).job);
        let hold = holdings.take(held(1, 1));
        drop(holdings.take(held(2, 2)));
        let told = holdings.jobs_to_tell();
        assert_eq!(told, [one, two].into());
        holdings.untold(Some(told));
        assert_eq!(holdings.jobs_to_tell(), [one, two].into(), "the last one did not get through");
        assert_eq!(holdings.jobs_to_tell(), [one].into());
        drop(hold);
        assert_eq!(holdings.jobs_to_tell(), [].into());
    }

    #[test]
    fn a_hint_stops_its_own_job_alone() {
        let holdings = Arc::new(Holdings::default());
        let (one, two) = (holdings.take(held(1, 1)), holdings.take(held(2, 2)));
        holdings.end_job(one.held.job, Ending::Abandon);
        stands(&one, false, true, true);
        stands(&two, true, false, false);
    }

    #[test]
    fn a_fence_ends_chunks_of_exclusive_tasks_alone() {
        let holdings = Arc::new(Holdings::default());
        let (one, two) = (holdings.take(held(1, 1)), holdings.take(held(1, 2)));
        one.make_exclusive();
        holdings.fence();
        stands(&one, false, true, true);
        stands(&two, true, false, false);
    }

    #[test]
    fn what_is_taken_on_after_the_close_ends_at_once() {
        let holdings = Arc::new(Holdings::default());
        holdings.close(Ending::Leave);
        holdings.close(Ending::Yield);
        stands(&holdings.take(held(1, 1)), false, true, false);
    }
}
