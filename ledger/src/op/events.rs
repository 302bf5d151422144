//! The hints that the ledger sends when something changes, and the topics that select them.
//!
//! Deliberately absent: the JSON of hints (see [`Hint`]).

use std::sync::Arc;

use longshore_protocol::state::JobState;
use longshore_protocol::{Hint, JobId, JobSummary, NodeId, ResultsPage, SchedulerId};

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

/// A hint that something changed: a [`Hint`], or what processes of Longshore learn beside those.
#[derive(Clone, Debug, PartialEq)]
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
    /// A worker joined, began to drain, was lost, left, or has other tasks than before.
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
    Ended(Arc<Ended>),
    /// Hints may have been missed.
    Gap,
}

impl From<Hint> for Event {
    fn from(hint: Hint) -> Self {
        match hint {
            Hint::Job { job, state } => Self::Job { job, state },
            Hint::Room { job } => Self::Room { job },
            Hint::Node { node } => Self::Node { node },
            Hint::Scheduler { scheduler } => Self::Scheduler { scheduler },
        }
    }
}
