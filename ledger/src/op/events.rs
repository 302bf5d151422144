//! The hints that the ledger sends when something changes, and the topics that select them.

use std::sync::Arc;

use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JobSummary, NodeId, ResultsPage, SchedulerId};
use serde::{Deserialize, Serialize};

/// Selects the hints that a subscriber receives. A subscriber may receive more than its topic
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// For clients that wait for jobs: changes of a job's state, except to `running`.
    Clients,
    /// For schedulers: everything that may require an action.
    Schedulers,
    /// For workers: jobs that are paused or have ended, and workers that are to drain.
    Workers,
}

/// The outcome of a job, with the answers to the next questions of a client that waited for the
/// job.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The job as it is now.
    pub summary: JobSummary,
    /// The first page of its results, if the job has few results.
    pub results: Option<ResultsPage>,
}

/// A hint that something changed. In Redis it is JSON on the channel `<ns>:events` and on the
/// channels of the topics, e.g. `{"event":"room","job":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A job was admitted, re-opened, resumed, paused or ended, or went on to its next level.
    Job {
        /// The job.
        job: JobId,
        /// Its state now.
        state: JobState,
    },
    /// A chunk was closed, released or revoked: there is room in the window of its queue, or a
    /// chunk to publish.
    Room {
        /// The job.
        job: JobId,
    },
    /// A worker joined, began to drain, or left.
    Node {
        /// The worker.
        node: NodeId,
    },
    /// A scheduler left or died.
    Scheduler {
        /// The scheduler.
        scheduler: SchedulerId,
    },
    /// A job ended, with its outcome. Sent in place of [`Event::Job`] by ledgers that have the
    /// outcome at hand.
    #[serde(skip)]
    Ended(Arc<Ended>),
    /// Hints may have been missed.
    Gap,
}
