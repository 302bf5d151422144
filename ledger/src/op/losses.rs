//! Parameters and answers of the verdict that a node is lost, and of the revocation of its chunks.

use longshore_protocol::{ChunkId, Epoch, LossKind, NodeId, Timestamp};

use super::shortened;

/// Why the chunks of a node are taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// The node lives and has no record of the chunks that it claimed up to this time. No crash is
    /// counted, and the node keeps what it claimed later.
    Orphaned {
        /// The latest claim that is revoked, by the ledger's clock; see [`Holder`](crate::Holder).
        claimed_by: Timestamp,
    },
    /// The node deregistered. No crash is counted.
    Left,
    /// The node sent no heartbeat, or its connections were lost.
    Vanished,
    /// The node crashed, with the report of the operating system, of which
    /// [`MAX_LAST_ERROR`](crate::op::MAX_LAST_ERROR) bytes are kept.
    Crashed(String),
}

impl LossCause {
    /// The cause as a receipt names it.
    pub fn lost(&self) -> LossKind {
        match self {
            Self::Orphaned { .. } => LossKind::Orphaned,
            Self::Left => LossKind::Left,
            Self::Vanished | Self::Crashed(_) => LossKind::Died,
        }
    }

    /// The latest claim that is revoked; `None` if all claims are.
    pub(crate) fn claimed_by(&self) -> Option<Timestamp> {
        match self {
            Self::Orphaned { claimed_by } => Some(*claimed_by),
            Self::Left | Self::Vanished | Self::Crashed(_) => None,
        }
    }

    /// The report of the operating system on the crash.
    pub(crate) fn how(&self) -> Option<&str> {
        match self {
            Self::Crashed(how) => Some(shortened(how)),
            Self::Orphaned { .. } | Self::Left | Self::Vanished => None,
        }
    }
}

/// Parameters of [`Ledger::revoke`](crate::Ledger::revoke).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeParams {
    /// The node whose chunks are revoked.
    pub node: NodeId,
    /// Why they are revoked.
    pub cause: LossCause,
}

impl RevokeParams {
    /// Revokes the chunks of `node`.
    pub fn new(node: NodeId, cause: LossCause) -> Self {
        Self { node, cause }
    }
}

/// A chunk that was revoked, or was cut from a chunk that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The chunk.
    pub chunk: ChunkId,
    /// The first subtask that is left.
    pub from: u64,
    /// One past the last subtask.
    pub to: u64,
    /// The epoch under which the chunk will be published again.
    pub epoch: Epoch,
}

/// Parameters of [`Ledger::declare_lost`](crate::Ledger::declare_lost).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclareLostParams {
    /// The worker to declare lost.
    pub node: NodeId,
    /// The observation that shows the loss.
    pub evidence: LossEvidence,
    /// The cause that is recorded.
    pub cause: LossCause,
}

impl DeclareLostParams {
    /// Declares `node` lost.
    pub fn new(node: NodeId, evidence: LossEvidence, cause: LossCause) -> Self {
        Self { node, evidence, cause }
    }
}

/// The observation that shows that a worker is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossEvidence {
    /// The worker announced that it leaves, or the end of its process was observed.
    Certain,
    /// The worker holds chunks and is not listed. Void if it is listed.
    Absent,
    /// The time of the worker's last heartbeat. Void if another heartbeat has arrived.
    LastBeat(Timestamp),
    /// The time at which the worker's connections were gone. Void if a heartbeat has arrived later.
    SilentSince(Timestamp),
}

/// A worker that is lost, as all schedulers see it. The verdict stands until the next heartbeat of
/// the worker, or until [`LOST_KEPT`](crate::op::LOST_KEPT) has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNode {
    /// The worker.
    pub node: NodeId,
    /// When the worker was declared lost, by the ledger's clock.
    pub at: Timestamp,
    /// The last heartbeat before that; 0 if the worker was not listed.
    pub beat_at: Timestamp,
    /// The cause of the loss.
    pub loss: LossCause,
}

/// Answer to [`Ledger::declare_lost`](crate::Ledger::declare_lost).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossVerdict {
    /// The worker is lost from now on.
    New(LostNode),
    /// The worker was declared lost before, perhaps on other evidence.
    Known(LostNode),
    /// The evidence is void: the worker lives.
    Lives,
}

impl LossVerdict {
    /// The verdict that stands, if one does.
    pub fn verdict(self) -> Option<LostNode> {
        match self {
            Self::New(verdict) | Self::Known(verdict) => Some(verdict),
            Self::Lives => None,
        }
    }
}
