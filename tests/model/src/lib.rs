//! A model checker of the protocol: its configuration, and the deliberate bugs that it must find.
//!
//! It explores every state that claim, commit, release, beat, lose, revoke, sweep and acknowledge
//! can reach, with 2 workers, 2 schedulers, 2 chunks, and faults. The properties and their ids are
//! in `properties`.
//!
//! The ledger's steps follow the transition tables of `longshore_protocol::state`, and
//! `tests/replay.rs` drives the real memory ledger along the same paths. `cargo test -p
//! longshore-model` explores up to two faults, which takes seconds. This command explores up to
//! three, and two beside a rollback; it takes minutes and gigabytes of memory:
//!
//! ```text
//! LONGSHORE_MODEL_FAULTS=3 cargo test -p longshore-model -- --nocapture
//! ```
//!
//! Deliberately absent: time (every possible step may happen now); failed subtasks, pauses and
//! cancels by users, which the ledger's own suites cover; the work of subtasks.

pub mod explore;
pub mod fleet;
pub mod ledger;
mod properties;
mod recovery;
mod symmetry;
pub mod world;

pub use explore::{Model, Report, Violation, explore};

/// The model to explore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The maximum number of faults on one path.
    pub faults: u8,
    /// The number of workers, at most [`world::WORKERS`].
    pub workers: u8,
    /// Whether the ledger may return, once, to an earlier state. This does not count as one of
    /// `faults`.
    pub rolls_back: bool,
    /// Whether running chunks may be offered speculatively to a second node. Each offer counts as
    /// one of `faults`.
    pub speculative: bool,
    /// A deliberate bug.
    pub mutation: Option<Mutation>,
}

/// Deliberate bugs; each is caught by a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A commit counts if its epoch is the current one, with any token.
    EpochsCompared,
    /// A commit counts if its epoch is not below the current one.
    EpochsOrdered,
    /// A claim with the current epoch takes over a chunk that runs.
    ClaimsTakeOver,
    /// A commit counts from any sender.
    CommitsUnchecked,
    /// A repeated commit counts again.
    RepeatsCounted,
    /// A release or a revoke leaves the epoch of the chunk unchanged.
    EpochsKept,
    /// A chunk stays on offer after a second node has claimed it.
    OffersStay,
    /// A commit that overlaps with settled subtasks subtracts them from the running count again.
    OverlapsCounted,
    /// No scheduler publishes the messages of queued chunks again.
    NoSweep,
    /// No scheduler reclaims a chunk from a live worker that does not know of it; see ADR 11.
    NoReclaim,
    /// A worker is declared lost on evidence that a heartbeat has made void.
    EvidenceUnchecked,
    /// A heartbeat does not void a verdict.
    VerdictsStay,
    /// A lost worker leaves the list, and no verdict is kept.
    VerdictsDropped,
    /// The scheduler that declares a worker lost revokes its chunks of the jobs that this scheduler
    /// owns; no scheduler revokes the others. See ADR 27.
    OneRecovers,
    /// The owner of a queue revokes the chunks of a lost worker only once, so not those that it
    /// claims late.
    RevokesOnce,
    /// A worker that holds chunks and is not listed is never declared lost.
    NoAbsent,
}
