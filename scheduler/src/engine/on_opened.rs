//! The event `Opened`: publishes the chunks that the ledger has opened of a job.

use longshore_protocol::{JobId, Timestamp};

use super::Engine;
use super::event::RoutedChunk;
use super::jobs::Call;

impl Engine {
    pub(super) fn on_opened(&mut self, now: Timestamp, id: JobId, chunks: &[RoutedChunk]) {
        let call = self.answered(id);
        if let (Call::Opening(asked), Some(job)) = (call, self.jobs.own_mut(id)) {
            let is_complete = job.opened(now, asked.chunks, chunks);
            if !is_complete {
                self.jobs.want_read(id);
            }
        }
        self.publish(now, id, chunks);
        self.refresh(now, id);
    }
}
