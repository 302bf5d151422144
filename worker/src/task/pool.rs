//! The served processes of a worker, those of all its tasks together.
//!
//! Never more live than the worker has slots: whoever needs a new one lets go of the one that has
//! been idle for longest. One that has been idle for a while is let go in any case.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::serve::Served;
use crate::shim::Shims;

/// Long enough for the pause between two jobs of a person at work, short enough that a model in
/// memory is gone over lunch.
const IDLE_FOR: Duration = Duration::from_secs(5 * 60);

/// What the programs of a worker's tasks share.
pub(crate) struct Pool {
    pub(super) shims: Arc<Shims>,
    most: usize,
    idle_for: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that wait, the longest first.
    idle: VecDeque<Idle>,
    /// All that live, whether they wait or work.
    alive: usize,
    is_swept: bool,
}

struct Idle {
    task: u64,
    served: Served,
    since: Instant,
}

/// Counts a process for as long as it lives.
pub(super) struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state.lock().alive -= 1;
    }
}

impl Pool {
    /// For a worker with so many slots.
    pub(crate) fn new(slots: u32) -> Arc<Self> {
        Self::keeping(slots, IDLE_FOR)
    }

    pub(super) fn keeping(slots: u32, idle_for: Duration) -> Arc<Self> {
        let (shims, state, most) = (Arc::default(), Mutex::default(), slots as usize);
        Arc::new(Self { shims, most, idle_for, state })
    }

    /// A process of this task that waits and is well.
    pub(super) fn take(&self, task: u64) -> Option<Served> {
        loop {
            let mut state = self.state.lock();
            let newest = state.idle.iter().rposition(|idle| idle.task == task)?;
            let idle = state.idle.remove(newest)?;
            drop(state);
            let mut served = idle.served;
            if served.is_ready() {
                return Some(served);
            }
        }
    }

    /// Makes room for one more.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        loop {
            let oldest = {
                let mut state = self.state.lock();
                // Where all of them work, more is at work than there are slots, for a moment.
                if state.alive < self.most || state.idle.is_empty() {
                    state.alive += 1;
                    return Place(self.clone());
                }
                state.idle.pop_front()
            };
            if let Some(oldest) = oldest {
                oldest.served.let_go().await;
            }
        }
    }

    /// Keeps a process for the next subtask of its task.
    pub(super) fn keep(self: &Arc<Self>, task: u64, served: Served) {
        let mut state = self.state.lock();
        state.idle.push_back(Idle { task, served, since: Instant::now() });
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_for));
        }
    }

    /// Lets go of all that have been idle for so long.
    pub(super) async fn let_go(&self, idle_for: Duration) {
        let old: Vec<Idle> = {
            let mut state = self.state.lock();
            let young = state.idle.iter().position(|idle| idle.since.elapsed() < idle_for);
            let count = young.unwrap_or(state.idle.len());
            state.idle.drain(..count).collect()
        };
        join_all(old.into_iter().map(|idle| idle.served.let_go())).await;
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.idle.len(), state.alive)
    }
}

/// Looks after a pool for as long as there is one.
async fn sweep(pool: Weak<Pool>, idle_for: Duration) {
    loop {
        tokio::time::sleep(idle_for / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.let_go(idle_for).await;
    }
}
