//! The event `JobRead`: updates a job and its owner, and publishes overdue chunks after a sweep.

use longshore_protocol::{JobId, JobSummary, Timestamp};

use super::Engine;
use super::event::RoutedChunk;
use super::job::Job;
use super::jobs::{Call, Ownership};

impl Engine {
    pub(super) fn on_job_read(
        &mut self,
        now: Timestamp,
        id: JobId,
        summary: Option<Box<JobSummary>>,
        overdue: &[RoutedChunk],
    ) {
        let call = self.answered(id);
        let jobs = self.jobs.count();
        let Some(entry) = self.jobs.get_mut(id) else { return };
        let wants_read = entry.wants_read;
        match summary {
            Some(summary) if !summary.state.is_terminal() => {
                if let Ownership::Ours(job) = &mut entry.ownership {
                    job.update(*summary);
                } else if self.peers.owns(&summary.queue) {
                    let job = Job::new(now, jobs, *summary);
                    self.set_ownership(id, Ownership::Ours(Box::new(job)));
                } else {
                    self.set_ownership(id, Ownership::Elsewhere(summary.queue));
                }
            }
            Some(summary) if !self.peers.owns(&summary.queue) => {
                self.set_ownership(id, Ownership::Elsewhere(summary.queue));
            }
            _ => self.set_ownership(id, Ownership::Over),
        }
        // While the broker is away nothing can be published again, so a read counts as a sweep.
        let is_swept = matches!(call, Call::Sweeping { .. }) || !self.is_link_up;
        if let Some(job) = self.jobs.own_mut(id).filter(|_| is_swept) {
            if call == (Call::Sweeping { suspect_lost: true }) {
                job.suspects_swept(now);
            }
            job.swept(now, wants_read, jobs);
        }
        self.publish(now, id, overdue);
        self.refresh(now, id);
    }
}
