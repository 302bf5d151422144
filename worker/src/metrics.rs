//! The names of this crate's metrics. Counters start at 0 with the process; units are the last word
//! of a name.

use longshore_ledger::{Commit, Committed};
use longshore_protocol::OutcomeRun;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Counter: attempts that ended and were committed, by `outcome`: `done`, `retry`, `failed` or
/// `deferred`.
const ATTEMPTS: &str = "longshore_attempts_total";
/// Counter: commits that the ledger refused, because the chunk had been given to somebody else.
const FENCED_COMMITS: &str = "longshore_fenced_commits_total";
/// Histogram: how long slots were busy with a commit's subtasks, seconds.
const BUSY_SECONDS: &str = "longshore_busy_seconds";
/// Gauge: 1 while no heartbeat gets through and the worker claims nothing for it.
const FENCED: &str = "longshore_worker_fenced";

/// Tells whoever records metrics what each of them is.
pub fn describe() {
    describe_counter!(ATTEMPTS, "Attempts at subtasks that ended, by outcome");
    describe_counter!(FENCED_COMMITS, "Commits refused: the chunk had been given to somebody else");
    describe_histogram!(BUSY_SECONDS, Unit::Seconds, "How long a commit's subtasks took");
    describe_gauge!(FENCED, "1 while no heartbeat gets through and nothing is claimed for it");
    register();
}

/// Gives each of them a value from the start: an alert on something that does not exist never
/// fires.
fn register() {
    for outcome in ["done", "retry", "failed", "deferred"] {
        counter!(ATTEMPTS, "outcome" => outcome).increment(0);
    }
    counter!(FENCED_COMMITS).increment(0);
    // No sample: the summary's count is 0.
    let _ = histogram!(BUSY_SECONDS);
    gauge!(FENCED).set(0.0);
}

/// The ledger answered to a commit.
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

/// The worker fenced itself, or beats again.
pub(crate) fn fenced(is: bool) {
    gauge!(FENCED).set(f64::from(u8::from(is)));
}
