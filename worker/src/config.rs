//! The settings of a worker, their defaults, and the sizes of results that follow from them.
//!
//! Deliberately absent: files, flags and environment variables; the command line reads those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_storage::AllowedRoots;

use crate::{BuiltinTasks, HttpAddresses, PassEnv};

/// The settings of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many chunks run side by side, at least 1. One a core unless set.
    pub slots: u32,
    /// The queues that the worker consumes, at least one.
    pub queues: Vec<String>,
    /// Tasks that are never executed speculatively, however long a subtask takes
    /// ([`crate::Builder::non_speculative`]).
    pub non_speculative: BTreeSet<String>,
    /// Exclusive tasks: two attempts at a subtask of theirs must never overlap
    /// ([`crate::Builder::exclusive`]).
    pub exclusive: BTreeSet<String>,
    /// Where the files and results of jobs may lie; everywhere unless set. Subtasks of other jobs
    /// fail here.
    pub allow_roots: AllowedRoots,
    /// The built-in tasks that the worker offers; all unless set.
    pub builtin_tasks: BuiltinTasks,
    /// The variables of the worker that commands get.
    pub pass_env: PassEnv,
    /// The link-local and metadata addresses to which HTTP tasks may connect; none unless set.
    pub http_allow_addresses: HttpAddresses,
    /// Labels of the node, free text.
    pub labels: BTreeMap<String, String>,
    /// The time from one heartbeat to the next.
    pub heartbeat: Duration,
    /// A worker that sent no heartbeat for this long counts as dead, and its chunks run on other
    /// workers. After three quarters of it the worker itself claims nothing, and stops exclusive
    /// tasks.
    pub dead_after: Duration,
    /// The message of a chunk that runs for longer than this is acknowledged early; the claim is
    /// durable.
    pub ack_after: Duration,
    /// How long running subtasks of a draining worker may go on.
    pub grace: Duration,
    /// How often the settled subtasks of a running chunk are committed. Longer than a chunk of
    /// automatic size takes (a quarter of a second), so that such a chunk is committed once, at its
    /// end.
    pub commit_every: Duration,
    /// After this many chunks in a row for each slot that took less than 5 ms, chunks are fetched
    /// and claimed ahead of free slots.
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
            allow_roots: AllowedRoots::default(),
            builtin_tasks: BuiltinTasks::default(),
            pass_env: PassEnv::default(),
            http_allow_addresses: HttpAddresses::default(),
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

/// The largest result that the ledger keeps, bytes: Redis takes 1.5 ms for each MiB, and no call
/// may block it for 10 ms.
pub(crate) const MAX_LEDGER_RESULT: usize = 4 << 20;

/// How much larger than `max_result` the result of a reduce node may be.
pub(crate) const REDUCE_FACTOR: usize = 16;
