//! All events that the engine takes and all actions that it returns, as two enums.

use std::collections::BTreeSet;

use longshore_broker::Queue;
use longshore_ledger::{
    Event as LedgerEvent, Holder, LossCause, LossEvidence, LostNode, NodeSnapshot,
    ReportBlockedParams, SpeculationRequest, SpeculativeChunk,
};
use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::{
    ChunkMessage, Isolation, JobDocument, JobId, JobSummary, NodeId, SchedulerId, SchedulerRecord,
    Timestamp,
};

#[cfg(doc)]
use super::Engine;

/// Something that happened. An answer to an action carries what the ledger answered and nothing of
/// the engine's own state.
#[derive(Clone, Debug)]
pub enum Event {
    /// The ledger's list of active jobs (those that may not have ended), read once a second.
    ActiveJobs(Vec<JobId>),
    /// Answer to [`Action::ListJobs`].
    JobsListed(Vec<JobId>),
    /// The ledger sent a hint that something changed.
    Hint(LedgerEvent),
    /// A job was admitted here, and is new. Follows [`Engine::begin_admission`].
    Admitted {
        /// The job as the ledger stored it at admission.
        summary: Box<JobSummary>,
        /// From the job's document.
        spec: JobSpec,
        /// The chunk that was opened with the job, if [`Engine::begin_admission`] allowed one.
        opened: Option<RoutedChunk>,
    },
    /// A job was not admitted, or is not new. Follows [`Engine::begin_admission`].
    NotAdmitted {
        /// The job.
        job: JobId,
        /// Whether the ledger has a job with this id.
        known: bool,
    },
    /// Answer to [`Action::ReadJob`] and [`Action::Sweep`].
    JobRead {
        /// The job.
        job: JobId,
        /// The job's present state; `None` if the ledger has no such job.
        summary: Option<Box<JobSummary>>,
        /// Chunks whose messages have to be published again.
        overdue: Vec<RoutedChunk>,
    },
    /// Answer to [`Action::LoadSpec`].
    SpecLoaded {
        /// The job.
        job: JobId,
        /// From the job's document.
        spec: JobSpec,
    },
    /// Answer to [`Action::Open`].
    Opened {
        /// The job.
        job: JobId,
        /// The chunks that were opened, in order.
        chunks: Vec<RoutedChunk>,
    },
    /// Answer to [`Action::ReadHolders`].
    HoldersRead {
        /// The job.
        job: JobId,
        /// The workers that hold chunks of the job.
        holders: Vec<Holder>,
    },
    /// Answer to [`Action::RefundAttempts`].
    AttemptsRefunded {
        /// The job.
        job: JobId,
        /// The nodes whose failures do not use up attempts of the job's subtasks.
        nodes: Vec<NodeId>,
    },
    /// Answer to [`Action::OfferSpeculative`].
    SpeculationOffered {
        /// The job.
        job: JobId,
        /// The slow chunks, which any worker but their holders may now claim as well.
        stragglers: Vec<SpeculativeChunk>,
        /// For each of them, the nodes on which attempts at all of its subtasks failed.
        tried: Vec<Vec<NodeId>>,
    },
    /// Answer to [`Action::FailJob`] and [`Action::ArchiveJob`].
    JobClosed {
        /// The job.
        job: JobId,
    },
    /// The ledger did not answer a call about a job. Whether it carried out the call is unknown.
    CallFailed {
        /// The job.
        job: JobId,
    },
    /// A message could not be routed: the node's queue, and so the node, is gone.
    Unroutable {
        /// The node that the message was meant for.
        node: NodeId,
        /// The chunk that was to be published.
        chunk: RoutedChunk,
    },
    /// The ledger's lists of workers: those that send heartbeats, and those declared lost.
    Nodes(NodeSnapshot),
    /// The processes whose connections to the ledger are gone at present; those of all others are
    /// there.
    ConnectionsLost {
        /// Workers.
        workers: BTreeSet<NodeId>,
        /// Schedulers.
        schedulers: BTreeSet<SchedulerId>,
    },
    /// Answer to [`Action::DeclareLost`].
    LossVerdict {
        /// The worker.
        node: NodeId,
        /// The verdict that stands; `None` if the worker is alive, or the ledger did not answer.
        verdict: Option<LostNode>,
    },
    /// Answer to [`Action::RevokeNode`].
    Revoked {
        /// The job.
        job: JobId,
        /// The worker.
        node: NodeId,
        /// Whether the ledger answered.
        is_done: bool,
        /// Whether chunks are queued again, so that their messages have to be published.
        is_queued_again: bool,
    },
    /// Answer to [`Action::ReportBlocked`].
    BlockedReported {
        /// The queue.
        queue: String,
        /// Whether the ledger answered.
        is_done: bool,
    },
    /// The schedulers that registered lately, this one among them.
    Peers(Vec<SchedulerRecord>),
    /// The present time of the ledger's clock.
    Clock(Timestamp),
    /// Whether the broker can be reached.
    Link {
        /// True if it can.
        up: bool,
    },
    /// Nothing but time has passed.
    Tick,
}

/// A chunk's message with what is needed to choose its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedChunk {
    /// The message.
    pub message: ChunkMessage,
    /// Hash of the value at the pointer of a placement by hash; `None` for other placements and
    /// for nodes of the reduce.
    pub key: Option<u64>,
    /// The nodes on which attempts at all subtasks of the chunk failed; empty unless the action
    /// asked for them.
    pub tried: Vec<NodeId>,
}

/// The part of a job document that the engine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// How many subtasks go into one chunk.
    pub chunk: Chunk,
    /// The most subtasks that may run at once.
    pub max_parallel: Option<u64>,
    /// Which worker gets which chunk.
    pub placement: Placement,
    /// Inputs of one node of the reduce, if there is a reduce.
    pub fan_in: Option<u64>,
    /// The task that combines results, if there is a reduce.
    pub reduce_task: Option<String>,
}

impl JobSpec {
    /// The spec of a document.
    pub fn of(document: &JobDocument) -> Self {
        Self {
            chunk: document.chunk,
            max_parallel: document.max_parallel,
            placement: document.placement.clone(),
            fan_in: document.reduce.as_ref().map(|reduce| reduce.fan_in),
            reduce_task: document.reduce.as_ref().map(|reduce| reduce.task.clone()),
        }
    }
}

/// Something to do. Nothing is left to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the state of a job.
    ReadJob {
        /// The job.
        job: JobId,
    },
    /// Read the state of a job, and which of its messages are overdue.
    Sweep {
        /// The job.
        job: JobId,
        /// Whether the answer needs the keys of chunks, because they are placed by key.
        with_keys: bool,
        /// Whether the answer needs the nodes on which attempts failed.
        with_tried: bool,
        /// The queue in which overdue messages may still wait, and the number of chunks that other
        /// jobs have waiting there: a queue that holds as many messages as chunks wait has lost
        /// none. `None`: publish without a look at a queue.
        unless_queued_in: Option<(Queue, u64)>,
        /// Whether messages that are only a little late count as lost too.
        suspect_lost: bool,
    },
    /// Read the job's document.
    LoadSpec {
        /// The job.
        job: JobId,
    },
    /// Read which workers hold chunks of the job.
    ReadHolders {
        /// The job.
        job: JobId,
    },
    /// Record for which tasks a worker is out of rotation.
    Isolate {
        /// The worker.
        node: NodeId,
        /// All tasks for which it is, with the evidence.
        isolated: Vec<Isolation>,
    },
    /// Record the nodes whose failures do not use up attempts of the job's subtasks.
    RefundAttempts {
        /// The job.
        job: JobId,
        /// All of these nodes.
        nodes: Vec<NodeId>,
    },
    /// Offer slow chunks for speculative execution.
    OfferSpeculative {
        /// The job.
        job: JobId,
        /// Which chunks count as slow, and how many to offer.
        request: SpeculationRequest,
    },
    /// Open chunks.
    Open {
        /// The job.
        job: JobId,
        /// The most chunks to open.
        chunks: u32,
        /// The most subtasks in each of them.
        size: u64,
        /// Whether the answer needs the keys of chunks, because they are placed by key.
        with_keys: bool,
        /// Whether the answer needs the nodes on which attempts failed.
        with_tried: bool,
    },
    /// Publish a chunk message, once.
    Publish {
        /// The queue.
        queue: Queue,
        /// The chunk.
        chunk: RoutedChunk,
    },
    /// End a job as failed.
    FailJob {
        /// The job.
        job: JobId,
        /// The reason.
        error: String,
    },
    /// Move a job that has ended from the list of active jobs to that of finished ones.
    ArchiveJob {
        /// The job.
        job: JobId,
    },
    /// Remove a scheduler that died from the ledger's list, so that no other one counts on it.
    DeregisterScheduler {
        /// The scheduler.
        scheduler: SchedulerId,
    },
    /// Read the list of active jobs now.
    ListJobs,
    /// Have the ledger declare a worker lost, for all schedulers to see.
    DeclareLost {
        /// The worker.
        node: NodeId,
        /// What proves the loss.
        evidence: LossEvidence,
        /// How the worker was lost.
        cause: LossCause,
    },
    /// Tell the ledger what blocks the jobs of a queue.
    ReportBlocked(ReportBlockedParams),
    /// Take from a worker the chunks that it holds of a job.
    RevokeNode {
        /// The job.
        job: JobId,
        /// The worker.
        node: NodeId,
        /// How the worker was lost.
        cause: LossCause,
    },
}
