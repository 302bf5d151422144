//! The queues of the fleet: their jobs, their workers, their scheduler, and what blocks them.
//!
//! Read straight in the ledger and the broker.

use std::collections::{BTreeMap, BTreeSet};

use longshore_broker::Queue;
use longshore_ledger::{BlockedParams, OpenQueue};
use longshore_protocol::rendezvous;
use longshore_protocol::wire::{QueueBlocked, QueueView};
use longshore_protocol::{BlockedScope, NodeRecord, NodeState, SchedulerId};

use super::Client;
use super::job::SCHEDULER_ALIVE;
use crate::Error;

/// The most tasks of a queue of which is asked what blocks them.
const MAX_TASKS: usize = 100;

/// The most queues that are shown.
const MAX_QUEUES: usize = 1_000;

impl Client {
    pub(crate) async fn queues(&self) -> Result<Vec<QueueView>, Error> {
        let ledger = self.jobs.ledger();
        let (open, nodes) = (ledger.open_queues().await?, ledger.nodes().await?);
        let (schedulers, now) = (ledger.schedulers().await?, ledger.now().await?);
        let alive: Vec<SchedulerId> = schedulers
            .into_iter()
            .filter(|scheduler| now.since(scheduler.beat_at) < SCHEDULER_ALIVE)
            .map(|scheduler| scheduler.id)
            .collect();
        let mut open: BTreeMap<String, OpenQueue> =
            open.into_iter().map(|queue| (queue.queue.clone(), queue)).collect();
        for queue in nodes.iter().flat_map(|node| &node.info.queues) {
            open.entry(queue.clone()).or_insert_with(|| OpenQueue::new(queue.clone()));
        }
        let mut views = Vec::new();
        for queue in open.into_values().take(MAX_QUEUES) {
            let scheduler = rendezvous::owner(&queue.queue, &alive).cloned();
            views.push(self.queue(&queue, &nodes, scheduler).await?);
        }
        Ok(views)
    }

    async fn queue(
        &self,
        open: &OpenQueue,
        nodes: &[NodeRecord],
        scheduler: Option<SchedulerId>,
    ) -> Result<QueueView, Error> {
        let queue = &open.queue;
        let workers: Vec<&NodeRecord> =
            nodes.iter().filter(|node| is_worker_of(node, queue)).collect();
        let sum = |number: fn(&NodeRecord) -> u32| {
            workers.iter().map(|node| u64::from(number(node))).sum::<u64>()
        };
        // A broker that can't tell, or has no such queue, is no reason to show nothing.
        let depth = self.broker.depth(&Queue::Work(queue.clone())).await;
        Ok(QueueView {
            queue: queue.clone(),
            jobs: open.jobs,
            workers: workers.len() as u64,
            slots: sum(|node| node.info.slots),
            busy: sum(|node| node.info.busy),
            blocked: match scheduler.is_some() && open.jobs > 0 {
                true => self.blocked(queue, &open.tasks).await?,
                false => Vec::new(),
            },
            scheduler,
            messages: depth.ok().flatten().map(|depth| depth.ready),
        })
    }

    /// What blocks jobs of the queue that each worker can run, and those of single tasks.
    async fn blocked(
        &self,
        queue: &str,
        tasks: &BTreeSet<String>,
    ) -> Result<Vec<QueueBlocked>, Error> {
        let tasks = tasks.iter().take(MAX_TASKS).cloned().map(BlockedScope::Task);
        let scopes: Vec<BlockedScope> = [BlockedScope::Queue].into_iter().chain(tasks).collect();
        let params = BlockedParams::new(queue, scopes.clone());
        let found = self.jobs.ledger().blocked(&params).await?;
        let blocked = scopes.into_iter().zip(found).filter_map(|(scope, found)| {
            let task = match scope {
                BlockedScope::Task(task) => Some(task),
                BlockedScope::Queue | BlockedScope::Job(_) => None,
            };
            found.map(|found| QueueBlocked { task, code: found.reason, since: found.since })
        });
        Ok(blocked.collect())
    }
}

fn is_worker_of(node: &NodeRecord, queue: &str) -> bool {
    let takes = node.info.queues.iter().any(|name| name == queue);
    takes && node.info.state == NodeState::Active && node.death.is_none()
}
