//! Checks that schedulers publish why a job waits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_ledger::{BlockedParams, Ledger};
use longshore_protocol::{BlockedScope, JobSummary};

use crate::world::World;

/// A reason is published within this time: a second after it was found, once calls that were lost
/// have been repeated.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(8);

impl World {
    /// Checks S20.
    pub(crate) async fn check_explained(&self) {
        if !self.is_steady.load(Ordering::Relaxed) {
            return;
        }
        for id in self.jobs.keys() {
            let Some(job) = self.ledger.job(*id).await.ok().flatten() else { continue };
            let idle_for = self.idle_for(&job);
            if idle_for < PUBLISHED_WITHIN {
                continue;
            }
            let task = BlockedScope::Task(job.task.clone());
            let scopes = [BlockedScope::Job(*id), BlockedScope::Queue, task];
            let blocked = self.ledger.blocked(&BlockedParams::new(&job.queue, scopes)).await;
            if blocked.unwrap_or_default().iter().all(Option::is_none) {
                let JobSummary { state, counts, .. } = job;
                self.violated("S20", || {
                    format!("{id}, {state}, idle for {idle_for:?}, nothing says why: {counts:?}")
                });
            }
            self.count("idle jobs explained");
        }
    }

    /// How long subtasks of a job have been waiting without an open chunk.
    fn idle_for(&self, job: &JobSummary) -> Duration {
        let waits = job.counts.waiting + job.counts.retrying + job.reduce.retrying > 0;
        let has_open = job.queued_chunks + job.running_chunks > 0;
        let mut history = self.history.lock();
        if !waits || has_open || job.state.is_terminal() {
            history.idle_since.remove(&job.id);
            return Duration::ZERO;
        }
        self.now() - *history.idle_since.entry(job.id).or_insert(self.now())
    }
}
