//! Which chunks a worker has passed on, because all its slots were busy.
//!
//! The message of a chunk that a dead node held goes from one busy worker to the next until one has
//! a free slot. Whoever sees it for the first time lets it go soon, or it would be on its way for
//! half a second; where it comes again it has been everywhere, so all are busy, and there is no
//! haste.

use std::collections::VecDeque;

use longshore_protocol::{ChunkId, ChunkMessage, Epoch, JobId};
use parking_lot::Mutex;

/// As many as a scheduler lets wait in a queue.
const MOST: usize = 1_000;

/// The newest of them.
#[derive(Debug, Default)]
pub(crate) struct Passed(Mutex<VecDeque<(JobId, ChunkId, Epoch)>>);

impl Passed {
    /// Whether it was here before.
    pub(crate) fn knows(&self, message: &ChunkMessage) -> bool {
        self.0.lock().contains(&key(message))
    }

    /// It goes on to somebody else.
    pub(crate) fn note(&self, message: &ChunkMessage) {
        let (key, mut passed) = (key(message), self.0.lock());
        if passed.contains(&key) {
            return;
        }
        if passed.len() == MOST {
            passed.pop_front();
        }
        passed.push_back(key);
    }
}

fn key(message: &ChunkMessage) -> (JobId, ChunkId, Epoch) {
    (message.job, message.chunk, message.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(chunk: u64, epoch: u64) -> ChunkMessage {
        let (v, job) = (ChunkMessage::VERSION, JobId::from_uuid(uuid::Uuid::nil()));
        ChunkMessage { v, job, chunk: ChunkId(chunk), from: 0, to: 1, epoch: Epoch(epoch) }
    }

    #[test]
    fn each_epoch_of_a_chunk_is_known_for_itself() {
        let passed = Passed::default();
        assert!(!passed.knows(&message(1, 2)));
        passed.note(&message(1, 2));
        assert!(passed.knows(&message(1, 2)));
        assert!(!passed.knows(&message(1, 3)) && !passed.knows(&message(2, 2)));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let passed = Passed::default();
        for chunk in 0..=MOST as u64 {
            passed.note(&message(chunk, 2));
            passed.note(&message(chunk, 2));
        }
        assert!(!passed.knows(&message(0, 2)));
        assert!(passed.knows(&message(1, 2)) && passed.knows(&message(MOST as u64, 2)));
    }
}
