//! Whole fleets in virtual time: the production code of schedulers, workers and the client library, over the memory broker and
//! the memory ledger, under seeded faults. A seed is a run; the same seed is the same run, byte for byte.
//!
//! ```text
//!   seed ──▶ workload, fleet, weather, nemesis
//!   application (Client) ─┐                         ┌─▶ the true broker (MemoryBroker)
//!   schedulers ───────────┼─▶ broker.rs, ledger.rs ─┤
//!   workers, hearts ──────┘   what gets lost        └─▶ truth.rs ─▶ the true ledger (MemoryLedger)
//!      ├─ results ────────────▶ storage.rs ◀──────────────┤  objects outside of the ledger
//!      └─ handlers ───────────▶ history.rs ◀──────────────┘  every step is checked
//! ```
//!
//! All runs on one thread with paused time. A process dies by never getting another answer: whatever it does to the world goes
//! through its connections or its handlers, so it stops at whatever await it had come to. Nothing draws from the process that
//! runs the simulation: the chance, names and hearts of workers come from a simulated `Machine`, that of tokio comes from the seed, and
//! no map with a random order decides anything.
//!
//! # Invariants
//!
//! | id | what always holds | looked at |
//! | --- | --- | --- |
//! | S1 | a job whose submission was confirmed ends, within 60 s after the last fault and what its work takes on one slot | at the end |
//! | S2 | the books balance, and agree with the raw data | after each operation on the job |
//! | S3 | each index is counted once, as what it came to; nothing is settled that did not run | with each commit, at the end |
//! | S4 | a chunk has at most one current token, and one more where a copy was offered; only under them a commit or release counts | with each claim, commit, release |
//! | S5 | an attempt above 1 follows a failed one of the subtask itself: infrastructure uses up none | as each attempt begins |
//! | S6 | no more chunks run than `max_parallel`, nor are more open unless some were cut | after each operation on the job |
//! | S7 | results are what the counted attempt returned, one for each index that is done, wherever they are kept, and the reduced value is their sum | at the end |
//! | S8 | there is no job that nobody submitted | every 100 ms |
//! | S9 | after `2 × dead_after` of a pause nothing of the job begins, where a heartbeat got through since | as each attempt begins |
//! | S10 | once all jobs have ended, messages die out within 30 s | at the end |
//! | S11 | a worker that no heartbeat connects runs nothing of an exclusive task after `dead_after` of its own clock | every 100 ms |
//! | S12 | no worker and no scheduler ends by itself, but for a drain | when one ends |
//! | S13 | in clear weather: what a killed worker held is queued again within 0.5 s, what a frozen one held within its `dead_after` + 1 s; with exclusive tasks, both within 2 × its `dead_after` + 1 s | every 100 ms, with each revoke |
//! | S14 | a retry goes to another node than one on which an attempt of the subtask failed, if one is there that can run it | where everything fails, as an attempt fails |
//! | S16 | where only the ledger and the broker are away for a while, no attempt begins twice, but as a copy | as each attempt begins |
//! | S17 | what a heartbeat says was given to others, or has ended, is stopped (within 0.5 s to wind up) | every 100 ms |
//! | S18 | a worker that lives and sends heartbeats as it announces is not declared lost for its silence | with each verdict |
//! | S19 | nothing runs of a job that was cancelled before it was admitted, unless the ledger was rolled back since | as each attempt begins |
//!
//! Some places of a fleet lack a task, and on one everything may fail. S1, S3 and S7 hold as they would without them, but for
//! subtasks whose last attempt failed there.
//!
//! A rollback of the ledger may undo what was confirmed: then documents that it lost are submitted again, a pause, a resume, a cancel
//! may be gone, and subtasks run again. Everything above holds all the same.
//!
//! Each checker is proven by a [`Sabotage`] that it catches.
//!
//! # Running it
//!
//! `cargo test -p longshore-simulation` runs as many seeds as fit into a minute, from 1 on, and a few new ones. More:
//! `LONGSHORE_SIM_SEEDS=10000 cargo test --release -p longshore-simulation seeds -- --nocapture` (from `LONGSHORE_SIM_FIRST` on);
//! a release build runs some 200 seeds a second and core, a debug build some 20. A failing seed is printed as the command that repeats it with its trace:
//! `LONGSHORE_SIM_SEED=123 cargo test -p longshore-simulation one_seed -- --nocapture`.
//!
//! Deliberately absent: real time, threads, sockets, RabbitMQ and Redis (other tests have those), what is in files.

mod broker;
mod dice;
mod fleet;
mod hints;
mod history;
mod ledger;
mod nemesis;
mod process;
mod run;
mod sabotage;
mod storage;
mod tally;
mod truth;
mod workload;
mod world;

use std::time::Duration;

pub use sabotage::Sabotage;
pub use tally::Tally;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Repeats it.
    pub seed: u64,
    /// What happened, and how often.
    pub tally: Tally,
    /// The first invariant that broke, if one did.
    pub violation: Option<Violation>,
    /// What happened step by step, if that was wanted.
    pub trace: String,
    /// The virtual time from the last fault to the end of the last job.
    pub settled_in: Duration,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its id.
    pub invariant: &'static str,
    /// Virtual time since the run began.
    pub at: Duration,
    /// What was found.
    pub what: String,
}

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    run::run(seed, None, false)
}

/// Runs one seed and writes down each step.
pub fn run_traced(seed: u64) -> Report {
    run::run(seed, None, true)
}

/// Runs one seed of a build that is deliberately broken.
pub fn run_sabotaged(seed: u64, sabotage: Sabotage) -> Report {
    run::run(seed, Some(sabotage), false)
}

/// The faults that processes, links, queues, clocks and the ledger can meet, as a [`Tally`] names them.
pub fn faults() -> impl Iterator<Item = &'static str> {
    nemesis::Fault::ALL.into_iter().map(nemesis::Fault::name)
}
