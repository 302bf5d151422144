//! Settings of a worker, with the defaults that hold where nobody says otherwise.
//!
//! Deliberately absent: files, flags and the environment; the command line reads those and hands
//! the outcome in here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How a worker behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many chunks run side by side, at least 1. One a core unless set.
    pub slots: u32,
    /// The queues that the worker consumes, at least one.
    pub queues: Vec<String>,
    /// Tasks of which no second copy may run, however long the first takes
    /// ([`crate::Builder::non_speculative`]).
    pub non_speculative: BTreeSet<String>,
    /// Exclusive tasks: two attempts at a subtask of theirs must never overlap
    /// ([`crate::Builder::exclusive`]).
    pub exclusive: BTreeSet<String>,
    /// What the worker is good for, free text.
    pub labels: BTreeMap<String, String>,
    /// The time from one heartbeat to the next.
    pub heartbeat: Duration,
    /// A worker that was silent for so long is taken for dead, and its chunks run elsewhere. The
    /// worker itself claims nothing after three quarters of it, and stops exclusive tasks.
    pub dead_after: Duration,
    /// A chunk that runs for so long is acknowledged early; its claim is durable.
    pub ack_after: Duration,
    /// How long a draining worker lets running subtasks go on.
    pub grace: Duration,
    /// What is settled is committed at least this often while a chunk runs. Longer than what a
    /// chunk of automatic size takes (a quarter of a second), which is committed once then, at its
    /// end.
    pub commit_every: Duration,
    /// So many chunks in a row for each slot that kept it for less than 5 ms, and more are fetched
    /// and claimed ahead of the slots.
    pub prefetch_ahead_after: u32,
    /// Largest result of one subtask, bytes. A reduce node may return 16 times as much: nodes are
    /// few, and combining makes results grow.
    pub max_result: usize,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            slots: u32::try_from(cores).unwrap_or(1),
            queues: vec!["default".into()],
            non_speculative: BTreeSet::new(),
            exclusive: BTreeSet::new(),
            labels: BTreeMap::new(),
            heartbeat: Duration::from_secs(1),
            dead_after: Duration::from_secs(5),
            ack_after: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            commit_every: Duration::from_millis(300),
            prefetch_ahead_after: 64,
            max_result: 1 << 20,
        }
    }
}

/// Longest result that the ledger keeps, bytes: Redis takes 1.5 ms for each MiB, and no call may
/// hold it for 10 ms.
pub(crate) const MAX_LEDGER_RESULT: usize = 4 << 20;

/// How much larger than `max_result` the result of a reduce node may be.
pub(crate) const REDUCE_FACTOR: usize = 16;
