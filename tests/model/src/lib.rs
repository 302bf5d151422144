//! Every state that claim, commit, release, beat, lose, revoke, sweep and acknowledge can lead to:
//! 2 workers, 2 schedulers, 2 chunks, and faults. The properties and their ids are in `properties`.
//!
//! The ledger's steps are taken by THE tables of `longshore_protocol::state`, and `tests/replay.rs` drives the real memory
//! ledger along the same ways. `cargo test -p longshore-model` looks at all that one or two faults can do, which takes seconds.
//! This looks at all that three can do, and two beside a rollback; it takes minutes, and memory by the gigabyte:
//!
//! ```text
//! LONGSHORE_MODEL_FAULTS=3 cargo test -p longshore-model -- --nocapture
//! ```
//!
//! Deliberately absent: time (whatever can happen may happen now), failed subtasks, pauses and ends by people, all of which
//! the ledger's own suites cover, and what subtasks do.

mod alike;
pub mod explore;
pub mod fleet;
pub mod ledger;
mod properties;
mod recovery;
pub mod world;

pub use explore::{Model, Report, Violation, explore};

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most faults on one way.
    pub faults: u8,
    /// How many workers there are, at most [`world::WORKERS`].
    pub workers: u8,
    /// Whether the ledger may return, once, to an earlier state. Not among the faults above.
    pub rolls_back: bool,
    /// Whether a second node may be given what another one runs; each time is one of the faults.
    pub copies: bool,
    /// What is broken.
    pub mutation: Option<Mutation>,
}

/// Deliberate mistakes; each is caught by a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A commit counts if its epoch is the current one, whatever its token.
    EpochsCompared,
    /// A commit counts if its epoch is not below the current one.
    EpochsOrdered,
    /// A claim with the current epoch takes over a chunk that runs.
    ClaimsTakeOver,
    /// A commit counts whoever sends it.
    CommitsUnchecked,
    /// A commit that is repeated counts again.
    RepeatsCounted,
    /// Who gives a chunk back, or loses it, leaves its epoch as it is.
    EpochsKept,
    /// A copy that somebody runs is still on offer.
    OffersStay,
    /// Of a commit that begins before what is left all of it is taken off the books.
    OverlapsCounted,
    /// Nobody publishes again what waits.
    NoSweep,
    /// Nobody takes a chunk from a live worker that does not know of it; see the decision record 0011.
    NoReclaim,
    /// A worker is declared lost on grounds that a heartbeat has made void.
    GroundsUnchecked,
    /// A heartbeat leaves a verdict standing.
    VerdictsStay,
    /// A worker that is lost leaves the list, and no verdict is kept.
    VerdictsDropped,
    /// The scheduler that declares a worker lost takes back what the worker holds of the jobs that
    /// this scheduler knows, and nobody takes back the rest. See the decision record 0027.
    OneRecovers,
    /// The owner of a queue takes back what a lost worker holds only once, so not what a late claim
    /// brings.
    RevokesOnce,
    /// No worker is declared lost that holds chunks and is on no list.
    NoAbsent,
}
