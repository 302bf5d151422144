//! What users did to open jobs, as far as looks at them show it, until the journal is told.
//!
//! A ledger that was rolled back shows pauses undone that nobody undid. So what a look shows waits until the keeper has seen, a
//! second later at most, that the ledger lost nothing before it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use longshore_ledger::{Error, Ledger};
use longshore_protocol::{JobId, JobSummary, JournalEvent};

use super::Journal;

/// Shared by those who look at jobs and the keeper.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How each job looked last. Bounded by the jobs that this scheduler feeds.
    seen: BTreeMap<JobId, Seen>,
    /// What is to be told, in order.
    news: Vec<JournalEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    paused: bool,
    generation: u64,
}

impl Notes {
    /// Notes what is new about a job that was looked at.
    pub(crate) async fn take(
        &self,
        ledger: &dyn Ledger,
        journal: &Journal,
        summary: &JobSummary,
    ) -> Result<(), Error> {
        if summary.state.is_terminal() || !journal.is_wanted() {
            return Ok(());
        }
        let (job, generation) = (summary.id, summary.generation);
        let now = Seen { paused: summary.state.is_paused(), generation };
        let before = self.with(|inner| inner.seen.insert(job, now));
        let (reopened, changed) = match before {
            Some(before) => (now.generation > before.generation, before.paused != now.paused),
            // Another scheduler may have told of a pause that is over.
            None => (now.generation > 0, !summary.state.is_queued()),
        };
        if reopened || changed {
            let at = ledger.now().await?;
            let reopening = reopened.then_some(JournalEvent::Reopened { job, at });
            let pause = if now.paused {
                JournalEvent::Paused { job, at }
            } else {
                JournalEvent::Resumed { job, at }
            };
            self.with(|inner| inner.news.extend(reopening.into_iter().chain([pause])));
        }
        Ok(())
    }

    /// The job has ended.
    pub(crate) fn forget(&self, job: JobId) {
        self.with(|inner| inner.seen.remove(&job));
    }

    /// Nothing that was seen counts any more: each job tells of itself anew.
    pub(super) fn clear(&self) {
        self.with(|inner| *inner = Inner::default());
    }

    /// What has been noted so far.
    pub(super) fn noted(&self) -> Vec<JournalEvent> {
        self.with(|inner| std::mem::take(&mut inner.news))
    }

    /// Puts back what could not be told.
    pub(super) fn keep(&self, news: impl IntoIterator<Item = JournalEvent>) {
        self.with(|inner| {
            inner.news.splice(0..0, news);
        });
    }

    fn with<A>(&self, op: impl FnOnce(&mut Inner) -> A) -> A {
        op(&mut self.inner.lock().expect("nobody panics under the lock"))
    }
}
