//! Arguments and answers of the ledger's operations.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Counts, Digest, Epoch, JobId, JobSummary, LeftOut, Lost, NodeId,
    NodeRecord, RESULT_STRIDE, ReduceTree, ResultsPage, Run, SchedulerId, SchedulerRecord,
    Timestamp, Token, runs_len,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::poison::SUSPECT;

/// Most subtasks that one `retry` puts into the retry set; each takes memory of its own there.
pub const MAX_RETRY_INDICES: usize = 10_000;

/// How long the verdict on a lost worker is kept. Each owner of a queue acts on it within a second, one that takes the queue over
/// later when it begins to know its jobs; after this time a holder is known to be lost because it is on no list.
pub const LOST_KEPT: Duration = Duration::from_mins(10);

/// How many errors of a job are kept, the newest.
pub const MAX_ERRORS: usize = 10_000;

/// How many recoveries of a job are kept, the newest.
pub const MAX_RECOVERIES: usize = 100;

/// Most bytes of a failure's text that a job shows as its last error: it is read with the job, every second.
pub const MAX_LAST_ERROR: usize = 1_024;

/// So many failed attempts of a subtask are remembered with their nodes, while it waits for the next.
pub const MAX_TRIED: usize = 8;

/// Into so many parts a release cuts what is left of a chunk, at most. Parts that are too long still are cut again.
pub const MAX_PARTS: u64 = 32;

/// Largest number of chunks that one `open` or `sweep` gives: bounds the time that the ledger is busy with it.
pub const MAX_CHUNKS_A_CALL: u32 = 1_000;

/// Most indices of a job, subtasks and reduce nodes together: a bitmap of Redis ends at 512 MiB, which are 2^32 bits. The memory
/// ledger keeps to it too, so that a job that runs embedded runs on a fleet.
pub const MAX_INDICES: u64 = 1 << 32;

/// What the ledger needs to know of a job. The document was validated and its globs expanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The idempotency key.
    pub job: JobId,
    /// Same digest, same content.
    pub digest: Digest,
    /// The canonical document.
    pub document: String,
    /// The manifest as JSON, for splits over files.
    pub manifest: Option<String>,
    /// How many subtasks, at least 1.
    pub total: u64,
    /// The task that subtasks run.
    pub task: String,
    /// The pool of workers.
    pub queue: String,
    /// Whose job it is.
    pub tenant: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// How many results a reduce combines at once, if there is a reduce.
    pub fan_in: Option<u64>,
    /// Most chunks open at once.
    pub max_parallel: Option<u64>,
    /// Give up after so many failed subtasks.
    pub stop_after_failures: Option<u64>,
    /// Of the whole job, from now.
    pub deadline: Option<Duration>,
    /// How long to keep it once it has ended.
    pub keep_for: Duration,
    /// What its globs match and it leaves out.
    pub left_out: LeftOut,
    /// Chunks to open together with it, if it is new.
    pub open: Option<Open>,
}

impl Admission {
    /// A job of no-ops with the defaults of a document, kept for an hour: for tests and simulations.
    pub fn plain(job: JobId, total: u64) -> Self {
        Self {
            job,
            digest: Digest::new("d"),
            document: "{}".into(),
            manifest: None,
            total,
            task: "noop".into(),
            queue: "default".into(),
            tenant: "default".into(),
            priority: 5,
            fan_in: None,
            max_parallel: None,
            stop_after_failures: None,
            deadline: None,
            keep_for: Duration::from_hours(1),
            left_out: LeftOut::default(),
            open: None,
        }
    }

    /// Subtasks and reduce nodes together.
    pub fn indices(&self) -> u64 {
        let nodes = self.fan_in.map(|fan_in| ReduceTree::new(self.total, fan_in).node_count());
        self.total.saturating_add(nodes.unwrap_or_default())
    }

    /// The job as it stands once it is accepted.
    pub fn accepted(&self, at: Timestamp) -> JobSummary {
        let tree = self.fan_in.map(|fan_in| ReduceTree::new(self.total, fan_in));
        JobSummary {
            id: self.job,
            state: JobState::Queued,
            task: self.task.clone(),
            queue: self.queue.clone(),
            tenant: self.tenant.clone(),
            priority: self.priority,
            counts: Counts::new(self.total),
            reduce: tree.map(|tree| Counts::new(tree.node_count())).unwrap_or_default(),
            cursor: 0,
            queued_chunks: 0,
            running_chunks: 0,
            generation: 0,
            attempts: 0,
            busy: Duration::ZERO,
            lost: 0,
            recoveries: 0,
            crashes: 0,
            reissued: 0,
            copies: 0,
            fenced: 0,
            orphaned: 0,
            left_out: self.left_out.clone(),
            next_retry_at: None,
            submitted_at: at,
            started_at: None,
            finished_at: None,
            restored_at: None,
            deadline_at: self.deadline.map(|deadline| at.plus(deadline)),
            rate: 0.0,
            eta: None,
            error: None,
            last_error: None,
        }
    }
}

/// Whether a job was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is new.
    Accepted {
        /// When, by the ledger's clock.
        at: Timestamp,
        /// The chunks that were to be opened together with it.
        opened: Vec<ChunkMessage>,
    },
    /// It is new, and ended at once: somebody had [cancelled](crate::Ledger::cancel) it before.
    Cancelled {
        /// When, by the ledger's clock.
        at: Timestamp,
    },
    /// The same job was accepted before.
    Known,
    /// Another job has this id.
    Conflict,
    /// It has more indices than a ledger keeps.
    TooLarge {
        /// [`MAX_INDICES`].
        most: u64,
    },
}

/// How many chunks of what size to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// At most so many, 1 to [`MAX_CHUNKS_A_CALL`].
    pub chunks: u32,
    /// Of at most so many subtasks each, at least 1.
    pub size: u64,
    /// After this time without a claim the sweep publishes them again.
    pub publish_within: Duration,
}

/// Answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The chunk is the claimant's.
    Granted(Grant),
    /// Somebody else holds it, or the message is from an earlier epoch: drop the message, unless it may be a redelivery.
    Stale {
        /// Who holds the chunk now, if anybody does.
        holder: Option<NodeId>,
    },
    /// There is nothing to do, or not now and not here: drop the message. What has to wait is published again.
    Gone,
}

/// What a claimant may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// First subtask that is left.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Which attempt this is for all of them, from 1.
    pub attempt: u32,
    /// How often they said "not now" before.
    pub deferrals: u32,
    /// How many nodes died while they held the chunk, or the one that it was cut from.
    pub crashes: u32,
    /// Of the document, so that a cached copy is recognised as current.
    pub digest: Digest,
    /// The nodes on which attempts at all of them failed, oldest first, once for each attempt; the newest [`MAX_TRIED`].
    pub tried: Vec<NodeId>,
}

impl Grant {
    /// Whether it has to be run with care: each subtask committed before the next one starts, so that should the
    /// node die, the first subtask that is left is the one that killed it.
    pub fn is_suspect(&self) -> bool {
        self.crashes >= SUSPECT
    }
}

/// What became of the next subtasks of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Index of the first subtask that `runs` is about.
    pub from: u64,
    /// In index order, without gaps. A success run with results lies within one result stride
    /// (`protocol::split_results` cuts them).
    pub runs: Vec<Run>,
    /// How long the slot was busy with them.
    pub busy: Duration,
}

impl Commit {
    /// One past the last index that the commit covers.
    pub fn end(&self) -> u64 {
        self.from.saturating_add(runs_len(&self.runs))
    }

    /// Whether the runs are well formed, wherever they go: none is empty, and none with results crosses a multiple of
    /// [`RESULT_STRIDE`]. Every implementation asks this first.
    pub fn check(&self) -> Result<(), Error> {
        let misuse = |detail: String| Error::Misuse { operation: "commit", detail };
        let mut index = self.from;
        for run in &self.runs {
            let end = match run.len() {
                0 => return Err(misuse(format!("the run at {index} is empty"))),
                len => index.checked_add(len).ok_or_else(|| misuse("index too large".into()))?,
            };
            let with_results = matches!(run, Run::Success { results: Some(_), .. });
            if with_results && index / RESULT_STRIDE != (end - 1) / RESULT_STRIDE {
                return Err(misuse(format!("results {index}..{end} cross a result stride")));
            }
            index = end;
        }
        Ok(())
    }
}

/// As much of a failure's text as a job shows.
pub(crate) fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(MAX_LAST_ERROR)]
}

/// Answer to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is in the books.
    Settled {
        /// What the job is now: a holder that reads `paused` releases the rest.
        state: JobState,
    },
    /// The token does not hold the chunk (any more). Nothing changed.
    Fenced,
}

/// Answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The rest waits for somebody else, or goes on with whoever runs it as well.
    Queued,
    /// The token does not hold the chunk (any more). Nothing changed.
    Fenced,
}

/// Why what a node holds is taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// It lives, and knows nothing of what it has claimed up to this time. Nobody is to blame; what it claimed later it keeps.
    Orphaned {
        /// By the ledger's clock; see [`Holder`].
        claimed_by: Timestamp,
    },
    /// It left the list by itself. Nobody is to blame.
    Left,
    /// It fell silent, or its heart was severed.
    Vanished,
    /// It crashed; this is what the system said, of which [`MAX_LAST_ERROR`] bytes are kept.
    Crashed(String),
}

impl LossCause {
    /// Whether it died with its work, in the word of the receipt.
    pub fn lost(&self) -> Lost {
        match self {
            Self::Orphaned { .. } => Lost::Orphaned,
            Self::Left => Lost::Left,
            Self::Vanished | Self::Crashed(_) => Lost::Died,
        }
    }

    /// The latest claim that is taken away; all are if there is no such time.
    pub(crate) fn claimed_by(&self) -> Option<Timestamp> {
        match self {
            Self::Orphaned { claimed_by } => Some(*claimed_by),
            Self::Left | Self::Vanished | Self::Crashed(_) => None,
        }
    }

    /// What the system said of its death.
    pub(crate) fn how(&self) -> Option<&str> {
        match self {
            Self::Crashed(how) => Some(shortened(how)),
            Self::Orphaned { .. } | Self::Left | Self::Vanished => None,
        }
    }
}

/// What lags so far behind that a second node may run it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculationRequest {
    /// It was claimed so long ago, or longer.
    pub held_for: Duration,
    /// A copy that was offered and not claimed within this time is offered anew.
    pub offer_for: Duration,
    /// At most so many, up to [`MAX_CHUNKS_A_CALL`].
    pub chunks: u32,
    /// The only node that has time for copies, if there is one alone: what it holds itself is left out.
    pub only: Option<NodeId>,
}

/// A chunk of which a copy is on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculativeChunk {
    /// Whoever gets it may claim the copy.
    pub message: ChunkMessage,
    /// Who has been running it for so long, and can't.
    pub holder: NodeId,
}

/// A node that holds chunks of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub node: NodeId,
    /// When the oldest of the claims was granted that it holds, by the ledger's clock.
    pub oldest: Timestamp,
    /// When the newest of them was.
    pub newest: Timestamp,
}

/// A chunk that was taken from its holder, or cut off one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The chunk.
    pub chunk: ChunkId,
    /// First subtask that is left.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// The epoch under which it will be published again.
    pub epoch: Epoch,
}

/// Answer to a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The job as it stands.
    pub summary: JobSummary,
    /// To be published again.
    pub publish: Vec<ChunkMessage>,
}

/// A chunk that a worker believes to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// The chunk.
    pub chunk: ChunkId,
    /// Under this token.
    pub token: Token,
}

/// A process that gives signs of life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// A worker.
    Worker(NodeId),
    /// A scheduler.
    Scheduler(SchedulerId),
}

/// What a process registered with its last sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heart {
    /// Whose it is.
    pub of: Process,
    /// What the ledger calls the connection; `None` while that is unknown.
    pub connection: Option<String>,
    /// When it was registered (the ledger's clock).
    pub beat_at: Timestamp,
}

impl From<&NodeRecord> for Heart {
    fn from(record: &NodeRecord) -> Self {
        let NodeRecord { info, beat_at, heart, .. } = record;
        let of = Process::Worker(info.id.clone());
        Self { of, connection: heart.clone(), beat_at: *beat_at }
    }
}

impl From<&SchedulerRecord> for Heart {
    fn from(record: &SchedulerRecord) -> Self {
        let SchedulerRecord { id, beat_at, heart, .. } = record;
        let of = Process::Scheduler(id.clone());
        Self { of, connection: heart.clone(), beat_at: *beat_at }
    }
}

/// A worker that is lost, as all schedulers see it. The verdict stands until a later heartbeat
/// brings the worker back on the list, or [`LOST_KEPT`] has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNode {
    /// The worker.
    pub node: NodeId,
    /// When it was declared lost, by the ledger's clock.
    pub at: Timestamp,
    /// The last heartbeat before that; 0 if the worker was on no list.
    pub beat_at: Timestamp,
    /// How it was lost.
    pub loss: LossCause,
}

/// Answer to whoever wants a worker declared lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossVerdict {
    /// It is lost from now on.
    New(LostNode),
    /// It was lost before, on other grounds perhaps.
    Known(LostNode),
    /// The grounds are void.
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

/// On what a worker is declared lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossEvidence {
    /// It says itself that it leaves, or somebody watched its process end.
    Certain,
    /// It holds chunks and is on no list. Void if it is on the list.
    Absent,
    /// This was its last heartbeat. Void if another one has come.
    LastBeat(Timestamp),
    /// Its connections were gone at this time. Void if a heartbeat has come later.
    SilentSince(Timestamp),
}

/// The workers as they were read, and what whoever reads them again needs to know. The default is that of somebody who has
/// read nothing yet.
#[derive(Clone, Debug, Default)]
pub struct NodeSnapshot {
    /// By id.
    pub nodes: Arc<Vec<NodeRecord>>,
    /// Those that are lost and on the list no more, by id.
    pub lost: Arc<Vec<LostNode>>,
    /// Of all news of workers these are known.
    pub(crate) revision: u64,
}

impl NodeSnapshot {
    /// These workers, as somebody reads them who has read nothing yet.
    pub fn new(nodes: Vec<NodeRecord>, lost: Vec<LostNode>) -> Self {
        Self { nodes: Arc::new(nodes), lost: Arc::new(lost), revision: 0 }
    }
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// What to stop, in the order of `held`.
    pub stop: Vec<Stop>,
    /// Whether somebody asked the node to drain.
    pub drain: bool,
}

/// A chunk that must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What is held.
    pub held: Held,
    /// Why to stop.
    pub reason: StopReason,
}

/// Why a chunk must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The job ended or is gone: stop what runs, now.
    Ended,
    /// The chunk was given to somebody else: stop what runs, now.
    Revoked,
    /// The job is paused: finish the subtask that runs, commit, release the rest.
    Paused,
}

/// A job's document as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// Of the document.
    pub digest: Digest,
    /// The canonical document.
    pub document: String,
    /// The manifest as JSON, for splits over files.
    pub manifest: Option<String>,
}

/// Who follows the hints. Each hears what concerns it, and may hear more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Who waits for jobs: what became of them, but not that they run.
    Clients,
    /// Everything that may be something to do.
    Schedulers,
    /// Jobs of which nothing must go on, and workers that are to drain.
    Workers,
}

/// How a job ended, with what somebody who waited for it asks next.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The job as it is now.
    pub summary: JobSummary,
    /// The first page of its results, if they are few.
    pub results: Option<ResultsPage>,
}

/// A hint that something changed. On Redis: JSON on the channel `<ns>:events` and on those of the audiences, e.g.
/// `{"event":"room","job":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A job was admitted, re-opened, resumed, paused or ended, or went on to its next level.
    Job {
        /// The job.
        job: JobId,
        /// What it is now.
        state: JobState,
    },
    /// A chunk was closed, released or revoked: its queue's window has room, or something to publish.
    Room {
        /// The job.
        job: JobId,
    },
    /// A worker came, began to drain, or left.
    Node {
        /// The worker.
        node: NodeId,
    },
    /// A scheduler left, or is gone.
    Scheduler {
        /// The scheduler.
        scheduler: SchedulerId,
    },
    /// A job ended, and how. In place of [`Event::Job`], and only from ledgers that have it at hand.
    #[serde(skip)]
    Ended(Arc<Ended>),
    /// Hints may have been missed.
    Gap,
}
