//! What travels: the chunk message on RabbitMQ, and the subtask that a handler receives.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChunkId, Epoch, Input, JobId, Json};

/// A hint that the subtasks `from ≤ i < to` of a job wait for a worker. About 120 bytes of JSON.
/// The ledger has the last word: a message that is lost, late or doubled costs time and nothing
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChunkMessage {
    /// Version of the message, 1.
    #[schemars(range(min = 1, max = 1))]
    pub v: u8,
    /// The job that the chunk belongs to.
    pub job: JobId,
    /// The chunk within the job.
    pub chunk: ChunkId,
    /// First subtask.
    pub from: u64,
    /// One past the last subtask.
    pub to: u64,
    /// Which handing-out of the chunk this is.
    pub epoch: Epoch,
}

impl ChunkMessage {
    /// The version that this build writes and the only one that it reads.
    pub const VERSION: u8 = 1;

    /// The message of a job's first chunk may arrive before the ledger has the job. Its scheduler publishes it again where the
    /// ledger took longer than this; a worker waits for the job twice as long.
    pub const EARLY: Duration = Duration::from_millis(500);

    /// Of the chunk that every job begins with.
    pub fn first(job: JobId, to: u64) -> Self {
        Self { v: Self::VERSION, job, chunk: ChunkId(1), from: 0, to, epoch: Epoch::FIRST }
    }

    /// Whether it may be ahead of its job.
    pub fn may_be_early(&self) -> bool {
        (self.chunk, self.epoch) == (ChunkId(1), Epoch::FIRST)
    }
}

/// What a handler receives, and what a command reads as one JSON object on its standard input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subtask<'a> {
    /// The job.
    pub job: JobId,
    /// The subtask within the job; `job/index` is the idempotency key.
    pub index: u64,
    /// 1 for the first try, one more with each failure of the subtask itself.
    pub attempt: u32,
    /// The job's `params`, the same for every subtask.
    pub params: &'a Json,
    /// What this subtask is about.
    pub input: &'a Input,
}
