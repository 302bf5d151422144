//! The event `SpecLoaded`: keeps the part of a job's document that the engine needs.

use longshore_protocol::{JobId, Timestamp};

use super::Engine;
use super::event::JobSpec;

impl Engine {
    pub(super) fn on_spec_loaded(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        self.answered(id);
        if let Some(job) = self.jobs.own_mut(id) {
            job.spec = Some(spec);
        }
        self.refresh(now, id);
    }
}
