//! The event `Unroutable`: publishes a chunk elsewhere, since the queue of its node was not there.

use longshore_protocol::{NodeId, Timestamp};

use super::Engine;
use super::event::RoutedChunk;

impl Engine {
    /// Publishes the chunk elsewhere, and nothing more to that node for a while.
    pub(super) fn on_unroutable(&mut self, now: Timestamp, node: &NodeId, chunk: RoutedChunk) {
        self.pools.iter_mut().for_each(|pool| pool.placer.avoid(now, node));
        self.publish(now, chunk.message.job, &[chunk]);
    }
}
