//! Chooses the queue of a chunk: the one that all workers of its pool share, or that of one worker.
//!
//! Deliberately absent: the key of a subtask (`crate::plans` computes it from the job's plan; here
//! it is a number).

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_broker::Queue;
use longshore_protocol::document::Placement;
use longshore_protocol::{NodeId, Timestamp};

use super::event::RoutedChunk;
use super::fleet::Fleet;
use super::pool::PoolKey;
use super::ring::Ring;

/// For this long a worker whose queue was not there gets nothing; by then the list of workers shows
/// that it is gone.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

/// The load of a worker is what was placed on it lately: this part of it is forgotten each second.
const FORGOTTEN_A_SECOND: f64 = 0.1;

/// Places the chunks of one pool.
#[derive(Debug)]
pub(super) struct Placer {
    queue: String,
    /// Whether some workers that take from the queue can't run what the pool's jobs need: then
    /// nothing may go there.
    is_exclusive: bool,
    live: Vec<NodeId>,
    ring: Ring,
    turn: usize,
    placed: BTreeMap<NodeId, f64>,
    /// The chunks that were sent to a worker since its last heartbeat, and which heartbeat that
    /// was.
    sent: BTreeMap<NodeId, (u64, u32)>,
    aged_at: Timestamp,
    avoided: BTreeMap<NodeId, Timestamp>,
}

impl Placer {
    /// A placer without workers.
    pub(super) fn new(key: &PoolKey) -> Self {
        Self {
            queue: key.queue.clone(),
            is_exclusive: key.task.is_some(),
            live: Vec::new(),
            ring: Ring::default(),
            turn: 0,
            placed: BTreeMap::new(),
            sent: BTreeMap::new(),
            aged_at: Timestamp::default(),
            avoided: BTreeMap::new(),
        }
    }

    /// The workers that take chunks of this pool.
    pub(super) fn live(&self) -> &[NodeId] {
        &self.live
    }

    /// Sets the workers that take chunks of this pool.
    pub(super) fn set_live(&mut self, live: Vec<NodeId>) {
        if live == self.live {
            return;
        }
        self.ring = Ring::new(&live);
        self.placed.retain(|node, _| live.contains(node));
        self.sent.retain(|node, _| live.contains(node));
        self.live = live;
    }

    /// The queue of this worker was not there.
    pub(super) fn avoid(&mut self, now: Timestamp, node: &NodeId) {
        self.avoided.insert(node.clone(), now.plus(AVOIDED_FOR));
    }

    /// The queue of a chunk. A placement that asks for one worker gets the shared queue where none
    /// is left. `None` where that queue has workers that can't run the chunk, and no other worker
    /// is left: the chunk waits, and a sweep brings it back.
    pub(super) fn place(
        &mut self,
        now: Timestamp,
        placement: &Placement,
        chunk: &RoutedChunk,
        fleet: &Fleet,
    ) -> Option<Queue> {
        self.avoided.retain(|_, until| *until > now);
        self.age(now);
        let node = match (placement, chunk.key) {
            (Placement::Shared, _) | (Placement::Hash(_), None) if self.is_exclusive => {
                self.least_loaded(fleet, |_| Some(false))
            }
            (Placement::Shared, _) | (Placement::Hash(_), None) => None,
            (Placement::RoundRobin, _) => self.next_in_turn(),
            (Placement::Hash(_), Some(key)) => {
                let load = |node: &NodeId| {
                    let takes_part = !self.avoided.contains_key(node);
                    takes_part.then(|| self.placed.get(node).copied().unwrap_or(0.0))
                };
                self.ring.pick(key, load).cloned()
            }
        };
        match node {
            Some(node) => {
                *self.placed.entry(node.clone()).or_insert(0.0) += 1.0;
                Some(Queue::Node(node))
            }
            None if self.is_exclusive => None,
            None => Some(Queue::Work(self.queue.clone())),
        }
    }

    /// The queue of a chunk whose subtasks failed on the nodes in `tried`: that of another node, if
    /// possible one that is not doubtful. `None` if all nodes have tried the chunk.
    pub(super) fn place_elsewhere(
        &mut self,
        now: Timestamp,
        tried: &[NodeId],
        is_doubtful: impl Fn(&NodeId) -> bool,
        fleet: &Fleet,
    ) -> Option<Queue> {
        self.avoided.retain(|_, until| *until > now);
        let rank = |node: &NodeId| (!tried.contains(node)).then(|| is_doubtful(node));
        self.least_loaded(fleet, rank).map(Queue::Node)
    }

    /// The worker with the smallest part of its slots in use, by its last heartbeat and by what it
    /// was sent since. Of the workers that `rank` gives a value, those with `false` come first.
    fn least_loaded(
        &mut self,
        fleet: &Fleet,
        rank: impl Fn(&NodeId) -> Option<bool>,
    ) -> Option<NodeId> {
        let count = self.live.len();
        self.turn = (self.turn + 1) % count.max(1);
        let in_turn = (0..count).map(|i| &self.live[(self.turn + i) % count]);
        let load = |node: &NodeId| {
            let (beats, info) = (fleet.beats(node), fleet.info(node)?);
            let sent = self.sent.get(node).filter(|(at, _)| Some(*at) == beats);
            let used = info.busy + sent.map_or(0, |(_, sent)| *sent);
            Some(f64::from(used) / f64::from(info.slots.max(1)))
        };
        let node = in_turn
            .filter(|node| !self.avoided.contains_key(node))
            .filter_map(|node| Some(((rank(node)?, load(node)?), node)))
            .min_by(|((a, used), _), ((b, more), _)| a.cmp(b).then(used.total_cmp(more)))
            .map(|(_, node)| node.clone())?;
        let beats = fleet.beats(&node).unwrap_or_default();
        let (at, sent) = self.sent.entry(node.clone()).or_default();
        *sent = if *at == beats { *sent + 1 } else { 1 };
        *at = beats;
        Some(node)
    }

    fn next_in_turn(&mut self) -> Option<NodeId> {
        for _ in 0..self.live.len() {
            self.turn = (self.turn + 1) % self.live.len();
            let node = &self.live[self.turn];
            if !self.avoided.contains_key(node) {
                return Some(node.clone());
            }
        }
        None
    }

    fn age(&mut self, now: Timestamp) {
        let seconds = now.since(self.aged_at).as_secs();
        if seconds > 0 {
            let kept = (1.0 - FORGOTTEN_A_SECOND).powi(i32::try_from(seconds).unwrap_or(i32::MAX));
            self.placed.values_mut().for_each(|load| *load *= kept);
            self.aged_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longshore_protocol::{ChunkId, ChunkMessage, Epoch, JobId};

    use super::super::fleet::tests::record;
    use super::*;

    fn chunk(key: Option<u64>) -> RoutedChunk {
        let job = JobId::from_uuid(uuid::Uuid::from_u128(1));
        let (chunk, epoch) = (ChunkId(1), Epoch(1));
        let message = ChunkMessage { v: 1, job, chunk, from: 0, to: 1, epoch };
        RoutedChunk { message, key, tried: Vec::new() }
    }

    fn placer(nodes: usize) -> Placer {
        let mut placer = Placer::new(&PoolKey::shared("pool"));
        placer.set_live((0..nodes).map(|i| NodeId::new(format!("n{i}"))).collect());
        placer
    }

    /// The queue of a chunk of a pool all of whose workers can run it.
    fn put(
        placer: &mut Placer,
        now: Timestamp,
        placement: &Placement,
        chunk: &RoutedChunk,
    ) -> Queue {
        let fleet = Fleet::new(Duration::from_secs(5));
        placer.place(now, placement, chunk, &fleet).expect("all workers may take it")
    }

    #[track_caller]
    fn placed(placer: &mut Placer, placement: &Placement, keys: &[u64], expected: &[&str]) {
        let now = Timestamp::from_millis(1);
        let names: Vec<String> = keys
            .iter()
            .map(|key| match put(placer, now, placement, &chunk(Some(*key))) {
                Queue::Node(node) => node.to_string(),
                Queue::Work(pool) => pool,
                other => panic!("no place for a chunk: {other:?}"),
            })
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn nodes_take_turns() {
        let keys = [0; 4];
        placed(&mut placer(3), &Placement::RoundRobin, &keys, &["n1", "n2", "n0", "n1"]);
        placed(&mut placer(3), &Placement::Shared, &keys[..1], &["pool"]);
        placed(&mut placer(0), &Placement::RoundRobin, &keys[..1], &["pool"]);
    }

    #[test]
    fn a_node_without_a_queue_is_avoided_for_a_while() {
        let mut placer = placer(2);
        placer.avoid(Timestamp::from_millis(0), &NodeId::new("n1"));
        placed(&mut placer, &Placement::RoundRobin, &[0, 0], &["n0", "n0"]);
        placer.avoid(Timestamp::from_millis(0), &NodeId::new("n0"));
        placed(&mut placer, &Placement::RoundRobin, &[0], &["pool"]);
        let later =
            put(&mut placer, Timestamp::from_millis(5_000), &Placement::RoundRobin, &chunk(None));
        assert!(matches!(later, Queue::Node(_)));
    }

    #[test]
    fn equal_keys_go_to_one_node_and_reduce_nodes_go_anywhere() {
        let hash = Placement::Hash("/customer".into());
        let mut placer = placer(5);
        let now = Timestamp::from_millis(1);
        let first: Vec<Queue> = (0..50)
            .map(|i| put(&mut placer, now, &hash, &chunk(Some(u64::MAX / 50 * i))))
            .collect();
        let again: Vec<Queue> = (0..50)
            .map(|i| put(&mut placer, now, &hash, &chunk(Some(u64::MAX / 50 * i))))
            .collect();
        let same = first.iter().zip(&again).filter(|(a, b)| a == b).count();
        assert!(same >= 40, "{same} of 50 keys went to the same node");
        assert_eq!(put(&mut placer, now, &hash, &chunk(None)), Queue::Work("pool".into()));
    }

    #[test]
    fn the_least_busy_node_that_has_the_task_is_next_and_others_get_nothing() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let records: Vec<_> = [("n0", 4, 3), ("n1", 4, 0), ("n2", 2, 0)]
            .map(|(name, slots, busy)| {
                let mut record = record(name, "pool", slots, 1);
                Arc::make_mut(&mut record.info).busy = busy;
                record
            })
            .into();
        fleet.observe(Timestamp::from_millis(1), &records);
        let key = PoolKey { queue: "pool".into(), task: Some("noop".into()) };
        let mut placer = Placer::new(&key);
        let now = Timestamp::from_millis(1);
        assert_eq!(placer.place(now, &Placement::Shared, &chunk(None), &fleet), None);
        placer.set_live(fleet.takers(&key).1);
        let mut next = || placer.place(now, &Placement::Shared, &chunk(None), &fleet);
        let mut sent: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..7 {
            let Some(Queue::Node(node)) = next() else { panic!("there are three") };
            *sent.entry(node.to_string()).or_default() += 1;
        }
        let expected = [("n0", 1), ("n1", 4), ("n2", 2)];
        assert_eq!(sent, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }

    #[test]
    fn a_failed_chunk_goes_to_another_node_and_to_a_doubtful_one_last() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let names = ["n0", "n1", "n2"];
        let records: Vec<_> = names.map(|name| record(name, "pool", 1, 1)).into();
        let now = Timestamp::from_millis(1);
        fleet.observe(now, &records);
        let [n0, n1, n2] = names.map(NodeId::new);
        let mut placer = placer(3);
        let mut next = |tried: &[&NodeId]| {
            let tried: Vec<NodeId> = tried.iter().map(|node| (*node).clone()).collect();
            placer.place_elsewhere(now, &tried, |node| *node == n1, &fleet)
        };
        for _ in 0..3 {
            assert_eq!(next(&[&n0]), Some(Queue::Node(n2.clone())));
        }
        assert_eq!(next(&[&n0, &n2]), Some(Queue::Node(n1.clone())));
        assert_eq!(next(&[&n0, &n1, &n2]), None);
    }
}
