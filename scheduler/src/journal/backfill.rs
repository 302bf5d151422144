//! Writes to the journal all that the ledger knows of a job, in whatever state the job is.

use std::time::Duration;

use longshore_ledger::{Error, Ledger, StoredDocument};
use longshore_protocol::{JobDocument, JobId, JournalEnding, JournalEvent, Timestamp};

use super::Journal;
use crate::admitter::kept_for;

/// The record that a job was admitted.
pub(crate) fn admission_record(
    job: JobId,
    at: Timestamp,
    keep_for: Duration,
    stored: StoredDocument,
) -> JournalEvent {
    let keep_for_ms = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
    let StoredDocument { document, manifest, .. } = stored;
    JournalEvent::Admitted { job, at, keep_for_ms, document, manifest }
}

/// Writes all that the journal has to know of a job, in whatever state the job is. Returns false if
/// there is nothing to write.
pub(crate) async fn backfill_job(
    ledger: &dyn Ledger,
    journal: &Journal,
    job: JobId,
) -> Result<bool, Error> {
    let Some(stored) = ledger.document(job).await? else { return Ok(false) };
    let Some(summary) = ledger.job(job).await? else { return Ok(false) };
    // A document of another version, which this one can't read, it could not restore either.
    let Ok(document) = JobDocument::parse(stored.document.as_bytes()) else { return Ok(false) };
    let at = summary.submitted_at;
    let admitted = admission_record(job, at, kept_for(&document), stored);
    journal.write_until_done(&admitted).await;
    if let Some(ending) = JournalEnding::of(&summary) {
        journal.write_until_done(&JournalEvent::Ended { job, ending }).await;
    } else if summary.generation > 0 {
        let at = ledger.now().await?;
        journal.write_until_done(&JournalEvent::Reopened { job, at }).await;
    }
    if summary.state.is_paused() {
        let at = ledger.now().await?;
        journal.write_until_done(&JournalEvent::Paused { job, at }).await;
    }
    Ok(true)
}
