//! Keeps the pauses, resumes and retries that reads of jobs show until the journal has them.
//!
//! A ledger that was rolled back shows pauses undone that no user undid. So what a read shows waits
//! until the restorer has seen, at most a second later, that the ledger lost nothing before that.

use std::collections::BTreeMap;
use std::sync::Mutex;

use longshore_ledger::{Error, Ledger};
use longshore_protocol::{JobId, JobSummary, JournalEvent};

use super::Journal;

/// Shared by the readers of jobs and the restorer.
#[derive(Debug, Default)]
pub(crate) struct ControlLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How each job was when it was read last. Bounded by the jobs that this scheduler feeds.
    seen: BTreeMap<JobId, Seen>,
    /// The records that are to be written, in order.
    pending: Vec<JournalEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    is_paused: bool,
    generation: u64,
}

impl ControlLog {
    /// Takes in a job that was read.
    pub(crate) async fn observe(
        &self,
        ledger: &dyn Ledger,
        journal: &Journal,
        summary: &JobSummary,
    ) -> Result<(), Error> {
        if summary.state.is_terminal() || !journal.is_wanted() {
            return Ok(());
        }
        let (job, generation) = (summary.id, summary.generation);
        let now = Seen { is_paused: summary.state.is_paused(), generation };
        let before = self.with(|inner| inner.seen.insert(job, now));
        let (is_reopened, is_changed) = match before {
            Some(before) => (now.generation > before.generation, before.is_paused != now.is_paused),
            // Another scheduler may have written a pause that is over.
            None => (now.generation > 0, !summary.state.is_queued()),
        };
        if is_reopened || is_changed {
            let at = ledger.now().await?;
            let reopening = is_reopened.then_some(JournalEvent::Reopened { job, at });
            let pause = if now.is_paused {
                JournalEvent::Paused { job, at }
            } else {
                JournalEvent::Resumed { job, at }
            };
            self.with(|inner| inner.pending.extend(reopening.into_iter().chain([pause])));
        }
        Ok(())
    }

    /// The job has ended.
    pub(crate) fn forget(&self, job: JobId) {
        self.with(|inner| inner.seen.remove(&job));
    }

    /// Forgets all that was read: each job counts as read for the first time again.
    pub(super) fn clear(&self) {
        self.with(|inner| *inner = Inner::default());
    }

    /// Takes out the records that are to be written.
    pub(super) fn take_pending(&self) -> Vec<JournalEvent> {
        self.with(|inner| std::mem::take(&mut inner.pending))
    }

    /// Puts back records that could not be written.
    pub(super) fn put_back(&self, events: impl IntoIterator<Item = JournalEvent>) {
        self.with(|inner| {
            inner.pending.splice(0..0, events);
        });
    }

    fn with<A>(&self, op: impl FnOnce(&mut Inner) -> A) -> A {
        op(&mut self.inner.lock().expect("nothing panics under the lock"))
    }
}
