//! Parameters and answers of the operations on whole jobs: admit, document, retry, stalls.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, Counts, Digest, JobId, JobSummary, LeftOut, NodeId, ReduceTree, Timestamp,
};

use crate::op::OpenParams;

/// Parameters of [`Ledger::admit`](crate::Ledger::admit): a job whose document was validated and
/// whose globs were expanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The id of the job, which makes its submission idempotent.
    pub job: JobId,
    /// The digest of the document. Two documents with the same digest have the same content.
    pub digest: Digest,
    /// The canonical document.
    pub document: String,
    /// The manifest as JSON, for splits over files.
    pub manifest: Option<String>,
    /// The number of subtasks, at least 1.
    pub total: u64,
    /// The task that the subtasks run.
    pub task: String,
    /// The queue whose workers run the job.
    pub queue: String,
    /// The tenant that owns the job.
    pub tenant: String,
    /// What people call the job, if it has a name.
    pub name: Option<String>,
    /// The labels of the job.
    pub labels: BTreeMap<String, String>,
    /// The priority, from 0 (last) to 9 (first).
    pub priority: u8,
    /// The number of results that one reduce node combines; `None` for a job without a reduce.
    pub fan_in: Option<u64>,
    /// The most chunks that are open at once.
    pub max_parallel: Option<u64>,
    /// The number of failed subtasks after which the job fails.
    pub stop_after_failures: Option<u64>,
    /// The deadline of the whole job, from its admission.
    pub deadline: Option<Duration>,
    /// How long the job is kept after it has ended.
    pub keep_for: Duration,
    /// The files that its globs match and that it leaves out.
    pub left_out: LeftOut,
    /// The chunks to open in the same step, if the job is new.
    pub open: Option<OpenParams>,
}

impl Admission {
    /// A job of `noop` subtasks with the defaults of a document, kept for an hour: a base for other
    /// jobs, and a job for tests.
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
            name: None,
            labels: BTreeMap::new(),
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

    /// The number of indices: subtasks and reduce nodes together.
    pub fn indices(&self) -> u64 {
        let nodes = self.fan_in.map(|fan_in| ReduceTree::new(self.total, fan_in).node_count());
        self.total.saturating_add(nodes.unwrap_or_default())
    }

    /// The summary of the job when it has just been accepted.
    pub fn accepted(&self, at: Timestamp) -> JobSummary {
        let tree = self.fan_in.map(|fan_in| ReduceTree::new(self.total, fan_in));
        JobSummary {
            id: self.job,
            state: JobState::Queued,
            task: self.task.clone(),
            queue: self.queue.clone(),
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
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
            speculative_chunks: 0,
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

/// Answer to [`Ledger::admit`](crate::Ledger::admit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The job is new.
    Accepted {
        /// When the job was accepted, by the ledger's clock.
        at: Timestamp,
        /// The chunks that were opened in the same step.
        opened: Vec<ChunkMessage>,
    },
    /// The job is new and ended at once, because it was [cancelled](crate::Ledger::cancel) before.
    Cancelled {
        /// When the job was accepted, by the ledger's clock.
        at: Timestamp,
    },
    /// The same job was accepted before.
    Known,
    /// Another job has this id.
    Conflict,
    /// The job has more indices than a ledger keeps.
    TooLarge {
        /// The limit, [`MAX_INDICES`](crate::op::MAX_INDICES).
        most: u64,
    },
}

/// Answer to [`Ledger::document`](crate::Ledger::document): the document of a job as it was
/// admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// The digest of the document.
    pub digest: Digest,
    /// The canonical document.
    pub document: String,
    /// The manifest as JSON, for splits over files.
    pub manifest: Option<String>,
}

/// Parameters of [`Ledger::retry`](crate::Ledger::retry). The default retries everything that
/// failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryParams {
    /// The failed subtasks to retry, 1 to [`MAX_RETRY_INDICES`](crate::op::MAX_RETRY_INDICES);
    /// `None` for all of them.
    pub indices: Option<Vec<u64>>,
}

impl RetryParams {
    /// Retries everything that failed.
    pub fn all() -> Self {
        Self::default()
    }

    /// Retries these subtasks only.
    pub fn only(indices: impl Into<Vec<u64>>) -> Self {
        Self { indices: Some(indices.into()) }
    }
}

/// Parameters of [`Ledger::report_stall`](crate::Ledger::report_stall).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportStallParams {
    /// The worker that reports.
    pub node: NodeId,
    /// Why the worker can't go on with its chunks of the job; `None` if it can.
    pub reason: Option<String>,
}

impl ReportStallParams {
    /// The report of `node`.
    pub fn new(node: NodeId, reason: Option<String>) -> Self {
        Self { node, reason }
    }
}
