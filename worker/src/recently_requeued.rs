//! Remembers the chunks that this worker requeued lately because all its slots were busy.
//!
//! The message of a chunk that was queued again (after its node was lost, for example) goes from
//! one busy worker to the next until it reaches one with a free slot. A worker that sees the
//! message for the first time requeues it soon, so that it does not spend half a second on the way.
//! A message that comes back has been to the other workers already: all of them are busy, and the
//! worker keeps it for longer.

use std::collections::VecDeque;

use longshore_protocol::{ChunkId, ChunkMessage, Epoch, JobId};
use parking_lot::Mutex;

/// Most chunks that are remembered: as many as a scheduler keeps waiting in a queue.
const CAPACITY: usize = 1_000;

/// The newest chunks that were requeued, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentlyRequeued(Mutex<VecDeque<(JobId, ChunkId, Epoch)>>);

impl RecentlyRequeued {
    /// Whether this worker requeued the message before.
    pub(crate) fn contains(&self, message: &ChunkMessage) -> bool {
        self.0.lock().contains(&key(message))
    }

    /// Remembers that the message is requeued.
    pub(crate) fn insert(&self, message: &ChunkMessage) {
        let (key, mut requeued) = (key(message), self.0.lock());
        if requeued.contains(&key) {
            return;
        }
        if requeued.len() == CAPACITY {
            requeued.pop_front();
        }
        requeued.push_back(key);
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
    fn each_epoch_of_a_chunk_is_remembered_separately() {
        let requeued = RecentlyRequeued::default();
        assert!(!requeued.contains(&message(1, 2)));
        requeued.insert(&message(1, 2));
        assert!(requeued.contains(&message(1, 2)));
        assert!(!requeued.contains(&message(1, 3)) && !requeued.contains(&message(2, 2)));
    }

    #[test]
    fn the_oldest_messages_are_forgotten() {
        let requeued = RecentlyRequeued::default();
        for chunk in 0..=CAPACITY as u64 {
            requeued.insert(&message(chunk, 2));
            requeued.insert(&message(chunk, 2));
        }
        assert!(!requeued.contains(&message(0, 2)));
        assert!(
            requeued.contains(&message(1, 2)) && requeued.contains(&message(CAPACITY as u64, 2))
        );
    }
}
