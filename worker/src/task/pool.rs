//! Keeps the idle processes of all served commands of a worker, and bounds how many live.
//!
//! At most as many processes live as the worker has slots: a new one takes the place of the one
//! that was idle for longest. A process that was idle for [`IDLE_FOR`] ends in any case.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::serve::Served;
use crate::shim::{PassEnv, Shims};

/// An idle process ends after this time. Long enough for the pause between two jobs of a person at
/// work, short enough that a model in memory is gone over lunch.
const IDLE_FOR: Duration = Duration::from_secs(5 * 60);

/// What the programs of a worker's tasks share: shims, and idle served processes.
pub(crate) struct Pool {
    pub(super) shims: Arc<Shims>,
    max: usize,
    idle_for: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The idle processes, the one that was idle for longest first.
    idle: VecDeque<Idle>,
    /// The number of living processes, idle or busy.
    alive: usize,
    has_sweeper: bool,
}

struct Idle {
    task: u64,
    served: Served,
    since: Instant,
}

/// Counts a process as living until it is dropped.
pub(super) struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state.lock().alive -= 1;
    }
}

impl Pool {
    /// The pool of a worker with this many slots, whose programs get these of its variables.
    pub(crate) fn new(slots: u32, pass_env: PassEnv) -> Arc<Self> {
        Self::keeping(slots, Shims::new(pass_env), IDLE_FOR)
    }

    pub(super) fn keeping(slots: u32, shims: Shims, idle_for: Duration) -> Arc<Self> {
        let (shims, state, max) = (Arc::new(shims), Mutex::default(), slots as usize);
        Arc::new(Self { shims, max, idle_for, state })
    }

    /// Takes an idle process of a task that can be used.
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

    /// Makes room for a new process.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        loop {
            let oldest = {
                let mut state = self.state.lock();
                // Where all processes are busy, more are busy than there are slots, for a moment.
                if state.alive < self.max || state.idle.is_empty() {
                    state.alive += 1;
                    return Place(self.clone());
                }
                state.idle.pop_front()
            };
            if let Some(oldest) = oldest {
                oldest.served.shut_down().await;
            }
        }
    }

    /// Keeps a process for the next subtask of its task.
    pub(super) fn keep(self: &Arc<Self>, task: u64, served: Served) {
        let mut state = self.state.lock();
        state.idle.push_back(Idle { task, served, since: Instant::now() });
        if !std::mem::replace(&mut state.has_sweeper, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_for));
        }
    }

    /// Ends all processes that were idle for this long.
    pub(super) async fn end_idle(&self, idle_for: Duration) {
        let old: Vec<Idle> = {
            let mut state = self.state.lock();
            let young = state.idle.iter().position(|idle| idle.since.elapsed() < idle_for);
            let count = young.unwrap_or(state.idle.len());
            state.idle.drain(..count).collect()
        };
        join_all(old.into_iter().map(|idle| idle.served.shut_down())).await;
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.idle.len(), state.alive)
    }
}

/// Ends idle processes until the pool is dropped.
async fn sweep(pool: Weak<Pool>, idle_for: Duration) {
    loop {
        tokio::time::sleep(idle_for / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.end_idle(idle_for).await;
    }
}
