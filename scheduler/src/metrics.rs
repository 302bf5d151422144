//! The names of this crate's metrics. Counters start at 0 with the process; units are the last word of a name.

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Gauge: subtasks by which books and raw keys of the active jobs differ, each at its last audit. Anything but 0 is a bug.
pub(crate) const LEDGER_IMBALANCE: &str = "longshore_ledger_imbalance";
/// Gauge: jobs that may not have ended.
pub(crate) const ACTIVE_JOBS: &str = "longshore_active_jobs";
/// Gauge: workers that the ledger lists, by `state`.
pub(crate) const NODES: &str = "longshore_nodes";
/// Counter: workers that this scheduler buried, by `how`: `crashed`, `vanished` or `left`.
pub(crate) const LOST_NODES: &str = "longshore_lost_nodes_total";
/// Counter: chunks that this scheduler took from workers that are gone.
pub(crate) const REVOKED_CHUNKS: &str = "longshore_revoked_chunks_total";
/// Counter: chunks that this scheduler took from workers that live and knew nothing of them.
pub(crate) const ORPHANED_CHUNKS: &str = "longshore_orphaned_chunks_total";
/// Counter: subtasks in those chunks that had not been settled, so that they run again.
pub(crate) const REVOKED_SUBTASKS: &str = "longshore_revoked_subtasks_total";
/// Counter: chunks of which a second copy was offered, because the first took so long.
pub(crate) const COPIED_CHUNKS: &str = "longshore_copied_chunks_total";
/// Counter: chunk messages published, confirmed or not.
pub(crate) const PUBLISHED_CHUNKS: &str = "longshore_published_chunks_total";
/// Counter: publishes of chunk messages whose outcome is unknown; the sweep makes up for those that were lost.
pub(crate) const UNKNOWN_PUBLISHES: &str = "longshore_unknown_publishes_total";
/// Counter: job documents taken in, by `outcome`: `accepted`, `known`, `refused`, `cancelled` or `postponed`
/// (once, when it is found that it can't be judged yet).
pub(crate) const DOCUMENTS: &str = "longshore_documents_total";

/// Tells whoever records metrics what each of them is.
pub fn describe() {
    describe_gauge!(
        LEDGER_IMBALANCE,
        "Subtasks by which the counts and the raw keys of active jobs differ; must be 0"
    );
    describe_gauge!(ACTIVE_JOBS, "Jobs that may not have ended");
    describe_gauge!(NODES, "Workers that the ledger lists, by state");
    describe_counter!(LOST_NODES, "Workers that this scheduler declared lost: crashed or vanished");
    describe_counter!(REVOKED_CHUNKS, "Chunks taken from workers that are gone");
    describe_counter!(ORPHANED_CHUNKS, "Chunks taken from workers that knew nothing of them");
    describe_counter!(REVOKED_SUBTASKS, "Unsettled subtasks in revoked chunks: they run again");
    describe_counter!(COPIED_CHUNKS, "Chunks that take long, offered to a second worker");
    describe_counter!(PUBLISHED_CHUNKS, "Chunk messages published, confirmed or not");
    describe_counter!(UNKNOWN_PUBLISHES, "Publishes of chunk messages of unknown outcome");
    describe_counter!(
        DOCUMENTS,
        "Job documents taken in: accepted, known, refused, cancelled or postponed"
    );
    register();
}

/// Gives each of them a value from the start: an alert on something that does not exist never fires.
fn register() {
    for name in [LEDGER_IMBALANCE, ACTIVE_JOBS] {
        gauge!(name).set(0.0);
    }
    for state in ["active", "draining"] {
        gauge!(NODES, "state" => state).set(0.0);
    }
    for how in ["crashed", "vanished", "left"] {
        counter!(LOST_NODES, "how" => how).increment(0);
    }
    for outcome in ["accepted", "known", "refused", "cancelled", "postponed"] {
        counter!(DOCUMENTS, "outcome" => outcome).increment(0);
    }
    for name in [
        REVOKED_CHUNKS,
        ORPHANED_CHUNKS,
        REVOKED_SUBTASKS,
        COPIED_CHUNKS,
        PUBLISHED_CHUNKS,
        UNKNOWN_PUBLISHES,
    ] {
        counter!(name).increment(0);
    }
}
