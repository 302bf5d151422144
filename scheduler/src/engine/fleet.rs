//! Decides which workers are dead, by silence or lost connections, and which can take what.
//!
//! Silence is counted on the clock of this process, and only over time in which its reads of the
//! ledger worked: a ledger that froze, or a paused machine of ours, proves no death. Nor does a
//! ledger that takes no writes (`ledger_writes`): no worker is judged meanwhile, and the silence of
//! all counts from zero afterwards.
//!
//! Each worker is judged by the times that it announces, if any: it may send heartbeats more rarely
//! than others, and be further away. Deliberately absent: what is done about dead workers (see
//! `node_recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_ledger::Holder;
use longshore_protocol::{JobId, NodeId, NodeInfo, NodeRecord, Timestamp};

use super::holders::HolderReport;
use super::node::Node;
use super::pool::PoolKey;
use super::window::Capacity;

/// Between two reads at most this much counts as silence; more means that this scheduler could not
/// read. Twice the usual time between reads and more, so that ordinary delays count fully.
const LONGEST_LISTEN: Duration = Duration::from_secs(1);

/// From this many nodes on, silence of many at once points at something that they share, not at the
/// nodes.
const CROWD: usize = 4;

/// The part of the nodes that counts as many, per cent.
const MANY_PERCENT: usize = 30;

/// The workers as far as one scheduler knows.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The silence after which a worker is dead that announces no other time.
    dead_after: Duration,
    nodes: BTreeMap<NodeId, Node>,
    read_at: Option<Timestamp>,
    /// Whether silence proves anything now.
    judges_silence: bool,
    /// For each queue the tasks that all workers which take chunks of it can run.
    common_tasks: BTreeMap<String, BTreeSet<String>>,
    /// Whether any node is out of rotation for a task.
    has_isolated: bool,
}

/// What a read of the list of workers changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Whether a worker that takes chunks came or went, or changed what it takes.
    pub(super) capacity: bool,
    /// The queues of workers that are dead because of their silence.
    pub(super) silent_queues: BTreeSet<String>,
    /// The queues of workers that left, or whose death a supervisor watched.
    pub(super) gone_queues: BTreeSet<String>,
}

impl Fleet {
    /// No worker yet.
    pub(super) fn new(dead_after: Duration) -> Self {
        Self {
            dead_after,
            nodes: BTreeMap::new(),
            read_at: None,
            judges_silence: true,
            common_tasks: BTreeMap::new(),
            has_isolated: false,
        }
    }

    /// Whether workers can send heartbeats, so that silence for too long proves a death.
    pub(super) fn set_judges_silence(&mut self, can_beat: bool) {
        self.judges_silence = can_beat;
    }

    /// An outage of the ledger is over: each worker has the whole of its time for its next
    /// heartbeat.
    pub(super) fn forget_silence(&mut self) {
        for node in self.nodes.values_mut() {
            node.silent = Duration::ZERO;
        }
    }

    /// Takes in the ledger's list as read at `now`.
    pub(super) fn observe(&mut self, now: Timestamp, records: &[NodeRecord]) -> Changes {
        let listened = self.read_at.map_or(Duration::ZERO, |at| now.since(at)).min(LONGEST_LISTEN);
        self.read_at = Some(now);
        let mut changes = Changes::default();
        let mut listed = BTreeSet::new();
        for record in records {
            let id = &record.info.id;
            let died = record.death.is_some() && self.is_alive(id);
            if died {
                changes.gone_queues.extend(record.info.queues.iter().cloned());
            }
            changes.capacity |= self.update(record, listened);
            listed.insert(id);
        }
        self.nodes.retain(|id, node| {
            let stays = listed.contains(id);
            if !stays && !node.is_dead {
                changes.gone_queues.extend(node.info.queues.iter().cloned());
                changes.capacity = true;
            }
            stays
        });
        if self.judges_silence {
            changes.silent_queues = self.judge_silence();
        }
        changes.capacity |= !changes.silent_queues.is_empty();
        if changes.capacity {
            self.compare_tasks();
        }
        changes
    }

    /// Finds for each queue the tasks that all workers which take chunks of it can run.
    fn compare_tasks(&mut self) {
        self.common_tasks.clear();
        self.has_isolated = self.nodes.values().any(|node| !node.isolated.is_empty());
        for node in self.nodes.values().filter(|node| node.is_open()) {
            let can_run = |task: &String| node.can_run(task);
            for queue in &node.info.queues {
                match self.common_tasks.get_mut(queue) {
                    Some(common) => common.retain(can_run),
                    None => {
                        let tasks = node.info.tasks.iter().filter(|task| can_run(task));
                        self.common_tasks.insert(queue.clone(), tasks.cloned().collect());
                    }
                }
            }
        }
    }

    /// Takes in the record of one node; returns whether it changed what the node takes.
    fn update(&mut self, record: &NodeRecord, listened: Duration) -> bool {
        let NodeRecord { info, beat_at, death, isolated, .. } = record;
        let Some(node) = self.nodes.get_mut(&info.id) else {
            self.nodes.insert(info.id.clone(), Node::new(record, 1));
            return true;
        };
        let was_dead = node.is_dead;
        let is_changed = node.info.slots != info.slots
            || node.info.state != info.state
            || node.info.queues != info.queues
            || node.info.tasks != info.tasks
            || node.isolated != *isolated;
        if node.beat_at == *beat_at {
            node.silent += listened;
            node.is_dead |= death.is_some();
            node.death.clone_from(death);
            node.isolated.clone_from(isolated);
        } else {
            let tried_at_beat = node.tried_at_beat;
            *node = Node { tried_at_beat, ..Node::new(record, node.beats + 1) };
        }
        is_changed || node.is_dead != was_dead
    }

    /// Takes in which workers had lost all connections at `now`; returns the queues of those that
    /// are dead because of that.
    pub(super) fn connections_lost(
        &mut self,
        now: Timestamp,
        gone: &BTreeSet<NodeId>,
    ) -> BTreeSet<String> {
        let mut queues = BTreeSet::new();
        let is_judged = |node: &Node| !node.is_dead && node.ends_with_its_connections();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| is_judged(node)) {
            node.is_dead = node.disconnect.check(now, gone.contains(id), node.round_trip);
            node.disconnected_at = node.is_dead.then_some(now);
            queues.extend(node.is_dead.then_some(&node.info.queues).into_iter().flatten().cloned());
        }
        if !queues.is_empty() {
            self.compare_tasks();
        }
        queues
    }

    /// Takes those workers for dead that have been silent for too long; returns their queues.
    fn judge_silence(&mut self) -> BTreeSet<String> {
        let default = self.dead_after;
        let alive = self.nodes.values().filter(|node| !node.is_dead).count();
        let suspects = self.nodes.values().filter(|node| node.is_suspect(default)).count();
        if alive >= CROWD && suspects * 100 > alive * MANY_PERCENT {
            for node in self.nodes.values_mut() {
                node.is_spared |= node.is_suspect(default);
            }
        }
        let mut queues = BTreeSet::new();
        for node in self.nodes.values_mut().filter(|node| !node.is_dead) {
            node.is_dead = node.silent >= node.dead_after(default);
            queues.extend(node.is_dead.then_some(&node.info.queues).into_iter().flatten().cloned());
        }
        queues
    }

    /// The workers that are taken for dead and are still on the list, with their last heartbeats.
    pub(super) fn dead(&self) -> impl Iterator<Item = (&NodeId, Timestamp)> {
        self.nodes.iter().filter(|(_, node)| node.is_dead).map(|(id, node)| (id, node.beat_at))
    }

    /// When the connections of a node had been gone for too long, by the clock of this process.
    pub(super) fn disconnected_at(&self, id: &NodeId) -> Option<Timestamp> {
        self.nodes.get(id)?.disconnected_at
    }

    /// Whether a node was on the list when it was read last.
    pub(super) fn is_listed(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    /// What a node that is on the list announced last.
    pub(super) fn info(&self, id: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id).map(|node| &*node.info)
    }

    /// How a node's process ended, if a supervisor watched it.
    pub(super) fn death(&self, id: &NodeId) -> Option<&str> {
        self.nodes.get(id)?.death.as_deref()
    }

    /// Whether a node is on the list and not taken for dead.
    pub(super) fn is_alive(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| !node.is_dead)
    }

    /// Whether the last heartbeat of a node names this job among those of which the node held
    /// chunks; `None` if the node never names any.
    pub(super) fn names(&self, id: &NodeId, job: JobId) -> Option<bool> {
        self.nodes.get(id)?.info.jobs.as_ref().map(|jobs| jobs.contains(&job))
    }

    /// How many heartbeats of a node this scheduler has seen.
    pub(super) fn beats(&self, id: &NodeId) -> Option<u64> {
        self.nodes.get(id).map(|node| node.beats)
    }

    /// What those holders of a job's chunks that are alive announced last.
    pub(super) fn holder_reports<'a>(
        &self,
        job: JobId,
        holders: &'a [Holder],
    ) -> Vec<HolderReport<'a>> {
        let living = holders.iter().filter(|holder| self.is_alive(&holder.node));
        let report = |holder: &'a Holder| HolderReport {
            beats: self.nodes[&holder.node].beats,
            names: self.names(&holder.node, job),
            holder,
        };
        living.map(report).collect()
    }

    /// Whether some workers that take chunks of a queue can't run a task. False for a queue without
    /// workers: which ones will come is open.
    pub(super) fn lacks(&self, queue: &str, task: &str) -> bool {
        self.common_tasks.get(queue).is_some_and(|common| !common.contains(task))
    }

    /// Whether other nodes can run a task from each of the node's queues.
    pub(super) fn has_others(&self, id: &NodeId, task: &str) -> bool {
        let Some(Node { info, .. }) = self.nodes.get(id) else { return false };
        let can_run = |queue: &String| {
            self.nodes
                .iter()
                .any(|(other, node)| other != id && node.takes_from(queue) && node.can_run(task))
        };
        info.queues.iter().all(can_run)
    }

    /// The nodes that take chunks of a queue and are out of rotation for a task, sorted.
    pub(super) fn isolated(&self, queue: &str, task: &str) -> Vec<NodeId> {
        if !self.has_isolated {
            return Vec::new();
        }
        let is_out = |node: &Node| node.isolation(task).is_some() && node.takes_from(queue);
        self.nodes.iter().filter(|(_, node)| is_out(node)).map(|(id, _)| id.clone()).collect()
    }

    /// A node among `refunded` that is to be tried again with a chunk of a task for which it is out
    /// of rotation: with one chunk between two heartbeats.
    pub(super) fn node_to_try(
        &mut self,
        queue: &str,
        task: &str,
        ledger_now: Timestamp,
        refunded: &[NodeId],
    ) -> Option<NodeId> {
        refunded.iter().find_map(|id| {
            let node = self.nodes.get_mut(id)?;
            let is_due =
                node.isolation(task)?.until <= ledger_now && node.tried_at_beat < node.beats;
            if !is_due || !node.has_task(task) || !node.takes_from(queue) {
                return None;
            }
            node.tried_at_beat = node.beats;
            Some(id.clone())
        })
    }

    /// The workers that take chunks of a pool, sorted, and what they are together.
    pub(super) fn takers(&self, pool: &PoolKey) -> (Capacity, Vec<NodeId>) {
        let mut capacity = Capacity::default();
        let mut ids = Vec::new();
        for (id, node) in &self.nodes {
            let is_able = pool.task.as_ref().is_none_or(|task| node.can_run(task));
            if is_able && node.takes_from(&pool.queue) {
                capacity.workers += 1;
                capacity.slots += u64::from(node.info.slots);
                ids.push(id.clone());
            }
        }
        (capacity, ids)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use longshore_protocol::{LivenessTerms, NodeState};

    use super::*;

    pub(crate) fn record(name: &str, queue: &str, slots: u32, beat_at: u64) -> NodeRecord {
        let info = Arc::new(NodeInfo {
            queues: vec![queue.into()],
            tasks: vec!["noop".into()],
            slots,
            ..NodeInfo::new(NodeId::new(name))
        });
        NodeRecord::new(info, Timestamp::from_millis(beat_at))
    }

    /// The record of a worker that announces these liveness terms.
    fn announcing(terms: LivenessTerms, beat_at: u64) -> NodeRecord {
        let mut record = record("n", "default", 1, beat_at);
        Arc::make_mut(&mut record.info).terms = terms;
        record
    }

    /// A holder with claims of these times (ms).
    pub(crate) fn holder(name: &str, oldest: u64, newest: u64) -> Holder {
        let [oldest, newest] = [oldest, newest].map(Timestamp::from_millis);
        Holder { node: NodeId::new(name), oldest, newest }
    }

    /// `nodes` workers send a heartbeat each second; from second 10 on the first `silent` of them
    /// are silent. The list is read twice a second, but not in `deaf` (seconds). Returns the second
    /// in which the first worker was dead.
    fn first_death(nodes: usize, silent: usize, deaf: std::ops::Range<u64>) -> Option<f64> {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        for half in 0..120 {
            let second = half / 2;
            if deaf.contains(&second) {
                continue;
            }
            let records: Vec<NodeRecord> = (0..nodes)
                .map(|i| {
                    let beat_at = if i < silent { second.min(10) } else { second };
                    // While the ledger can't be read it can't be written either.
                    let beat_at = if deaf.contains(&beat_at) { deaf.start - 1 } else { beat_at };
                    record(&format!("n{i:02}"), "default", 1, beat_at)
                })
                .collect();
            fleet.observe(Timestamp::from_millis(half * 500), &records);
            if fleet.dead().next().is_some() {
                assert_eq!(fleet.dead().count(), silent, "only silent nodes are dead");
                return Some(half as f64 / 2.0);
            }
        }
        None
    }

    #[track_caller]
    fn dies_after(nodes: usize, silent: usize, expected: Option<f64>) {
        let after = first_death(nodes, silent, 0..0).map(|second| second - 10.0);
        assert_eq!(after, expected);
    }

    #[test]
    fn a_node_is_dead_after_five_seconds_of_silence() {
        dies_after(1, 1, Some(5.0));
        dies_after(3, 3, Some(5.0));
        dies_after(10, 1, Some(5.0));
        dies_after(10, 3, Some(5.0));
    }

    #[test]
    fn many_nodes_that_fall_silent_together_get_twice_the_time_once() {
        dies_after(10, 4, Some(10.0));
        dies_after(4, 4, Some(10.0));
    }

    /// Checks the connections of a worker at these times (ms; gone or not); `expected` is when the
    /// worker is dead.
    #[track_caller]
    fn dies_at(checks: &[(u64, bool)], expected: Option<u64>) {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let [worker, other] = ["worker", "other"].map(|name| record(name, "default", 1, 1));
        fleet.observe(Timestamp::from_millis(0), &[worker.clone(), other]);
        let died = checks.iter().find(|(ms, is_gone)| {
            let gone = is_gone.then(|| worker.info.id.clone()).into_iter().collect();
            !fleet.connections_lost(Timestamp::from_millis(*ms), &gone).is_empty()
        });
        assert_eq!(died.map(|(ms, _)| *ms), expected, "{checks:?}");
        assert!(fleet.is_alive(&NodeId::new("other")));
        assert_eq!(fleet.is_alive(&worker.info.id), expected.is_none());
    }

    #[test]
    fn a_node_without_connections_is_dead_within_a_fraction_of_a_second() {
        dies_at(&[(0, false), (50, true), (100, true), (150, true)], Some(150));
        dies_at(&[(0, true), (900, true)], Some(900));
    }

    #[test]
    fn connections_that_are_replaced_in_time_prove_nothing() {
        dies_at(&[(0, true), (50, true), (99, false), (120, true), (170, true)], None);
    }

    #[test]
    fn a_worker_is_judged_by_the_times_that_it_announces() {
        let [heartbeat, dead_after] = [10, 30].map(|s| Some(Duration::from_secs(s)));
        let terms = LivenessTerms { heartbeat, dead_after, exclusive: Vec::new() };
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let mut at = |ms: u64, beat_at| {
            fleet.observe(Timestamp::from_millis(ms), &[announcing(terms.clone(), beat_at)]);
            fleet.is_alive(&NodeId::new("n"))
        };
        for half in 0..=80 {
            assert!(at(half * 500, 1 + half / 20), "a heartbeat every 10 s, at {half}");
        }
        let died = (81..).find(|half| !at(half * 500, 5));
        assert_eq!(died, Some(140), "30 s after its last heartbeat at 40 s");
    }

    #[test]
    fn a_node_far_from_the_ledger_gets_time_to_replace_its_connections() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let far =
            NodeRecord { round_trip: Duration::from_millis(128), ..record("n", "default", 1, 1) };
        fleet.observe(at(0), &[far]);
        let gone = BTreeSet::from([NodeId::new("n")]);
        let died = (0..).step_by(20).find(|ms| !fleet.connections_lost(at(*ms), &gone).is_empty());
        assert_eq!(died, Some(1_540), "twelve round trips");
    }

    #[test]
    fn lost_connections_do_not_prove_the_death_of_a_node_with_exclusive_tasks() {
        let exclusive =
            LivenessTerms { exclusive: vec!["noop".into()], ..LivenessTerms::default() };
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let gone = BTreeSet::from([NodeId::new("n")]);
        for half in 0..10 {
            fleet.observe(at(half * 500), &[announcing(exclusive.clone(), 1)]);
            assert_eq!(fleet.connections_lost(at(half * 500), &gone), BTreeSet::new());
        }
        fleet.observe(at(5_000), &[announcing(exclusive, 1)]);
        assert!(!fleet.is_alive(&NodeId::new("n")), "by then it has stopped its exclusive tasks");
    }

    #[test]
    fn a_node_that_was_taken_for_dead_and_sends_a_heartbeat_is_alive_again() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let id = NodeId::new("n");
        let gone = BTreeSet::from([id.clone()]);
        fleet.observe(at(0), &[record("n", "default", 2, 1)]);
        fleet.connections_lost(at(0), &gone);
        assert_eq!(fleet.connections_lost(at(100), &gone), BTreeSet::from(["default".to_owned()]));
        assert_eq!(fleet.dead().collect::<Vec<_>>(), [(&id, at(1))]);
        assert_eq!(fleet.connections_lost(at(200), &gone), BTreeSet::new(), "it died once");
        assert!(fleet.observe(at(300), &[record("n", "default", 2, 2)]).capacity);
        assert!(fleet.is_alive(&id));
        assert_eq!(
            fleet.connections_lost(at(350), &gone),
            BTreeSet::new(),
            "the timer starts again"
        );
    }

    #[test]
    fn a_death_that_was_watched_needs_no_silence_and_no_heartbeat_undoes_it() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let beat = |at| record("n", "default", 2, at);
        fleet.observe(at(0), &[beat(1)]);
        let killed = |at| NodeRecord { death: Some("SIGKILL".into()), ..beat(at) };
        assert!(fleet.observe(at(10), &[killed(1)]).capacity);
        let id = NodeId::new("n");
        assert_eq!((fleet.dead().next(), fleet.death(&id)), (Some((&id, at(1))), Some("SIGKILL")));
        assert!(!fleet.observe(at(20), &[killed(2)]).capacity, "a heartbeat that was on its way");
        assert!(!fleet.is_alive(&id));
    }

    #[test]
    fn a_node_that_sends_heartbeats_is_not_dead() {
        dies_after(10, 0, None);
    }

    #[test]
    fn time_without_reads_proves_no_death() {
        assert_eq!(first_death(3, 0, 20..50), None);
    }

    #[test]
    fn time_without_reads_is_no_silence() {
        // Silent from second 10; no reads for 20 seconds from 12 on, of which one counts.
        assert_eq!(first_death(3, 1, 12..32), Some(34.5));
    }

    #[test]
    fn a_heartbeat_revives_a_node_and_a_drain_takes_its_slots_away() {
        let mut fleet = Fleet::new(Duration::from_secs(1));
        for ms in [0, 1_000] {
            fleet.observe(Timestamp::from_millis(ms), &[record("n", "gpu", 4, 7)]);
        }
        let dead = (&NodeId::new("n"), Timestamp::from_millis(7));
        assert_eq!(fleet.dead().collect::<Vec<_>>(), [dead]);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Capacity::default());
        let changes = fleet.observe(Timestamp::from_millis(1_500), &[record("n", "gpu", 4, 8)]);
        assert!(changes.capacity);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Capacity { workers: 1, slots: 4 });
        assert_eq!(fleet.takers(&PoolKey::shared("default")).0, Capacity::default());
        let mut draining = record("n", "gpu", 4, 9);
        Arc::make_mut(&mut draining.info).state = NodeState::Draining;
        assert!(fleet.observe(Timestamp::from_millis(2_000), &[draining]).capacity);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Capacity::default());
        fleet.observe(Timestamp::from_millis(2_500), &[]);
        assert!(!fleet.is_listed(&NodeId::new("n")));
    }
}
