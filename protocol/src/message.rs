//! The chunk message on RabbitMQ, and the subtask that a handler receives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChunkId, Epoch, Input, JobId, Json};

/// A hint that the subtasks `from ≤ i < to` of a job wait for a worker. About 120 bytes of JSON.
/// The ledger decides who runs them: a message that is lost, late or doubled costs nothing but
/// time.
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
    /// How often the chunk was handed out.
    pub epoch: Epoch,
}

impl ChunkMessage {
    /// The version that this build writes and the only one that it reads.
    pub const VERSION: u8 = 1;
}

/// The subtask that a handler receives, and that a command reads as one JSON object on its standard
/// input.
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
    /// The input of this subtask.
    pub input: &'a Input,
}
