//! Which nodes are out of rotation for a task, because subtasks fail there that succeed elsewhere.
//!
//! The evidence is in what workers announce: of each success of a subtask that had failed on other nodes these are *cleared* of it.
//! A node is compared with the others by the part of its newest attempts that were cleared. Each node tells of its own successes
//! with its own heartbeats, so what clears it counts once a later one of it has come: until then nobody knows what succeeded
//! on it in the meantime. A job that fails everywhere and an
//! input that is bad clear nobody; a task that fails by chance does so on all nodes alike. What is decided is kept in the
//! ledger with the node, so that all schedulers hand out alike; one of them decides about each node.
//!
//! After a pause an isolated node gets a chunk now and then. It is readmitted once they succeed, and isolated for longer when
//! they do not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_protocol::{Isolation, NodeId, NodeRecord, TaskRecord, Timestamp};

/// So many of the newest attempts of each node count.
const WINDOW: f64 = 64.0;

/// A node is isolated for no less than so many subtasks that succeeded elsewhere, ...
const LEAST_CLEARED: f64 = 6.0;

/// ... which are at least this part of its attempts, ...
const LEAST_PART: f64 = 0.5;

/// ... and so many times the part that is usual on other nodes, ...
const TIMES_THE_OTHERS: f64 = 4.0;

/// ... when chance would do that less than once in 30,000 times: so many standard deviations.
const CLEAR: f64 = 4.0;

/// First and longest time before an isolated node is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// So many attempts succeed on a node that is tried again before it is readmitted.
const PROOF: f64 = 4.0;

/// What came of a node's newest attempts at a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    done: f64,
    cleared: f64,
}

impl Window {
    fn size(self) -> f64 {
        self.done + self.cleared
    }

    /// The part that succeeded elsewhere.
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

    /// Whether most of it succeeded elsewhere, clear or not.
    fn is_doubtful(self) -> bool {
        self.cleared >= 1.0 && self.part() >= LEAST_PART
    }

    /// Whether it stands out from the others.
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

/// The evidence, as far as one scheduler has seen it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// By task and node.
    windows: BTreeMap<String, BTreeMap<NodeId, Window>>,
    /// What others cleared of each node's subtasks since its last heartbeat, by node and task.
    waiting: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// When the workers were heard last, ...
    beat_at: BTreeMap<NodeId, Timestamp>,
    /// ... and what they had announced then.
    heard: BTreeMap<NodeId, BTreeMap<String, TaskRecord>>,
    /// Since when nodes are isolated for tasks: their windows began anew then.
    since: BTreeMap<(NodeId, String), Timestamp>,
}

/// What is to be noted with a node.
pub(super) type Verdict = (NodeId, Vec<Isolation>);

impl Health {
    /// Takes in the ledger's list of workers as read at `now` by the ledger's clock. Of an isolated node nothing counts until it
    /// is tried again: what it failed before is still being cleared.
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
            let news = cleared.saturating_sub(old(id).unwrap_or_default());
            let waiting = self.waiting.entry((*id).clone()).or_default();
            *waiting.entry(record.task.clone()).or_default() += news;
        }
    }

    fn window(&mut self, task: &str, node: &NodeId) -> &mut Window {
        if !self.windows.contains_key(task) {
            self.windows.insert(task.to_owned(), BTreeMap::new());
        }
        let windows = self.windows.get_mut(task).expect("it was put there if it was missing");
        windows.entry(node.clone()).or_default()
    }

    /// Whether subtasks that fail on the node mostly succeed elsewhere, clear or not: retries go to others first.
    pub(super) fn is_doubtful(&self, task: &str, node: &NodeId) -> bool {
        let window = self.windows.get(task).and_then(|windows| windows.get(node));
        window.is_some_and(|window| window.is_doubtful())
    }

    /// What is to change about one node. `may_go` tells whether others can run a task wherever the node takes chunks.
    pub(super) fn judge(
        &self,
        now: Timestamp,
        record: &NodeRecord,
        may_go: impl Fn(&str) -> bool,
    ) -> Option<Verdict> {
        let id = &record.info.id;
        let mut isolated = record.isolated.clone();
        isolated.retain(|isolation| {
            let window = self.of(&isolation.task, id);
            let is_proven = window.done >= PROOF && !window.is_doubtful();
            may_go(&isolation.task) && !(isolation.until <= now && is_proven)
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
            if is_isolated || !own.stands_out(others(windows, id)) || !may_go(task) {
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

/// All others together, but for those of which nothing succeeds: they are no measure.
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

    /// What workers have announced: (name, done, [(other, cleared)]).
    type Told<'a> = (&'a str, u64, &'a [(&'a str, u64)]);

    fn records(told: &[Told<'_>]) -> Vec<NodeRecord> {
        records_at(1, told)
    }

    /// As told with a heartbeat at this time.
    fn records_at(beat_at: u64, told: &[Told<'_>]) -> Vec<NodeRecord> {
        let one = |(name, done, cleared): &Told<'_>| {
            let mut record = record(name, "default", 1, beat_at);
            let cleared = cleared.iter().map(|(other, count)| (NodeId::new(*other), *count));
            let cleared = cleared.collect();
            let told = TaskRecord { task: "noop".into(), done: *done, failed: 1, cleared };
            Arc::make_mut(&mut record.info).records = vec![told];
            record
        };
        told.iter().map(one).collect()
    }

    /// Hears of these, and of another heartbeat of each.
    fn hear(health: &mut Health, now: Timestamp, records: &[NodeRecord]) {
        health.observe(now, records);
        let next = |record: &NodeRecord| {
            let beat_at = record.beat_at.plus(Duration::from_millis(1));
            NodeRecord { beat_at, ..record.clone() }
        };
        health.observe(now, &records.iter().map(next).collect::<Vec<_>>());
    }

    fn isolated(health: &Health, records: &[NodeRecord]) -> Vec<String> {
        let now = Timestamp::from_millis(1_000);
        let verdicts = records.iter().filter_map(|record| health.judge(now, record, |_| true));
        verdicts.map(|(id, _)| id.to_string()).collect()
    }

    #[track_caller]
    fn are_isolated(told: &[Told<'_>], expected: &[&str]) {
        let (mut health, records) = (Health::default(), records(told));
        hear(&mut health, Timestamp::default(), &records);
        assert_eq!(isolated(&health, &records), expected);
    }

    #[test]
    fn a_node_on_which_fails_what_succeeds_elsewhere_stands_out() {
        are_isolated(
            &[("bad", 0, &[]), ("a", 10, &[("bad", 4)]), ("b", 9, &[("bad", 5)])],
            &["bad"],
        );
        // Two of five.
        let told: &[Told<'_>] = &[
            ("bad", 0, &[]),
            ("worse", 0, &[]),
            ("a", 20, &[("bad", 9), ("worse", 7)]),
            ("b", 20, &[("bad", 9), ("worse", 7)]),
            ("c", 20, &[]),
        ];
        are_isolated(told, &["bad", "worse"]);
        // It was well for long, and the evidence is new.
        are_isolated(&[("bad", 60, &[]), ("a", 9_000, &[("bad", 600)])], &["bad"]);
    }

    #[test]
    fn neither_bad_inputs_nor_a_flaky_task_nor_a_few_slips_stand_out() {
        are_isolated(&[("a", 0, &[]), ("b", 0, &[])], &[]);
        are_isolated(&[("bad", 0, &[]), ("a", 100, &[("bad", 5)])], &[]);
        are_isolated(&[("a", 40, &[("b", 30)]), ("b", 40, &[("a", 30)])], &[]);
        are_isolated(&[("a", 40, &[("b", 5)]), ("b", 40, &[("a", 20)])], &[]);
        are_isolated(&[("slips", 50, &[]), ("a", 500, &[("slips", 14)])], &[]);
        // Nobody else knows better.
        are_isolated(&[("a", 0, &[("b", 20)]), ("b", 0, &[("a", 20)])], &[]);
    }

    #[test]
    fn what_clears_a_node_counts_once_the_node_has_told_what_succeeded_on_it() {
        let mut health = Health::default();
        let (at, now) = (Timestamp::from_millis, Timestamp::default());
        // All do equally well, and one tells of it more rarely.
        let first: &[Told<'_>] = &[("rare", 2, &[]), ("a", 30, &[("rare", 9)]), ("b", 30, &[])];
        let mut told = records_at(1, first);
        health.observe(now, &told);
        for beat_at in 2..9 {
            let next: &[Told<'_>] = &[("a", 60, &[("rare", 18)]), ("b", 60, &[])];
            told.splice(1.., records_at(beat_at, next));
            health.observe(now, &told);
            assert_eq!(isolated(&health, &told), [""; 0]);
        }
        told.splice(..1, records_at(9, &[("rare", 60, &[("a", 18), ("b", 18)])]));
        health.observe(now, &told);
        assert_eq!(isolated(&health, &told), [""; 0]);
        // One on which nothing succeeded stands out with its next heartbeat.
        let mut health = Health::default();
        let mut told = records_at(1, &[("bad", 0, &[]), ("a", 30, &[("bad", 9)])]);
        health.observe(now, &told);
        assert_eq!(isolated(&health, &told), [""; 0]);
        told[0].beat_at = at(2);
        health.observe(now, &told);
        assert_eq!(isolated(&health, &told), ["bad"]);
    }

    #[test]
    fn who_can_not_be_replaced_is_not_isolated_or_is_readmitted() {
        let told: &[Told<'_>] = &[("bad", 0, &[]), ("a", 20, &[("bad", 20)])];
        let (mut health, mut records) = (Health::default(), records(told));
        hear(&mut health, Timestamp::default(), &records);
        let now = Timestamp::from_millis(1_000);
        assert_eq!(health.judge(now, &records[0], |_| false), None);
        let (_, verdict) = health.judge(now, &records[0], |_| true).expect("it stands out");
        records[0].isolated = verdict;
        hear(&mut health, Timestamp::default(), &records);
        assert_eq!(health.judge(now, &records[0], |_| true), None);
        let (_, verdict) = health.judge(now, &records[0], |_| false).expect("nobody is left");
        assert_eq!(verdict, []);
    }

    #[test]
    fn an_isolated_node_is_readmitted_when_it_succeeds_and_isolated_for_longer_when_not() {
        let at = Timestamp::from_millis;
        let (mut health, first) =
            (Health::default(), records(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        hear(&mut health, Timestamp::default(), &first);
        let (_, verdict) = health.judge(at(1_000), &first[0], |_| true).expect("it stands out");
        assert_eq!((verdict[0].since, verdict[0].until), (at(1_000), at(11_000)));
        let then = |told: &[Told<'_>]| {
            let mut records = records(told);
            records[0].isolated.clone_from(&verdict);
            records
        };
        hear(&mut health, at(2_000), &then(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        let fails = then(&[("bad", 0, &[]), ("a", 21, &[("bad", 21)])]);
        let mut sick = Health::default();
        hear(&mut sick, Timestamp::default(), &first);
        hear(&mut sick, at(2_000), &then(&[("bad", 0, &[]), ("a", 20, &[("bad", 20)])]));
        hear(&mut sick, at(12_000), &fails);
        assert_eq!(sick.judge(at(10_999), &fails[0], |_| true), None);
        let (_, again) = sick.judge(at(12_000), &fails[0], |_| true).expect("it failed again");
        assert_eq!((again[0].times, again[0].until), (2, at(32_000)));
        let succeeds = then(&[("bad", 4, &[]), ("a", 20, &[("bad", 20)])]);
        hear(&mut health, at(12_000), &succeeds);
        let (_, well) = health.judge(at(12_000), &succeeds[0], |_| true).expect("it is well");
        assert_eq!(well, []);
    }
}
