//! Parameters and answers of the operations on chunks: open, claim, commit, release, sweep.
//!
//! Also those of speculative execution.

use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Digest, Epoch, JobSummary, NodeId, OutcomeRun, RESULT_STRIDE, Timestamp,
    Token, runs_len,
};

use crate::Error;
use crate::poison::SUSPECT;

/// Parameters of [`Ledger::open`](crate::Ledger::open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenParams {
    /// The most chunks to open, 1 to [`MAX_CHUNKS_A_CALL`](crate::op::MAX_CHUNKS_A_CALL).
    pub chunks: u32,
    /// The most subtasks of one chunk, at least 1.
    pub size: u64,
    /// The time without a claim after which the sweep publishes a chunk again.
    pub publish_within: Duration,
}

impl OpenParams {
    /// Opens up to `chunks` chunks of at most `size` subtasks.
    pub fn new(chunks: u32, size: u64, publish_within: Duration) -> Self {
        Self { chunks, size, publish_within }
    }
}

/// Parameters of [`Ledger::claim`](crate::Ledger::claim).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimParams {
    /// The chunk.
    pub chunk: ChunkId,
    /// The epoch of the message that the worker received.
    pub epoch: Epoch,
    /// The fencing token of the claim, drawn before the first try.
    pub token: Token,
    /// The worker that claims.
    pub node: NodeId,
}

impl ClaimParams {
    /// A claim of `node`.
    pub fn new(chunk: ChunkId, epoch: Epoch, token: Token, node: NodeId) -> Self {
        Self { chunk, epoch, token, node }
    }

    /// A claim of the chunk of a message.
    pub fn of(message: &ChunkMessage, token: Token, node: NodeId) -> Self {
        Self::new(message.chunk, message.epoch, token, node)
    }
}

/// Answer to [`Ledger::claim`](crate::Ledger::claim).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The claimant holds the chunk.
    Granted(Grant),
    /// Another claim holds the chunk, or the message is from an earlier epoch: drop the message,
    /// unless it may be a redelivery.
    Stale {
        /// The node that holds the chunk now; `None` if none does.
        holder: Option<NodeId>,
    },
    /// There is nothing to run, or not now and not on this node: drop the message. A chunk that has
    /// to wait is published again.
    Gone,
}

/// The work that a claim was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The first subtask that is left.
    pub from: u64,
    /// One past the last subtask.
    pub to: u64,
    /// The number of this attempt, from 1, for all subtasks of the chunk.
    pub attempt: u32,
    /// How often the subtasks were deferred before.
    pub deferrals: u32,
    /// The number of nodes that died while they held the chunk, or the chunk from which it was cut.
    pub crashes: u32,
    /// The digest of the document, by which a worker recognises a cached document as current.
    pub digest: Digest,
    /// The nodes on which attempts at all of the subtasks failed, oldest first, once for each
    /// attempt; the newest [`MAX_TRIED`](crate::op::MAX_TRIED).
    pub tried: Vec<NodeId>,
}

impl Grant {
    /// Whether each subtask has to be committed before the next one starts. Should the node die,
    /// the first subtask that is left is then the one that killed it.
    pub fn is_suspect(&self) -> bool {
        self.crashes >= SUSPECT
    }
}

/// The outcomes of the next subtasks of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The index of the first subtask of `runs`.
    pub from: u64,
    /// The outcomes, in index order without gaps. A success run with results lies within one result
    /// stride (`protocol::split_results` cuts runs accordingly).
    pub runs: Vec<OutcomeRun>,
    /// How long the slot was busy with these subtasks.
    pub busy: Duration,
}

impl Commit {
    /// The outcomes `runs` of the subtasks from index `from` on.
    pub fn new(from: u64, runs: Vec<OutcomeRun>, busy: Duration) -> Self {
        Self { from, runs, busy }
    }

    /// One past the last index that the commit covers.
    pub fn end(&self) -> u64 {
        self.from.saturating_add(runs_len(&self.runs))
    }

    /// Checks that the runs are well formed, whatever the chunk: none is empty, and none with
    /// results crosses a multiple of [`RESULT_STRIDE`]. Every implementation calls this first.
    pub fn check(&self) -> Result<(), Error> {
        let misuse = |detail: String| Error::Misuse { operation: "commit", detail };
        let mut index = self.from;
        for run in &self.runs {
            let end = match run.len() {
                0 => return Err(misuse(format!("the run at {index} is empty"))),
                len => index.checked_add(len).ok_or_else(|| misuse("index too large".into()))?,
            };
            let with_results = matches!(run, OutcomeRun::Success { results: Some(_), .. });
            if with_results && index / RESULT_STRIDE != (end - 1) / RESULT_STRIDE {
                return Err(misuse(format!("results {index}..{end} cross a result stride")));
            }
            index = end;
        }
        Ok(())
    }
}

/// Parameters of [`Ledger::commit`](crate::Ledger::commit).
#[derive(Clone, Debug, PartialEq)]
pub struct CommitParams {
    /// The chunk.
    pub chunk: ChunkId,
    /// The token under which the caller holds the chunk.
    pub token: Token,
    /// The outcomes.
    pub commit: Commit,
}

impl CommitParams {
    /// Settles `commit` in `chunk`.
    pub fn new(chunk: ChunkId, token: Token, commit: Commit) -> Self {
        Self { chunk, token, commit }
    }
}

/// Answer to [`Ledger::commit`](crate::Ledger::commit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The outcomes are recorded.
    Settled {
        /// The job's state now. A holder that reads `paused` releases the rest of its chunk.
        state: JobState,
    },
    /// The token does not hold the chunk (any more). Nothing changed.
    Fenced,
}

/// Parameters of [`Ledger::release`](crate::Ledger::release).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseParams {
    /// The chunk.
    pub chunk: ChunkId,
    /// The token under which the caller holds the chunk.
    pub token: Token,
    /// The number of subtasks of the parts into which the chunk is cut; `None` (the default) keeps
    /// it whole.
    pub part: Option<u64>,
}

impl ReleaseParams {
    /// Releases `chunk` as a whole.
    pub fn new(chunk: ChunkId, token: Token) -> Self {
        Self { chunk, token, part: None }
    }
}

/// Answer to [`Ledger::release`](crate::Ledger::release).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The rest of the chunk is queued, or stays with the other node that runs it.
    Queued,
    /// The token does not hold the chunk (any more). Nothing changed.
    Fenced,
}

/// Parameters of [`Ledger::sweep`](crate::Ledger::sweep).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepParams {
    /// The most chunks to publish again.
    pub limit: u32,
    /// The time without a claim after which a chunk is published again.
    pub publish_within: Duration,
    /// Chunks that have been queued for this time or longer are published although they are not
    /// due, because their messages are suspected lost; `None` (the default) if nothing happened
    /// that loses messages.
    pub suspect_lost: Option<Duration>,
}

impl SweepParams {
    /// Publishes up to `limit` chunks that are due.
    pub fn new(limit: u32, publish_within: Duration) -> Self {
        Self { limit, publish_within, suspect_lost: None }
    }
}

/// Answer to [`Ledger::sweep`](crate::Ledger::sweep).
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The job as it is now.
    pub summary: JobSummary,
    /// The messages to publish again.
    pub publish: Vec<ChunkMessage>,
}

/// Parameters of [`Ledger::offer_speculative`](crate::Ledger::offer_speculative).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculationRequest {
    /// Chunks that were claimed this long ago or longer are stragglers.
    pub held_for: Duration,
    /// A speculative chunk that was offered and not claimed within this time is offered again.
    pub offer_for: Duration,
    /// The most chunks to offer, up to [`MAX_CHUNKS_A_CALL`](crate::op::MAX_CHUNKS_A_CALL).
    pub chunks: u32,
    /// The only node with free slots, if there is just one: chunks that it holds itself are not
    /// offered.
    pub only: Option<NodeId>,
}

/// A chunk that is offered to a second node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculativeChunk {
    /// The message with which the second node claims the chunk.
    pub message: ChunkMessage,
    /// The node that runs the chunk already and can't claim it again.
    pub holder: NodeId,
}

/// A node that holds chunks of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// When the oldest of its claims was granted, by the ledger's clock.
    pub oldest: Timestamp,
    /// When the newest of its claims was granted, by the ledger's clock.
    pub newest: Timestamp,
}
