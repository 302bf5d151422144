//! Decides which nodes are taken out of rotation for a task, and when they are readmitted.
//!
//! A node is isolated because subtasks fail there that succeed elsewhere. The evidence is in what
//! workers announce: a success of a subtask that had failed on other nodes *clears* that subtask of
//! suspicion, and counts against these nodes. A node is compared with the others by the part of its
//! newest attempts that were cleared elsewhere. Each node reports its own successes with its own
//! heartbeats, so what was cleared elsewhere counts once a later heartbeat of the node has come:
//! until then its own successes in the meantime are not known. A job that fails everywhere and a
//! bad input clear no subtask; a task that fails by chance does so on all nodes alike. The decision
//! is kept in the ledger with the node, so that all schedulers place alike; one of them decides
//! about each node.
//!
//! After a pause an isolated node gets a chunk now and then. It is readmitted once they succeed,
//! and isolated for longer when they do not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_protocol::{Isolation, NodeId, NodeRecord, TaskRecord, Timestamp};

/// How many of the newest attempts of each node count.
const WINDOW: f64 = 64.0;

/// A node is isolated for no fewer subtasks that succeeded elsewhere than this, ...
const LEAST_CLEARED: f64 = 6.0;

/// ... which are at least this part of its attempts, ...
const LEAST_PART: f64 = 0.5;

/// ... and this many times the part that is usual on other nodes, ...
const TIMES_THE_OTHERS: f64 = 4.0;

/// ... when chance would do that less than once in 30,000 times: this many standard deviations.
const CLEAR: f64 = 4.0;

/// First and longest time before an isolated node is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// How many attempts have to succeed on a node that is tried again before it is readmitted.
const PROOF: f64 = 4.0;

/// The outcomes of a node's newest attempts at a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    done: f64,
    cleared: f64,
}

impl Window {
    fn size(self) -> f64 {
        self.done + self.cleared
    }

    /// The part of the attempts whose subtasks succeeded elsewhere.
    fn part(self) -> f64 {
        if self.size() > 0.0 { self.cleared / self.size() } else { 0.0 }
    }

    fn add(&mut self, done: u64, cleared: u64) {
        self.done += done as f64;
        self.cleared += cleared as f64;
        let excess = self.size() / WINDOW;
        if excess > 1.0 {
            self.done /= excess;
            self.cleared /= excess;
        }
    }

    /// Whether most of the subtasks succeeded elsewhere, be the evidence clear or not.
    fn is_doubtful(self) -> bool {
        self.cleared >= 1.0 && self.part() >= LEAST_PART
    }

    /// Whether the node stands out from the others.
    fn stands_out(self, others: Self) -> bool {
        if self.cleared < LEAST_CLEARED || others.size() < LEAST_CLEARED {
            return false;
        }
        let (own, usual) = (self.part(), others.part());
        let pooled = (self.cleared + others.cleared) / (self.size() + others.size());
        let deviation =
            (pooled * (1.0 - pooled) * (1.0 / self.size() + 1.0 / others.size())).sqrt();
        own >= LEAST_PART && own >= TIMES_THE_OTHERS * usual && own - usual >= CLEAR * deviation
    }
}

/// The evidence that one scheduler has seen.
#[derive(Debug, Default)]
pub(super) struct IsolationJudge {
    /// By task and node.
    windows: BTreeMap<String, BTreeMap<NodeId, Window>>,
    /// The subtasks of each node that were cleared elsewhere since the node's last heartbeat, by
    /// node and task.
    waiting: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// The last heartbeat of each worker, ...
    beat_at: BTreeMap<NodeId, Timestamp>,
    /// ... and what the worker announced with it.
    heard: BTreeMap<NodeId, BTreeMap<String, TaskRecord>>,
    /// Since when nodes are isolated for tasks: their windows were emptied then.
    since: BTreeMap<(NodeId, String), Timestamp>,
}

/// A node, and all tasks for which it is to be out of rotation.
pub(super) type Verdict = (NodeId, Vec<Isolation>);

impl IsolationJudge {
    /// Takes in the ledger's list of workers as read at `now` by the ledger's clock. Nothing counts
    /// against an isolated node until it is tried again: what failed there before is still being
    /// cleared elsewhere.
    pub(super) fn observe(&mut self, now: Timestamp, records: &[NodeRecord]) {
        let listed: BTreeSet<&NodeId> = records.iter().map(|record| &record.info.id).collect();
        self.heard.retain(|id, _| listed.contains(id));
        self.beat_at.retain(|id, _| listed.contains(id));
        self.waiting.retain(|id, _| listed.contains(id));
        self.since.retain(|(id, _), _| listed.contains(id));
        for windows in self.windows.values_mut() {
            windows.retain(|id, _| listed.contains(id));
        }
        self.windows.retain(|_, windows| !windows.is_empty());
        for NodeRecord { info, beat_at, .. } in records {
            if self.beat_at.insert(info.id.clone(), *beat_at) != Some(*beat_at) {
                for (task, cleared) in self.waiting.remove(&info.id).unwrap_or_default() {
                    self.window(&task, &info.id).add(0, cleared);
                }
            }
        }
        for NodeRecord { info, .. } in records {
            info.records.iter().for_each(|record| self.count(&info.id, record, &listed));
        }
        for NodeRecord { info, isolated, .. } in records {
            for Isolation { task, since, until, .. } in isolated {
                let key = (info.id.clone(), task.clone());
                if self.since.insert(key, *since) != Some(*since) || now < *until {
                    *self.window(task, &info.id) = Window::default();
                    self.waiting.get_mut(&info.id).and_then(|tasks| tasks.remove(task));
                }
            }
            let is_isolated = |task: &String| isolated.iter().any(|it| it.task == *task);
            self.since.retain(|(id, task), _| *id != info.id || is_isolated(task));
        }
    }

    fn count(&mut self, me: &NodeId, record: &TaskRecord, listed: &BTreeSet<&NodeId>) {
        let known = self.heard.entry(me.clone()).or_default();
        let before = known.insert(record.task.clone(), record.clone());
        if before.as_ref() == Some(record) {
            return;
        }
        let old = |id: &NodeId| before.as_ref().and_then(|it| it.cleared.get(id)).copied();
        let done = before.as_ref().map_or(0, |it| it.done);
        self.window(&record.task, me).add(record.done.saturating_sub(done), 0);
        for (id, cleared) in record.cleared.iter().filter(|(id, _)| listed.contains(id)) {
            let more = cleared.saturating_sub(old(id).unwrap_or_default());
            let waiting = self.waiting.entry((*id).clone()).or_default();
            *waiting.entry(record.task.clone()).or_default() += more;
        }
    }

    fn window(&mut self, task: &str, node: &NodeId) -> &mut Window {
        if !self.windows.contains_key(task) {
            self.windows.insert(task.to_owned(), BTreeMap::new());
        }
        let windows = self.windows.get_mut(task).expect("it was put there if it was missing");
        windows.entry(node.clone()).or_default()
    }

    /// Whether subtasks that fail on the node mostly succeed elsewhere, be the evidence clear or
    /// not: retries go to other nodes first.
    pub(super) fn is_doubtful(&self, task: &str, node: &NodeId) -> bool {
        let window = self.windows.get(task).and_then(|windows| windows.get(node));
        window.is_some_and(|window| window.is_doubtful())
    }

    /// What is to change about one node. `may_isolate` says whether others can run a task wherever
    /// the node takes chunks.
    pub(super) fn judge(
        &self,
        now: Timestamp,
        record: &NodeRecord,
        may_isolate: impl Fn(&str) -> bool,
    ) -> Option<Verdict> {
        let id = &record.info.id;
        let mut isolated = record.isolated.clone();
        isolated.retain(|isolation| {
            let window = self.of(&isolation.task, id);
            let is_proven = window.done >= PROOF && !window.is_doubtful();
            may_isolate(&isolation.task) && !(isolation.until <= now && is_proven)
        });
        for isolation in &mut isolated {
            let window = self.of(&isolation.task, id);
            if isolation.until <= now && window.is_doubtful() {
                *isolation = isolation_of(&isolation.task, now, window, isolation.times + 1);
            }
        }
        for (task, windows) in &self.windows {
            let Some(own) = windows.get(id) else { continue };
            let is_isolated = isolated.iter().any(|isolation| isolation.task == *task);
            if is_isolated || !own.stands_out(others(windows, id)) || !may_isolate(task) {
                continue;
            }
            isolated.push(isolation_of(task, now, *own, 1));
        }
        (isolated != record.isolated).then(|| (id.clone(), isolated))
    }

    fn of(&self, task: &str, node: &NodeId) -> Window {
        let windows = self.windows.get(task);
        windows.and_then(|windows| windows.get(node)).copied().unwrap_or_default()
    }
}

/// The windows of all other nodes together, but for nodes where nothing succeeds: they say nothing
/// about what is usual.
fn others(windows: &BTreeMap<NodeId, Window>, id: &NodeId) -> Window {
    let is_measure = |window: &Window| window.cleared < LEAST_CLEARED || window.done > 0.0;
    let mut all = Window::default();
    for (_, window) in windows.iter().filter(|(other, it)| *other != id && is_measure(it)) {
        all.done += window.done;
        all.cleared += window.cleared;
    }
    all
}

fn isolation_of(task: &str, now: Timestamp, window: Window, times: u32) -> Isolation {
    let pause = FIRST_PAUSE * 2_u32.saturating_pow(times.min(16) - 1);
    Isolation {
        task: task.to_owned(),
        since: now,
        until: now.plus(pause.min(LONGEST_PAUSE)),
        cleared: window.cleared.round() as u64,
        done: window.done.round() as u64,
        times,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fleet::tests::record;
    use super::*;

    /// What a worker has announced: (name, done, [(other, cleared)]).
    type Announced<'a> = (&'a str, u64, &'a [(&'a str, u64)]);

    fn records(announced: &[Announced<'_>]) -> Vec<NodeRecord> {
        records_at(1, announced)
    }

    /// The records with heartbeats of this time.
    fn records_at(beat_at: u64, announced: &[Announced<'_>]) -> Vec<NodeRecord> {
        let one = |(name, done, cleared): &Announced<'_>| {
            let mut record = record(name, "default", 1, beat_at);
            let cleared = cleared.iter().map(|(other, count)| (NodeId::new(*other), *count));
            let cleared = cleared.collect();
            let announced = TaskRecord { task: "noop".into(), done: *done, failed: 1, cleared };
            Arc::make_mut(&mut record.info).records = vec![announced];
            record
        };
        announced.iter().map(one).collect()
    }

    /// Observes these records, and another heartbeat of each node.
    fn observe(judge: &mut IsolationJudge, now: Timestamp, records: &[NodeRecord]) {
        judge.observe(now, records);
        let next = |record: &NodeRecord| {
            let beat_at = record.beat_at.plus(Duration::from_millis(1));
            NodeRecord { beat_at, ..record.clone() }
        };
        judge.observe(now, &records.iter().map(next).collect::<Vec<_>>());
    }

    fn isolated(judge: &IsolationJudge, records: &[NodeRecord]) -> Vec<String> {
        let now = Timestamp::from_millis(1_000);
        let verdicts = records.iter().filter_map(|record| judge.judge(now, record, |_| true));
        verdicts.map(|(id, _)| id.to_string()).collect()
    }

    #[track_caller]
    fn are_isolated(announced: &[Announced<'_>], expected: &[&str]) {
        let (mut judge, records) = (IsolationJudge::default(), records(announced));
        observe(&mut judge, Timestamp::default(), &records);
        assert_eq!(isolated(&judge, &records), expected);
    }

    #[test]
    fn a_node_where_subtasks_fail_that_succeed_elsewhere_stands_out() {
        are_isolated(
            &[("bad", 0, &[]), ("a", 10, &[("bad", 4)]), ("b", 9, &[("bad", 5)])],
            &["bad"],
        );
        // Two of five.
        let announced: &[Announced<'_>] = &[
            ("bad", 0, &[]),
            ("worse", 0, &[]),
            ("a", 20, &[("bad", 9), ("worse", 7)]),
            ("b", 20, &[("bad", 9), ("worse", 7)]),
            ("c", 20, &[]),
        ];
        are_isolated(announced, &["bad", "worse"]);
        // All succeeded for long, and the evidence is new.
        are_isolated(&[("bad", 60, &[]), ("a", 9_000, &[("bad", 600)])], &["bad"]);
    }

    #[test]
    fn neither_bad_inputs_nor_a_flaky_task_nor_a_few_failures_stand_out() {
        are_isolated(&[("a", 0, &[]), ("b", 0, &[])], &[]);
        are_isolated(&[("bad", 0, &[]), ("a", 100, &[("bad", 5)])], &[]);
        are_isolated(&[("a", 40, &[("b", 30)]), ("b", 40, &[("a", 30)])], &[]);
        are_isolated(&[("a", 40, &[("b", 5)]), ("b", 40, &[("a", 20)])], &[]);
        are_isolated(&[("slips", 50, &[]), ("a", 500, &[("slips", 14)])], &[]);
        // No other node succeeds.
        are_isolated(&[("a", 0, &[("b", 20)]), ("b", 0, &[("a", 20)])], &[]);
    }

    #[test]
    fn what_was_cleared_elsewhere_counts_with_the_next_heartbeat_of_the_node() {
        let mut judge = IsolationJudge::default();
        let (at, now) = (Timestamp::from_millis, Timestamp::default());
        // All do equally well, and one reports more rarely.
        let first: &[Announced<'_>] =
            &[("rare", 2, &[]), ("a", 30, &[("rare", 9)]), ("b", 30, &[])];
        let mut announced = records_at(1, first);
        judge.observe(now, &announced);
        for beat_at in 2..9 {
            let next: &[Announced<'_>] = &[("a", 60, &[("rare", 18)]), ("b", 60, &[])];
            announced.splice(1.., records_at(beat_at, next));
            judge.observe(now, &announced);
            assert_eq!(isolated(&judge, &announced), [""; 0]);
        }
        announced.splice(..1, records_at(9, &[("rare", 60, &[("a", 18), ("b", 18)])]));
        judge.observe(now, &announced);
        assert_eq!(isolated(&judge, &announced), [""; 0]);
        // One on which nothing succeeded stands out with its next heartbeat.
        let mut judge = IsolationJudge::default();
        let mut announced = records_at(1, &[("bad", 0, &[]), ("a", 30, &[("bad", 9)])]);
        judge.observe(now, &announced);
        assert_eq!(isolated(&judge, &announced), [""; 0]);
        announced[0].beat_at = at(2);
        judge.observe(now, &announced);
        assert_eq!(isolated(&judge, &announced), ["bad"]);
    }

    #[test]
    fn a_node_that_no_other_can_replace_is_not_isolated_or_is_readmitted() {
        let announced: &[Announced<'_>] = &[("bad", 0, &[]), ("a", 20, &[("bad", 20)])];
        let (mut judge, mut records) = (IsolationJudge::default(), records(announced));
        observe(&mut judge, Timestamp::default(), &records);
        let now = Timestamp::from_millis(1_000);
        assert_eq!(judge.judge(now, &records[0], |_| false), None);
        let (_, verdict) = judge.judge(now, &records[0], |_| true).expect("it stands out");
        records[0].isolated = verdict;
        observe(&mut judge, Timestamp::default(), &records);
        assert_eq!(judge.judge(now, &records[0], |_| true), None);
        let (_, verdict) = judge.judge(now, &records[0], |_| false).expect("no other node is left");
        assert_eq!(verdict, []);
    }

    #[test]
    fn an_isolated_node_is_readmitted_when_it_succeeds_and_isolated_for_longer_when_not() {
        let at = Timestamp::from_millis;
        let (mut judge, first) =
            (IsolationJudge::default(), records(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        observe(&mut judge, Timestamp::default(), &first);
        let (_, verdict) = judge.judge(at(1_000), &first[0], |_| true).expect("it stands out");
        assert_eq!((verdict[0].since, verdict[0].until), (at(1_000), at(11_000)));
        let then = |announced: &[Announced<'_>]| {
            let mut records = records(announced);
            records[0].isolated.clone_from(&verdict);
            records
        };
        observe(&mut judge, at(2_000), &then(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        let fails = then(&[("bad", 0, &[]), ("a", 21, &[("bad", 21)])]);
        let mut sick = IsolationJudge::default();
        observe(&mut sick, Timestamp::default(), &first);
        observe(&mut sick, at(2_000), &then(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        observe(&mut sick, at(12_000), &fails);
        assert_eq!(sick.judge(at(10_999), &fails[0], |_| true), None);
        let (_, again) = sick.judge(at(12_000), &fails[0], |_| true).expect("it failed again");
        assert_eq!((again[0].times, again[0].until), (2, at(32_000)));
        let succeeds = then(&[("bad", 4, &[]), ("a", 20, &[("bad", 20)])]);
        observe(&mut judge, at(12_000), &succeeds);
        let (_, well) = judge.judge(at(12_000), &succeeds[0], |_| true).expect("it succeeds");
        assert_eq!(well, []);
    }
}
