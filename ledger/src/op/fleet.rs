//! Parameters and answers of the operations on workers and schedulers.
//!
//! These are heartbeats, lists, crashes, and isolation.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{
    ChunkId, Isolation, JobId, NodeId, NodeInfo, NodeRecord, SchedulerId, SchedulerRecord,
    Timestamp, Token,
};

use crate::op::LostNode;

/// Parameters of [`Ledger::beat`](crate::Ledger::beat).
#[derive(Clone, Debug, PartialEq)]
pub struct BeatParams {
    /// The worker's description of itself.
    pub info: NodeInfo,
    /// The chunks that the worker believes to hold.
    pub held: Vec<Held>,
}

impl BeatParams {
    /// The heartbeat of a worker that holds `held`.
    pub fn new(info: NodeInfo, held: impl Into<Vec<Held>>) -> Self {
        Self { info, held: held.into() }
    }
}

/// A chunk that a worker believes to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// The chunk.
    pub chunk: ChunkId,
    /// The token of the worker's claim.
    pub token: Token,
}

/// Answer to [`Ledger::beat`](crate::Ledger::beat).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The chunks to stop, in the order of [`BeatParams::held`].
    pub stop: Vec<Stop>,
    /// Whether the worker was asked to drain.
    pub drain: bool,
}

/// A chunk that must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The chunk.
    pub held: Held,
    /// Why to stop.
    pub reason: StopReason,
}

/// Why a chunk must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The job ended or is gone: stop the running subtask now.
    Ended,
    /// The worker does not hold the chunk any more: stop the running subtask now.
    Revoked,
    /// The job is paused: finish the running subtask, commit, release the rest.
    Paused,
}

/// A process that sends heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// A worker.
    Worker(NodeId),
    /// A scheduler.
    Scheduler(SchedulerId),
}

/// The connections that a process registered with its last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConnections {
    /// The process.
    pub process: Process,
    /// The ledger's names of the connections; `None` while they are unknown.
    pub connections: Option<String>,
    /// When the connections were registered, by the ledger's clock.
    pub beat_at: Timestamp,
}

impl From<&NodeRecord> for ProcessConnections {
    fn from(record: &NodeRecord) -> Self {
        let NodeRecord { info, beat_at, connections, .. } = record;
        let process = Process::Worker(info.id.clone());
        Self { process, connections: connections.clone(), beat_at: *beat_at }
    }
}

impl From<&SchedulerRecord> for ProcessConnections {
    fn from(record: &SchedulerRecord) -> Self {
        let SchedulerRecord { id, beat_at, connections, .. } = record;
        let process = Process::Scheduler(id.clone());
        Self { process, connections: connections.clone(), beat_at: *beat_at }
    }
}

/// The workers at the time of a read, and what the next read needs to know of this one. The default
/// is the state before the first read.
#[derive(Clone, Debug, Default)]
pub struct NodeSnapshot {
    /// The workers that are listed, by id.
    pub nodes: Arc<Vec<NodeRecord>>,
    /// The workers that are lost and not listed, by id.
    pub lost: Arc<Vec<LostNode>>,
    /// The revision of the newest change of a worker that the snapshot contains.
    pub(crate) revision: u64,
}

impl NodeSnapshot {
    /// A snapshot as a first read returns it.
    pub fn new(nodes: Vec<NodeRecord>, lost: Vec<LostNode>) -> Self {
        Self { nodes: Arc::new(nodes), lost: Arc::new(lost), revision: 0 }
    }
}

/// Parameters of [`Ledger::isolate`](crate::Ledger::isolate).
#[derive(Clone, Debug, PartialEq)]
pub struct IsolateParams {
    /// The worker.
    pub node: NodeId,
    /// All tasks for which the worker is out of rotation.
    pub isolated: Vec<Isolation>,
}

impl IsolateParams {
    /// Takes `node` out of rotation for these tasks, and for no others.
    pub fn new(node: NodeId, isolated: impl Into<Vec<Isolation>>) -> Self {
        Self { node, isolated: isolated.into() }
    }
}

/// Parameters of [`Ledger::record_crash`](crate::Ledger::record_crash).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCrashParams {
    /// The worker that crashed.
    pub node: NodeId,
    /// How its process ended, as reported by the process that observed it.
    pub death: String,
}

impl RecordCrashParams {
    /// Records how `node` crashed.
    pub fn new(node: NodeId, death: impl Into<String>) -> Self {
        Self { node, death: death.into() }
    }
}

/// Parameters of [`Ledger::register_scheduler`](crate::Ledger::register_scheduler).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterSchedulerParams {
    /// The scheduler that sends the heartbeat.
    pub scheduler: SchedulerId,
    /// The age of a scheduler's last heartbeat up to which it counts as present.
    pub within: Duration,
}

impl RegisterSchedulerParams {
    /// The heartbeat of `scheduler`.
    pub fn new(scheduler: SchedulerId, within: Duration) -> Self {
        Self { scheduler, within }
    }
}
