//! Telling the journal of a job from what the ledger knows of it.

use std::time::Duration;

use longshore_ledger::{Error, Ledger, StoredDocument};
use longshore_protocol::{JobDocument, JobId, JournalEnding, JournalEvent, Timestamp};

use super::Journal;
use crate::admitter::kept_for;

/// That a job was admitted.
pub(crate) fn admitted(
    job: JobId,
    at: Timestamp,
    keep_for: Duration,
    stored: StoredDocument,
) -> JournalEvent {
    let keep_for_ms = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
    let StoredDocument { document, manifest, .. } = stored;
    JournalEvent::Admitted { job, at, keep_for_ms, document, manifest }
}

/// Writes all that the journal has to know of a job, however it stands. False if there is nothing to tell.
pub(crate) async fn tell(
    ledger: &dyn Ledger,
    journal: &Journal,
    job: JobId,
) -> Result<bool, Error> {
    let Some(stored) = ledger.document(job).await? else { return Ok(false) };
    let Some(summary) = ledger.job(job).await? else { return Ok(false) };
    // A document of another version that we can't read is one that we could not put back either.
    let Ok(document) = JobDocument::parse(stored.document.as_bytes()) else { return Ok(false) };
    let at = summary.submitted_at;
    journal.insist(&admitted(job, at, kept_for(&document), stored)).await;
    if let Some(ending) = JournalEnding::of(&summary) {
        journal.insist(&JournalEvent::Ended { job, ending }).await;
    } else if summary.generation > 0 {
        journal.insist(&JournalEvent::Reopened { job, at: ledger.now().await? }).await;
    }
    if summary.state.is_paused() {
        journal.insist(&JournalEvent::Paused { job, at: ledger.now().await? }).await;
    }
    Ok(true)
}
