//! What the tasks of the chaos worker give, known to the worker and to the checker alike.

/// With this environment variable a chaos worker forbids copies of its tasks, so that a subtask
/// runs again only if its worker was lost or failed it.
pub const UNCOPIED: &str = "LONGSHORE_CHAOS_UNCOPIED";

/// Waits for `params.ms` and gives [`answer`].
pub const MARK: &str = "mark";

/// Like [`MARK`], but some indices fail at first ([`stumbles`]), and some always ([`fails_for_good`]).
pub const FLAKY: &str = "flaky";

/// Like [`MARK`], but the index [`POISONED`] takes its worker down with it.
pub const POISON: &str = "poison";

/// Like [`MARK`], but gives the answer of the next index: results that can't be taken for those of another task.
pub const NEXT: &str = "next";

/// Like [`MARK`], but the result tells which worker gave it ([`signed`]), and whoever runs an index first takes four times as
/// long: whoever runs it again is done before.
pub const SIGNED: &str = "signed";

/// No answer is as large.
const SIGNATURE: u64 = 10_000_000;

/// An answer of a [`SIGNED`] job, as this worker gives it.
pub fn signed(answer: u64, worker: u32) -> u64 {
    u64::from(worker) * SIGNATURE + answer
}

/// What was signed, and the worker.
pub fn signer(result: u64) -> (u64, u64) {
    (result % SIGNATURE, result / SIGNATURE)
}

/// The one poisoned index.
pub const POISONED: u64 = 31_337;

/// Says that it is done before it is: a broken build, for the checker to catch.
pub const HASTY: &str = "hasty";

/// The answer to an index: easy to compute, hard to get by accident.
pub fn answer(index: u64) -> u64 {
    index.wrapping_mul(2_654_435_761) % 1_000_003
}

/// What a subtask of this task gives.
pub fn result(task: &str, index: u64) -> u64 {
    answer(index + u64::from(task == NEXT))
}

/// Whether the first attempt at this index of a [`FLAKY`] job fails.
pub fn stumbles(index: u64) -> bool {
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
