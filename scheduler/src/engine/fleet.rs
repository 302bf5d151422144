//! Which workers live, and which have fallen silent for too long.
//!
//! Silence is counted on our own clock, and only over time in which our own reads of the ledger
//! worked: a ledger that froze, or a paused machine of ours, kills nobody. Nor does a ledger that
//! takes no writes (`contact`): nobody is judged meanwhile, and all count from anew afterwards.
//!
//! Each worker is judged by its own terms, where it announces some: it may send heartbeats more
//! rarely than we would, and be further away. Deliberately absent: what is done about the dead (see
//! `recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_ledger::Holder;
use longshore_protocol::{JobId, NodeId, NodeInfo, NodeRecord, Timestamp};

use super::holders::Word;
use super::node::Node;
use super::pool::PoolKey;
use super::window::Hands;

/// Between two reads at most this much counts as silence; more means that we could not listen.
/// Twice and more the usual interval of the reads, so that ordinary delays count fully.
const LONGEST_LISTEN: Duration = Duration::from_secs(1);

/// From so many nodes on, silence of many at once points at something that they share rather than
/// at them.
const CROWD: usize = 4;

/// The part of a crowd that counts as many, per cent.
const MANY_PERCENT: usize = 30;

/// The workers as far as one scheduler knows.
#[derive(Debug)]
pub(super) struct Fleet {
    dead_after: Duration,
    nodes: BTreeMap<NodeId, Node>,
    read_at: Option<Timestamp>,
    /// Whether silence means anything now.
    judges: bool,
    /// For each queue the tasks that all who take chunks of it can run.
    common: BTreeMap<String, BTreeSet<String>>,
    /// Whether any node is out of rotation for a task.
    has_isolated: bool,
}

/// What a look at the list of workers brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Whether anybody who takes work came or went, or changed what it takes.
    pub(super) hands: bool,
    /// What those took work from that died of their silence.
    pub(super) silent_queues: BTreeSet<String>,
    /// What those took work from that left, or whose death somebody watched.
    pub(super) gone_queues: BTreeSet<String>,
}

impl Fleet {
    /// Nobody yet.
    pub(super) fn new(dead_after: Duration) -> Self {
        Self {
            dead_after,
            nodes: BTreeMap::new(),
            read_at: None,
            judges: true,
            common: BTreeMap::new(),
            has_isolated: false,
        }
    }

    /// Whether workers can send heartbeats, so that those that are silent for too long are dead.
    pub(super) fn judge_silence(&mut self, can_beat: bool) {
        self.judges = can_beat;
    }

    /// An outage of the ledger is over: all have the whole of `dead_after` for their next heartbeat.
    pub(super) fn pardon(&mut self) {
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
            changes.hands |= self.hear(record, listened);
            listed.insert(id);
        }
        self.nodes.retain(|id, node| {
            let stays = listed.contains(id);
            if !stays && !node.dead {
                changes.gone_queues.extend(node.info.queues.iter().cloned());
                changes.hands = true;
            }
            stays
        });
        if self.judges {
            changes.silent_queues = self.judge();
        }
        changes.hands |= !changes.silent_queues.is_empty();
        if changes.hands {
            self.compare_tasks();
        }
        changes
    }

    /// Finds for each queue what all who take chunks of it can run.
    fn compare_tasks(&mut self) {
        self.common.clear();
        self.has_isolated = self.nodes.values().any(|node| !node.isolated.is_empty());
        for node in self.nodes.values().filter(|node| node.is_open()) {
            let is_common = |task: &String| node.can_run(task);
            for queue in &node.info.queues {
                match self.common.get_mut(queue) {
                    Some(common) => common.retain(is_common),
                    None => {
                        let tasks = node.info.tasks.iter().filter(|task| is_common(task));
                        self.common.insert(queue.clone(), tasks.cloned().collect());
                    }
                }
            }
        }
    }

    /// One node's record; tells whether it changed what can be handed out.
    fn hear(&mut self, record: &NodeRecord, listened: Duration) -> bool {
        let NodeRecord { info, beat_at, death, isolated, .. } = record;
        let Some(node) = self.nodes.get_mut(&info.id) else {
            self.nodes.insert(info.id.clone(), Node::new(record, 1));
            return true;
        };
        let was_dead = node.dead;
        let changed = node.info.slots != info.slots
            || node.info.state != info.state
            || node.info.queues != info.queues
            || node.info.tasks != info.tasks
            || node.isolated != *isolated;
        if node.beat_at == *beat_at {
            node.silent += listened;
            node.dead |= death.is_some();
            node.death.clone_from(death);
            node.isolated.clone_from(isolated);
        } else {
            let probed = node.probed;
            *node = Node { probed, ..Node::new(record, node.beats + 1) };
        }
        changed || node.dead != was_dead
    }

    /// Takes in whose hearts are severed as of `now`; gives the queues of those that died of it.
    pub(super) fn severed(
        &mut self,
        now: Timestamp,
        severed: &BTreeSet<NodeId>,
    ) -> BTreeSet<String> {
        let mut queues = BTreeSet::new();
        let judged = |node: &Node| !node.dead && node.ends_with_its_connections();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| judged(node)) {
            node.dead = node.severance.look(now, severed.contains(id), node.round_trip);
            node.disconnected_at = node.dead.then_some(now);
            queues.extend(node.dead.then_some(&node.info.queues).into_iter().flatten().cloned());
        }
        if !queues.is_empty() {
            self.compare_tasks();
        }
        queues
    }

    /// Declares dead whoever has been silent for too long; gives their queues.
    fn judge(&mut self) -> BTreeSet<String> {
        let ours = self.dead_after;
        let alive = self.nodes.values().filter(|node| !node.dead).count();
        let suspects = self.nodes.values().filter(|node| node.is_suspect(ours)).count();
        if alive >= CROWD && suspects * 100 > alive * MANY_PERCENT {
            for node in self.nodes.values_mut() {
                node.spared |= node.is_suspect(ours);
            }
        }
        let mut queues = BTreeSet::new();
        for node in self.nodes.values_mut().filter(|node| !node.dead) {
            node.dead = node.silent >= node.dead_after(ours);
            queues.extend(node.dead.then_some(&node.info.queues).into_iter().flatten().cloned());
        }
        queues
    }

    /// Those that are taken for dead and are still on the list, with their last heartbeat.
    pub(super) fn dead(&self) -> impl Iterator<Item = (&NodeId, Timestamp)> {
        self.nodes.iter().filter(|(_, node)| node.dead).map(|(id, node)| (id, node.beat_at))
    }

    /// When the connections of a node were found gone for too long, by our clock.
    pub(super) fn disconnected_at(&self, id: &NodeId) -> Option<Timestamp> {
        self.nodes.get(id)?.disconnected_at
    }

    /// Whether a node was on the list when it was read last.
    pub(super) fn is_listed(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    /// What a node that is on the list said of itself last.
    pub(super) fn info(&self, id: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id).map(|node| &*node.info)
    }

    /// How a node's process ended, if somebody watched it.
    pub(super) fn death(&self, id: &NodeId) -> Option<&str> {
        self.nodes.get(id)?.death.as_deref()
    }

    /// Whether a node is on the list and was not declared dead.
    pub(super) fn is_alive(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| !node.dead)
    }

    /// Whether the last heartbeat of a node names this job among those that it held chunks of; `None` if it names none ever.
    pub(super) fn names(&self, id: &NodeId, job: JobId) -> Option<bool> {
        self.nodes.get(id)?.info.jobs.as_ref().map(|jobs| jobs.contains(&job))
    }

    /// How often we have heard a node.
    pub(super) fn beats(&self, id: &NodeId) -> Option<u64> {
        self.nodes.get(id).map(|node| node.beats)
    }

    /// What the living among the holders of a job said last.
    pub(super) fn words<'a>(&self, job: JobId, holders: &'a [Holder]) -> Vec<Word<'a>> {
        let living = holders.iter().filter(|holder| self.is_alive(&holder.node));
        let word = |holder: &'a Holder| Word {
            beats: self.nodes[&holder.node].beats,
            names: self.names(&holder.node, job),
            holder,
        };
        living.map(word).collect()
    }

    /// Whether some who take chunks of a queue can't run a task. Without anybody it is open who will come.
    pub(super) fn lacks(&self, queue: &str, task: &str) -> bool {
        self.common.get(queue).is_some_and(|common| !common.contains(task))
    }

    /// Whether others than this node can run a task from each of its queues.
    pub(super) fn has_others(&self, id: &NodeId, task: &str) -> bool {
        let Some(Node { info, .. }) = self.nodes.get(id) else { return false };
        let can_run = |queue: &String| {
            self.nodes
                .iter()
                .any(|(other, node)| other != id && node.takes_from(queue) && node.can_run(task))
        };
        info.queues.iter().all(can_run)
    }

    /// The nodes that take chunks of a queue and are out of rotation for a task, in the order of names.
    pub(super) fn isolated(&self, queue: &str, task: &str) -> Vec<NodeId> {
        if !self.has_isolated {
            return Vec::new();
        }
        let is_out = |node: &Node| node.isolation(task).is_some() && node.takes_from(queue);
        self.nodes.iter().filter(|(_, node)| is_out(node)).map(|(id, _)| id.clone()).collect()
    }

    /// A node among `absolved` whose time it is to get a chunk of a task for which it is out of rotation: one between two heartbeats.
    pub(super) fn probe(
        &mut self,
        queue: &str,
        task: &str,
        ledger_now: Timestamp,
        absolved: &[NodeId],
    ) -> Option<NodeId> {
        absolved.iter().find_map(|id| {
            let node = self.nodes.get_mut(id)?;
            let is_due = node.isolation(task)?.until <= ledger_now && node.probed < node.beats;
            if !is_due || !node.has_task(task) || !node.takes_from(queue) {
                return None;
            }
            node.probed = node.beats;
            Some(id.clone())
        })
    }

    /// Who takes chunks of a pool, in the order of names.
    pub(super) fn takers(&self, pool: &PoolKey) -> (Hands, Vec<NodeId>) {
        let mut hands = Hands::default();
        let mut ids = Vec::new();
        for (id, node) in &self.nodes {
            let is_able = pool.task.as_ref().is_none_or(|task| node.can_run(task));
            if is_able && node.takes_from(&pool.queue) {
                hands.workers += 1;
                hands.slots += u64::from(node.info.slots);
                ids.push(id.clone());
            }
        }
        (hands, ids)
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

    /// The same of a worker that announces terms.
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

    /// `nodes` workers beat once a second; from second 10 on the first `silent` of them are silent.
    /// We read twice a second, but not in `deaf` (seconds). Gives the second in which the first was
    /// declared dead.
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
                assert_eq!(fleet.dead().count(), silent, "only those who are silent die");
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
    fn a_crowd_that_falls_silent_together_gets_twice_the_time_once() {
        dies_after(10, 4, Some(10.0));
        dies_after(4, 4, Some(10.0));
    }

    /// Looks at a worker's heart at these times (ms; severed or not); tells when it died.
    #[track_caller]
    fn dies_at(looks: &[(u64, bool)], expected: Option<u64>) {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let [worker, other] = ["worker", "other"].map(|name| record(name, "default", 1, 1));
        fleet.observe(Timestamp::from_millis(0), &[worker.clone(), other]);
        let died = looks.iter().find(|(ms, severed)| {
            let severed = severed.then(|| worker.info.id.clone()).into_iter().collect();
            !fleet.severed(Timestamp::from_millis(*ms), &severed).is_empty()
        });
        assert_eq!(died.map(|(ms, _)| *ms), expected, "{looks:?}");
        assert!(fleet.is_alive(&NodeId::new("other")));
        assert_eq!(fleet.is_alive(&worker.info.id), expected.is_none());
    }

    #[test]
    fn a_node_whose_heart_stays_severed_is_dead_within_a_fraction_of_a_second() {
        dies_at(&[(0, false), (50, true), (100, true), (150, true)], Some(150));
        dies_at(&[(0, true), (900, true)], Some(900));
    }

    #[test]
    fn a_heart_that_was_replaced_is_a_blip() {
        dies_at(&[(0, true), (50, true), (99, false), (120, true), (170, true)], None);
    }

    #[test]
    fn a_worker_is_judged_by_the_terms_that_it_announces() {
        let [heartbeat, dead_after] = [10, 30].map(|s| Some(Duration::from_secs(s)));
        let terms = LivenessTerms { heartbeat, dead_after, exclusive: Vec::new() };
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let mut at = |ms: u64, beat_at| {
            fleet.observe(Timestamp::from_millis(ms), &[announcing(terms.clone(), beat_at)]);
            fleet.is_alive(&NodeId::new("n"))
        };
        for half in 0..=80 {
            assert!(at(half * 500, 1 + half / 20), "it beats every 10 s, at {half}");
        }
        let died = (81..).find(|half| !at(half * 500, 5));
        assert_eq!(died, Some(140), "30 s after its last beat at 40 s");
    }

    #[test]
    fn who_is_far_from_the_ledger_gets_time_to_replace_its_connections() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let far =
            NodeRecord { round_trip: Duration::from_millis(128), ..record("n", "default", 1, 1) };
        fleet.observe(at(0), &[far]);
        let severed = BTreeSet::from([NodeId::new("n")]);
        let died = (0..).step_by(20).find(|ms| !fleet.severed(at(*ms), &severed).is_empty());
        assert_eq!(died, Some(1_540), "twelve round trips");
    }

    #[test]
    fn who_has_exclusive_tasks_does_not_die_of_its_connections() {
        let exclusive =
            LivenessTerms { exclusive: vec!["noop".into()], ..LivenessTerms::default() };
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let severed = BTreeSet::from([NodeId::new("n")]);
        for half in 0..10 {
            fleet.observe(at(half * 500), &[announcing(exclusive.clone(), 1)]);
            assert_eq!(fleet.severed(at(half * 500), &severed), BTreeSet::new());
        }
        fleet.observe(at(5_000), &[announcing(exclusive, 1)]);
        assert!(!fleet.is_alive(&NodeId::new("n")), "by then it has stopped them");
    }

    #[test]
    fn who_was_taken_for_severed_and_beats_lives_again() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let id = NodeId::new("n");
        let severed = BTreeSet::from([id.clone()]);
        fleet.observe(at(0), &[record("n", "default", 2, 1)]);
        fleet.severed(at(0), &severed);
        assert_eq!(fleet.severed(at(100), &severed), BTreeSet::from(["default".to_owned()]));
        assert_eq!(fleet.dead().collect::<Vec<_>>(), [(&id, at(1))]);
        assert_eq!(fleet.severed(at(200), &severed), BTreeSet::new(), "it died once");
        assert!(fleet.observe(at(300), &[record("n", "default", 2, 2)]).hands);
        assert!(fleet.is_alive(&id));
        assert_eq!(fleet.severed(at(350), &severed), BTreeSet::new(), "it counts from anew");
    }

    #[test]
    fn a_death_that_was_watched_needs_no_silence_and_no_beat_undoes_it() {
        let mut fleet = Fleet::new(Duration::from_secs(5));
        let at = Timestamp::from_millis;
        let beat = |at| record("n", "default", 2, at);
        fleet.observe(at(0), &[beat(1)]);
        let killed = |at| NodeRecord { death: Some("SIGKILL".into()), ..beat(at) };
        assert!(fleet.observe(at(10), &[killed(1)]).hands);
        let id = NodeId::new("n");
        assert_eq!((fleet.dead().next(), fleet.death(&id)), (Some((&id, at(1))), Some("SIGKILL")));
        assert!(!fleet.observe(at(20), &[killed(2)]).hands, "a beat that was on its way");
        assert!(!fleet.is_alive(&id));
    }

    #[test]
    fn nobody_dies_who_beats() {
        dies_after(10, 0, None);
    }

    #[test]
    fn time_in_which_we_could_not_read_kills_nobody() {
        assert_eq!(first_death(3, 0, 20..50), None);
    }

    #[test]
    fn time_in_which_we_could_not_read_is_no_silence() {
        // Silent from second 10; at 12 we go deaf for 20 seconds, of which one counts.
        assert_eq!(first_death(3, 1, 12..32), Some(34.5));
    }

    #[test]
    fn a_beat_revives_and_a_drain_takes_the_slots_away() {
        let mut fleet = Fleet::new(Duration::from_secs(1));
        for ms in [0, 1_000] {
            fleet.observe(Timestamp::from_millis(ms), &[record("n", "gpu", 4, 7)]);
        }
        let dead = (&NodeId::new("n"), Timestamp::from_millis(7));
        assert_eq!(fleet.dead().collect::<Vec<_>>(), [dead]);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Hands::default());
        let changes = fleet.observe(Timestamp::from_millis(1_500), &[record("n", "gpu", 4, 8)]);
        assert!(changes.hands);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Hands { workers: 1, slots: 4 });
        assert_eq!(fleet.takers(&PoolKey::shared("default")).0, Hands::default());
        let mut draining = record("n", "gpu", 4, 9);
        Arc::make_mut(&mut draining.info).state = NodeState::Draining;
        assert!(fleet.observe(Timestamp::from_millis(2_000), &[draining]).hands);
        assert_eq!(fleet.takers(&PoolKey::shared("gpu")).0, Hands::default());
        fleet.observe(Timestamp::from_millis(2_500), &[]);
        assert!(!fleet.is_listed(&NodeId::new("n")));
    }
}
