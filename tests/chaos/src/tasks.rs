//! The tasks of the chaos worker: their names, and the results that the checker expects of them.

/// With this environment variable a chaos worker forbids speculative execution of its tasks, so
/// that a subtask runs again only if its worker was lost or it failed.
pub const NON_SPECULATIVE: &str = "LONGSHORE_CHAOS_NON_SPECULATIVE";

/// Waits for `params.ms` and returns [`answer`].
pub const MARK: &str = "mark";

/// Like [`MARK`], but some indices fail at first ([`fails_first`]), and some always
/// ([`fails_for_good`]).
pub const FLAKY: &str = "flaky";

/// Like [`MARK`], but the index [`POISONED`] aborts its worker.
pub const POISON: &str = "poison";

/// Like [`MARK`], but returns the answer of the next index, so that results differ from those of
/// the other tasks.
pub const NEXT: &str = "next";

/// Like [`MARK`], but the result contains its worker ([`signed`]), and the first attempt at an
/// index takes four times as long, so that a second one ends before it.
pub const SIGNED: &str = "signed";

/// Larger than every answer.
const SIGNATURE: u64 = 10_000_000;

/// The result of a [`SIGNED`] job from this worker.
pub fn signed(answer: u64, worker: u32) -> u64 {
    u64::from(worker) * SIGNATURE + answer
}

/// The answer in a signed result, and its worker.
pub fn signer(result: u64) -> (u64, u64) {
    (result % SIGNATURE, result / SIGNATURE)
}

/// The one poisoned index.
pub const POISONED: u64 = 31_337;

/// Reports success before the attempt has ended: a broken build for the checker to catch.
pub const COMMITS_EARLY: &str = "commits_early";

/// The answer to an index: easy to compute, hard to get by accident.
pub fn answer(index: u64) -> u64 {
    index.wrapping_mul(2_654_435_761) % 1_000_003
}

/// The unsigned result of a subtask.
pub fn result(task: &str, index: u64) -> u64 {
    answer(index + u64::from(task == NEXT))
}

/// Whether the first attempt at this index of a [`FLAKY`] job fails.
pub fn fails_first(index: u64) -> bool {
    index % 5 == 2
}

/// Whether this index never succeeds.
pub fn fails_for_good(task: &str, index: u64) -> bool {
    match task {
        FLAKY => index % 101 == 13,
        POISON => index == POISONED,
        _ => false,
    }
}
