//! What the engine is told, and what it wants done.

use std::collections::BTreeSet;

use longshore_broker::Queue;
use longshore_ledger::{
    Event as Hint, Holder, LossCause, LossEvidence, LostNode, NodeSnapshot, SpeculationRequest,
    SpeculativeChunk,
};
use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::{
    ChunkMessage, Isolation, JobDocument, JobId, JobSummary, NodeId, SchedulerId, SchedulerRecord,
    Timestamp,
};

#[cfg(doc)]
use super::Engine;

/// Something that happened. Answers to actions carry what the ledger said, nothing of ours.
#[derive(Clone, Debug)]
pub enum Event {
    /// The ledger's list of jobs that may not have ended.
    Active(Vec<JobId>),
    /// Answer to [`Action::List`].
    Listed(Vec<JobId>),
    /// The ledger hinted at a change.
    Hint(Hint),
    /// It was admitted, and is new.
    Admitted {
        /// As the ledger had it at first.
        summary: Box<JobSummary>,
        /// What its document says.
        terms: Terms,
        /// The chunk that was opened with it, if [`Engine::begin_admission`] allowed one.
        opened: Option<Keyed>,
    },
    /// It was not admitted, or is not new.
    NotAdmitted {
        /// The job.
        job: JobId,
        /// Whether the ledger has it.
        known: bool,
    },
    /// Answer to [`Action::Look`] and [`Action::Sweep`].
    Looked {
        /// The job.
        job: JobId,
        /// As it stands; `None` if it is gone.
        summary: Option<Box<JobSummary>>,
        /// Chunks whose messages are to be published again.
        overdue: Vec<Keyed>,
    },
    /// Answer to [`Action::Study`].
    Studied {
        /// The job.
        job: JobId,
        /// What its document says.
        terms: Terms,
    },
    /// Answer to [`Action::Open`].
    Opened {
        /// The job.
        job: JobId,
        /// What was opened, in order.
        chunks: Vec<Keyed>,
    },
    /// Answer to [`Action::AskHolders`].
    Held {
        /// The job.
        job: JobId,
        /// The workers that hold chunks of it.
        by: Vec<Holder>,
    },
    /// Answer to [`Action::Absolve`].
    Absolved {
        /// The job.
        job: JobId,
        /// The nodes whose failures use up no attempts of it.
        nodes: Vec<NodeId>,
    },
    /// Answer to [`Action::Copy`].
    Copied {
        /// The job.
        job: JobId,
        /// What lags, and is on offer to others than its holders.
        stragglers: Vec<SpeculativeChunk>,
        /// The nodes on which attempts at all subtasks of each of them failed.
        tried: Vec<Vec<NodeId>>,
    },
    /// Answer to [`Action::Fail`] and [`Action::Archive`].
    Closed {
        /// The job.
        job: JobId,
    },
    /// The ledger did not answer a question about a job; whether it did as asked is unknown.
    Unanswered {
        /// The job.
        job: JobId,
    },
    /// No queue took the message: its node is gone.
    Returned {
        /// Of the job's pool.
        node: NodeId,
        /// What was to be published.
        chunk: Keyed,
    },
    /// The ledger's lists of workers: those that beat, and those that are lost.
    Nodes(NodeSnapshot),
    /// Whose hearts are severed right now, as far as the ledger can tell; all others' beat.
    Severed {
        /// Workers.
        workers: BTreeSet<NodeId>,
        /// Schedulers.
        schedulers: BTreeSet<SchedulerId>,
    },
    /// Answer to [`Action::Lose`].
    LossVerdict {
        /// The worker.
        node: NodeId,
        /// The verdict that stands; `None` if the worker lives, or the ledger did not answer.
        verdict: Option<LostNode>,
    },
    /// Answer to [`Action::Revoke`].
    Revoked {
        /// The job.
        job: JobId,
        /// The worker.
        node: NodeId,
        /// Whether the ledger answered.
        is_done: bool,
        /// Whether chunks are queued again: their messages are wanted at once.
        is_queued_again: bool,
    },
    /// The schedulers that signed in lately, this one among them.
    Peers(Vec<SchedulerRecord>),
    /// The ledger's clock, now.
    Clock(Timestamp),
    /// Whether the broker can be reached.
    Link {
        /// It can.
        up: bool,
    },
    /// Time has passed.
    Tick,
}

/// A chunk's message, and the hash of its key where the job is placed by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The message.
    pub message: ChunkMessage,
    /// Hash of the value at the pointer; `None` for other placements and for nodes of the reduce.
    pub key: Option<u64>,
    /// The nodes on which attempts at all of its subtasks failed, where that was asked for.
    pub tried: Vec<NodeId>,
}

/// What the engine needs to know of a job's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How many subtasks travel in one message.
    pub chunk: Chunk,
    /// Most subtasks at once.
    pub max_parallel: Option<u64>,
    /// Which worker gets what.
    pub placement: Placement,
    /// Of the reduce, if there is one.
    pub fan_in: Option<u64>,
    /// The task that combines results, if there is a reduce.
    pub reduce_task: Option<String>,
}

impl Terms {
    /// Those of a document.
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

/// Something to do. Nothing is left to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read how the job stands.
    Look {
        /// The job.
        job: JobId,
    },
    /// Read how the job stands, and which of its messages are overdue.
    Sweep {
        /// The job.
        job: JobId,
        /// Whether chunks are placed by key: then their keys are wanted.
        keyed: bool,
        /// Where overdue messages may still wait, with the number of chunks that other jobs have
        /// waiting there: a queue that holds as many messages as chunks wait has lost none. `None`:
        /// don't ask.
        unless_in: Option<(Queue, u64)>,
        /// Whether messages that should have been claimed by now are doubted as well.
        doubt: bool,
        /// Whether it is wanted on which nodes attempts have failed.
        tried: bool,
    },
    /// Read the job's document.
    Study {
        /// The job.
        job: JobId,
    },
    /// Read which workers hold chunks of the job.
    AskHolders {
        /// The job.
        job: JobId,
    },
    /// Say for which tasks a worker is out of rotation.
    Isolate {
        /// The worker.
        node: NodeId,
        /// All of it.
        isolated: Vec<Isolation>,
    },
    /// Name the nodes whose failures use up no attempts of the job.
    Absolve {
        /// The job.
        job: JobId,
        /// All of them.
        nodes: Vec<NodeId>,
    },
    /// Offer copies of what lags.
    Copy {
        /// The job.
        job: JobId,
        /// What counts as that.
        lagging: SpeculationRequest,
    },
    /// Open chunks.
    Open {
        /// The job.
        job: JobId,
        /// At most so many.
        chunks: u32,
        /// Of at most so many subtasks.
        size: u64,
        /// Whether chunks are placed by key: then their keys are wanted.
        keyed: bool,
        /// Whether it is wanted on which nodes attempts have failed.
        tried: bool,
    },
    /// Publish a message, once.
    Publish {
        /// Where.
        queue: Queue,
        /// What.
        chunk: Keyed,
    },
    /// End the job as failed.
    Fail {
        /// The job.
        job: JobId,
        /// Why.
        error: String,
    },
    /// Move an ended job to the finished ones.
    Archive {
        /// The job.
        job: JobId,
    },
    /// Tell the others that a scheduler is gone, so that none counts on it.
    Withdraw {
        /// The scheduler.
        scheduler: SchedulerId,
    },
    /// Read the ledger's list of jobs that may not have ended, at once.
    List,
    /// Declare a worker lost, for all schedulers to see.
    Lose {
        /// The worker.
        node: NodeId,
        /// Why it is lost.
        grounds: LossEvidence,
        /// How it was lost.
        loss: LossCause,
    },
    /// Take from a worker what it holds of a job.
    Revoke {
        /// The job.
        job: JobId,
        /// The worker.
        node: NodeId,
        /// How it was lost.
        loss: LossCause,
    },
}
