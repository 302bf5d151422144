//! The event `SpeculationOffered`: sends each slow chunk of a job to the node that is most idle.

use longshore_broker::Queue;
use longshore_ledger::SpeculativeChunk;
use longshore_protocol::{JobId, NodeId, Timestamp};

use super::Engine;
use super::event::{Action, RoutedChunk};
use super::speculation::speculation_targets;

impl Engine {
    /// Sends each slow chunk to the node with the most idle slots, other than its holder and those
    /// on which it has failed.
    pub(super) fn on_speculation_offered(
        &mut self,
        now: Timestamp,
        id: JobId,
        stragglers: Vec<SpeculativeChunk>,
        tried: Vec<Vec<NodeId>>,
    ) {
        self.answered(id);
        let Some(job) = self.jobs.own_mut(id) else { return };
        let slots = self.pools.get(&job.pool).map_or(0, |pool| pool.capacity.slots);
        job.speculation_offered(now, slots);
        let mut nodes = speculation_targets(&self.fleet, job);
        for (SpeculativeChunk { message, holder }, tried) in stragglers.into_iter().zip(tried) {
            let may = |node: &NodeId| *node != holder && !tried.contains(node);
            let others = nodes.iter_mut().filter(|(node, idle)| *idle > 0 && may(node));
            let Some((node, idle)) = others.max_by_key(|(_, idle)| *idle) else { continue };
            *idle -= 1;
            let queue = Queue::Node(node.clone());
            let chunk = RoutedChunk { message, key: None, tried: Vec::new() };
            self.actions.push(Action::Publish { queue, chunk });
        }
        self.refresh(now, id);
    }
}
