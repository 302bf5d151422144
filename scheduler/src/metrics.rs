//! The names and descriptions of this crate's metrics, and their first values.
//!
//! Counters start at 0 with the process; the unit is the last word of a name.

use longshore_protocol::NodeState;
use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Gauge: subtasks by which the counts and the raw keys of active jobs differ, each at its last
/// audit. Anything but 0 is a bug.
pub(crate) const LEDGER_IMBALANCE: &str = "longshore_ledger_imbalance";
/// Gauge: jobs that may not have ended.
pub(crate) const ACTIVE_JOBS: &str = "longshore_active_jobs";
/// Gauge: workers that the ledger lists, by `state`.
pub(crate) const NODES: &str = "longshore_nodes";
/// Counter: workers that this scheduler declared lost, by `how`: `crashed` or `vanished`.
pub(crate) const LOST_NODES: &str = "longshore_lost_nodes_total";
/// Counter: chunks that this scheduler revoked from lost workers.
pub(crate) const REVOKED_CHUNKS: &str = "longshore_revoked_chunks_total";
/// Counter: orphaned chunks that this scheduler revoked: their holders are alive and did not know
/// that they held them.
pub(crate) const ORPHANED_CHUNKS: &str = "longshore_orphaned_chunks_total";
/// Counter: unsettled subtasks in revoked chunks, which run again.
pub(crate) const REVOKED_SUBTASKS: &str = "longshore_revoked_subtasks_total";
/// Counter: slow chunks that were offered for speculative execution.
pub(crate) const SPECULATIVE_CHUNKS: &str = "longshore_speculative_chunks_total";
/// Counter: chunk messages published, confirmed or not.
pub(crate) const PUBLISHED_CHUNKS: &str = "longshore_published_chunks_total";
/// Counter: publishes of chunk messages whose outcome is unknown; sweeps publish those again that
/// were lost.
pub(crate) const UNKNOWN_PUBLISHES: &str = "longshore_unknown_publishes_total";
/// Counter: job documents handled, by `outcome`: `accepted`, `known`, `refused`, `cancelled` or
/// `postponed` (once for each document that can't be judged yet).
pub(crate) const DOCUMENTS: &str = "longshore_documents_total";

/// Describes all metrics to the recorder.
pub fn describe() {
    describe_gauge!(
        LEDGER_IMBALANCE,
        "Subtasks by which the counts and the raw keys of active jobs differ; must be 0"
    );
    describe_gauge!(ACTIVE_JOBS, "Jobs that may not have ended");
    describe_gauge!(NODES, "Workers that the ledger lists, by state");
    describe_counter!(LOST_NODES, "Workers declared lost, by how: crashed or vanished");
    describe_counter!(REVOKED_CHUNKS, "Chunks revoked from lost workers");
    describe_counter!(
        ORPHANED_CHUNKS,
        "Chunks revoked from living workers that did not know that they held them"
    );
    describe_counter!(REVOKED_SUBTASKS, "Unsettled subtasks in revoked chunks, which run again");
    describe_counter!(SPECULATIVE_CHUNKS, "Slow chunks offered for speculative execution");
    describe_counter!(PUBLISHED_CHUNKS, "Chunk messages published, confirmed or not");
    describe_counter!(UNKNOWN_PUBLISHES, "Publishes of chunk messages of unknown outcome");
    describe_counter!(
        DOCUMENTS,
        "Job documents handled, by outcome: accepted, known, refused, cancelled or postponed"
    );
    register();
}

/// Gives each metric a value from the start: an alert on a metric that does not exist never fires.
fn register() {
    for name in [LEDGER_IMBALANCE, ACTIVE_JOBS] {
        gauge!(name).set(0.0);
    }
    for state in NodeState::ALL {
        gauge!(NODES, "state" => state.as_str()).set(0.0);
    }
    for how in ["crashed", "vanished"] {
        counter!(LOST_NODES, "how" => how).increment(0);
    }
    for outcome in ["accepted", "known", "refused", "cancelled", "postponed"] {
        counter!(DOCUMENTS, "outcome" => outcome).increment(0);
    }
    for name in [
        REVOKED_CHUNKS,
        ORPHANED_CHUNKS,
        REVOKED_SUBTASKS,
        SPECULATIVE_CHUNKS,
        PUBLISHED_CHUNKS,
        UNKNOWN_PUBLISHES,
    ] {
        counter!(name).increment(0);
    }
}
