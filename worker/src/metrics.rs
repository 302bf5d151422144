//! The names, descriptions and first values of a worker's metrics, and the functions that count.
//!
//! Counters start at 0 with the process; the unit is the last word of a name.

use longshore_ledger::{Commit, Committed};
use longshore_protocol::OutcomeRun;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Counter: attempts that were committed, by `outcome`: `done`, `retry`, `failed` or `deferred`.
const ATTEMPTS: &str = "longshore_attempts_total";
/// Counter: commits that the ledger refused because another worker held the chunk.
const FENCED_COMMITS: &str = "longshore_fenced_commits_total";
/// Histogram: how long the subtasks of a commit took, seconds.
const BUSY_SECONDS: &str = "longshore_busy_seconds";
/// Gauge: 1 while the worker is fenced: no heartbeat gets through, and it claims nothing.
const FENCED: &str = "longshore_worker_fenced";

/// Registers the metrics and their descriptions with the recorder.
pub fn describe() {
    describe_counter!(ATTEMPTS, "Attempts at subtasks that ended, by outcome");
    describe_counter!(FENCED_COMMITS, "Commits refused because another worker held the chunk");
    describe_histogram!(BUSY_SECONDS, Unit::Seconds, "How long the subtasks of a commit took");
    describe_gauge!(FENCED, "1 while no heartbeat gets through and nothing is claimed");
    register();
}

/// Gives each metric a value from the start: an alert on a metric that does not exist never fires.
fn register() {
    for outcome in ["done", "retry", "failed", "deferred"] {
        counter!(ATTEMPTS, "outcome" => outcome).increment(0);
    }
    counter!(FENCED_COMMITS).increment(0);
    // No sample: the summary's count is 0.
    let _ = histogram!(BUSY_SECONDS);
    gauge!(FENCED).set(0.0);
}

/// Counts a commit that the ledger answered.
pub(crate) fn committed(commit: &Commit, answer: &Committed) {
    if matches!(answer, Committed::Fenced) {
        return counter!(FENCED_COMMITS).increment(1);
    }
    histogram!(BUSY_SECONDS).record(commit.busy);
    for run in &commit.runs {
        let outcome = match run {
            OutcomeRun::Success { .. } => "done",
            OutcomeRun::Retry { .. } => "retry",
            OutcomeRun::Failed { .. } => "failed",
            OutcomeRun::Defer { .. } => "deferred",
        };
        counter!(ATTEMPTS, "outcome" => outcome).increment(run.len());
    }
}

/// Sets whether the worker is fenced.
pub(crate) fn fenced(is: bool) {
    gauge!(FENCED).set(f64::from(u8::from(is)));
}
