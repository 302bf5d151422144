//! Parameters, answers and limits of the ledger's operations, one file a group of operations.
//!
//! An operation that takes more than a job and one value has a struct `…Params`. Its constructor
//! takes what every caller must decide; optional parameters have defaults and are set with the
//! struct update syntax (`ReleaseParams { part, ..ReleaseParams::new(chunk, token) }`), so that a
//! new optional parameter changes the struct, the two implementations, and the callers that set it.

mod access;
mod blocked;
mod chunks;
mod events;
mod fleet;
mod jobs;
mod journal;
mod losses;
mod reading;

use std::time::Duration;

pub use self::access::*;
pub use self::blocked::*;
pub use self::chunks::*;
pub use self::events::*;
pub use self::fleet::*;
pub use self::jobs::*;
pub use self::journal::*;
pub use self::losses::*;
pub use self::reading::*;

/// The most subtasks that one `retry` puts into the retry set, where each takes memory of its own.
pub const MAX_RETRY_INDICES: usize = 10_000;

/// How long the verdict on a lost worker is kept. The owner of a queue acts on it within a second;
/// a scheduler that takes the queue over later acts on it when it reads its jobs. After this time a
/// holder is known to be lost because it is not listed.
pub const LOST_KEPT: Duration = Duration::from_mins(10);

/// The number of errors of a job that are kept, the newest ones.
pub const MAX_ERRORS: usize = 10_000;

/// The number of recoveries of a job that are kept, the newest ones.
pub const MAX_RECOVERIES: usize = 100;

/// The most bytes of an error message that a job shows as its last error. They are read with the
/// job, every second.
pub const MAX_LAST_ERROR: usize = 1_024;

/// The number of failed attempts whose nodes are remembered while a subtask waits for its next
/// attempt.
pub const MAX_TRIED: usize = 8;

/// The most parts into which a release cuts a chunk. Parts that are still too long are cut again
/// when they run.
pub const MAX_PARTS: u64 = 32;

/// The most chunks that one `open` or `sweep` returns: bounds how long the ledger is busy with one
/// call.
pub const MAX_CHUNKS_A_CALL: u32 = 1_000;

/// The most indices of a job, subtasks and reduce nodes together: a bitmap of Redis ends at 512
/// MiB, which are 2^32 bits. The memory ledger has the same limit, so that a job that runs embedded
/// also runs on a cluster.
pub const MAX_INDICES: u64 = 1 << 32;

/// The part of an error message that a job shows: at most [`MAX_LAST_ERROR`] bytes.
pub(crate) fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(MAX_LAST_ERROR)]
}
