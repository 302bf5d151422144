//! The hints that the ledger sends when something changes, and the topics that select them.
//!
//! Deliberately absent: the JSON of hints (see [`Hint`]).

use std::sync::Arc;

use longshore_protocol::{Hint, JobSummary, ResultsPage};

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
    /// A hint.
    Hint(Hint),
    /// A job ended, with its outcome. Sent in place of [`Hint::Job`] by ledgers that have the
    /// outcome at hand.
    Ended(Arc<Ended>),
    /// Hints may have been missed.
    Gap,
}
