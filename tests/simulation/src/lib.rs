//! Simulates whole fleets in virtual time under faults drawn from a seed, and checks invariants.
//!
//! The production code of schedulers, workers and the client library runs over the memory broker
//! and the memory ledger. The same seed repeats a run byte for byte.
//!
//! ```text
//!   seed ──▶ workload, fleet, fault rates, nemesis
//!   application (Client) ─┐                         ┌─▶ the true broker (MemoryBroker)
//!   schedulers ───────────┼─▶ broker.rs, ledger.rs ─┤
//!   workers ──────────────┘   losses, delays        └─▶ checked_ledger.rs ─▶ the true ledger
//!      ├─ results ────────────▶ storage.rs                      │               (MemoryLedger)
//!      └─ handlers ───────────▶ history.rs ◀────────────────────┘
//!                               checks each step
//! ```
//!
//! Everything runs on one thread with paused time. A killed process gets no further answer: all its
//! effects go through its connections or its handlers, so it stops at its next `await` of one of
//! them. The simulation depends on nothing of the process that runs it: the random numbers, names
//! and heartbeats of workers come from a simulated `Environment`, the randomness of tokio comes
//! from the seed, and no map with a random order decides anything.
//!
//! # Invariants
//!
//! | id | invariant | checked |
//! | --- | --- | --- |
//! | S1 | a job whose submission was confirmed ends within 60 s of the last fault, plus the time that its work takes on one slot | at the end |
//! | S2 | the counts balance, and agree with the raw data | after each operation on the job |
//! | S3 | each index is counted once, with its real outcome; nothing is settled that did not run | with each commit, at the end |
//! | S4 | a chunk has at most one current token, and a second one while it is offered speculatively; only their commits and releases count | with each claim, commit, release |
//! | S5 | an attempt above 1 follows a failed attempt of the subtask itself: infrastructure failures use up none | as each attempt begins |
//! | S6 | no more chunks run than `max_parallel`, and no more are open unless some were split | after each operation on the job |
//! | S7 | each done index has one result, the one that the counted attempt returned, wherever it is kept; the reduced value is their sum | at the end |
//! | S8 | each job in the ledger was submitted | every 100 ms |
//! | S9 | `2 × dead_after` after a pause no subtask of the job begins on a worker whose heartbeat got through since | as each attempt begins |
//! | S10 | once all jobs have ended, the queues are empty within 30 s | at the end |
//! | S11 | a worker whose heartbeats fail stops its exclusive subtasks after `dead_after` of its own clock | every 100 ms |
//! | S12 | no worker and no scheduler exits by itself | when one exits |
//! | S13 | where only single processes fail: chunks of a killed worker are queued again within 0.5 s, those of a frozen one within `dead_after` + 1 s | every 100 ms, with each revoke |
//! | S14 | a retry goes to a node on which the subtask has not failed, if there is one that can run it | when an attempt fails on a node where all fail |
//! | S16 | where only the ledger and the broker have outages, no attempt begins twice, except speculatively | as each attempt begins |
//! | S17 | a worker stops within 0.5 s what the answer to a heartbeat says it has lost or has ended | every 100 ms |
//! | S18 | a worker that sends heartbeats at the interval it announced is not declared lost for its silence, unless a rollback undid its last heartbeat | with each verdict |
//! | S19 | no subtask runs of a job that was cancelled before its admission, unless the ledger was rolled back since | as each attempt begins |
//! | S20 | in a run without faults of processes and services, a job that waits without an open chunk for 8 s has a published reason | every 100 ms |
//!
//! With exclusive tasks, both limits of S13 are `2 × dead_after` + 1 s.
//!
//! Some workers of a fleet lack a task, and on one all subtasks may fail. S1, S3 and S7 hold
//! regardless, except for subtasks whose last attempt failed there.
//!
//! A rollback of the ledger may undo confirmed operations: documents that it lost are submitted
//! again; a pause, a resume or a cancel may be gone, and subtasks run again. All invariants hold
//! nevertheless.
//!
//! Each checker is proven by a [`Sabotage`] that it catches.
//!
//! # Running it
//!
//! `cargo test -p longshore-simulation` runs as many seeds as fit into a minute, from 1 on, and a
//! few new ones. More: `LONGSHORE_SIM_SEEDS=10000 cargo test --release -p longshore-simulation
//! seeds -- --nocapture` (from `LONGSHORE_SIM_FIRST` on); a release build runs some 200 seeds a
//! second and core, a debug build some 20. A failing seed is printed as the command that repeats it
//! with its trace: `LONGSHORE_SIM_SEED=123 cargo test -p longshore-simulation one_seed --
//! --nocapture`.
//!
//! Deliberately absent: real time, threads, sockets, RabbitMQ and Redis (other tests have those),
//! the content of files.

mod broker;
mod checked_ledger;
mod explained;
mod fleet;
mod hints;
mod history;
mod ledger;
mod losses;
mod nemesis;
mod process;
mod rng;
mod run;
mod sabotage;
mod storage;
mod tally;
mod workload;
mod world;

use std::time::Duration;

pub use sabotage::Sabotage;
pub use tally::Tally;

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed, which repeats the run.
    pub seed: u64,
    /// How often each event happened.
    pub tally: Tally,
    /// The first invariant that was violated.
    pub violation: Option<Violation>,
    /// Every step, if a trace was asked for.
    pub trace: String,
    /// The virtual time from the last fault to the end of the last job.
    pub settled_in: Duration,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The id of the invariant, such as `S4`.
    pub invariant: &'static str,
    /// Virtual time since the run began.
    pub at: Duration,
    /// The finding.
    pub what: String,
}

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    run::run(seed, None, false)
}

/// Runs one seed and records each step.
pub fn run_traced(seed: u64) -> Report {
    run::run(seed, None, true)
}

/// Runs one seed with a deliberate bug.
pub fn run_sabotaged(seed: u64, sabotage: Sabotage) -> Report {
    run::run(seed, Some(sabotage), false)
}

/// The names of all injected faults, as they appear in a [`Tally`].
pub fn faults() -> impl Iterator<Item = &'static str> {
    nemesis::Fault::ALL.into_iter().map(nemesis::Fault::name)
}
