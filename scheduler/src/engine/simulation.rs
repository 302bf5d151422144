//! A world for the engine's tests: a real memory ledger on a clock that stands still unless told,
//! one work queue, workers that only pretend to work. Millisecond by millisecond, without threads,
//! the same each time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use longshore_broker::Queue;
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_ledger::{
    BeatParams, Claim, ClaimParams, Commit, CommitParams, DeclareLostParams, Events, Grant, Held,
    IsolateParams, Ledger, OpenParams, ReleaseParams, RevokeParams, SweepParams, Topic,
};
use longshore_protocol::{
    ChunkMessage, JobDocument, JobId, JobSummary, NodeId, OutcomeRun, SchedulerId, TaskRecord,
    Timestamp, Token,
};

use super::fleet::tests::record;
use super::*;

/// The ledger's clock is far from ours, as in life.
pub(super) const LEDGER_AHEAD_MS: u64 = 1_700_000_000_000;

/// How long a call to the ledger takes, there and back.
const LATENCY_MS: u64 = 1;

#[derive(Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed) + LEDGER_AHEAD_MS)
    }
}

/// How the ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Well,
    /// It answers nothing.
    Away,
    /// It answers questions, and revokes, but nothing else that writes.
    Full,
}

impl Condition {
    /// The job that this action asks about in vain.
    fn fails(self, action: &Action) -> Option<JobId> {
        match action {
            Action::Look { job } | Action::Study { job } | Action::AskHolders { job }
                if self == Self::Away =>
            {
                Some(*job)
            }
            Action::Sweep { job, .. }
            | Action::Open { job, .. }
            | Action::Copy { job, .. }
            | Action::Fail { job, .. }
            | Action::Archive { job }
                if self != Self::Well =>
            {
                Some(*job)
            }
            _ => None,
        }
    }
}

/// This scheduler signed in, and these are there.
fn signed_in(schedulers: &[&str], at_ms: u64) -> Event {
    let record = |name: &&str| super::peers::tests::record(name, at_ms);
    Event::Peers(schedulers.iter().map(record).collect())
}

/// A slot's work: until when (µs), and what.
struct Running {
    until_us: u64,
    since_us: u64,
    message: ChunkMessage,
    token: Token,
    attempt: u32,
    tried: Vec<NodeId>,
}

/// How many attempts a subtask has in all.
const ATTEMPTS: u32 = 3;

struct Node {
    id: NodeId,
    slots: Vec<Option<Running>>,
    /// Messages in its own queue.
    own: VecDeque<ChunkMessage>,
    alive: bool,
    /// It takes so many times as long as the others.
    slowness: u64,
    /// What it can run.
    tasks: Vec<String>,
    /// How many chunks it was granted and could not run.
    refused: usize,
    /// Every attempt fails at once.
    is_hole: bool,
    /// What came of its attempts.
    record: TaskRecord,
}

pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) engine: Engine,
    clock: Arc<ManualClock>,
    events: Box<dyn Events>,
    /// Hints get lost.
    pub(super) deaf: bool,
    now_ms: u64,
    answers: VecDeque<(u64, Event)>,
    queue: VecDeque<ChunkMessage>,
    nodes: Vec<Node>,
    /// Those that sign in: this one, and perhaps others.
    pub(super) schedulers: Vec<&'static str>,
    ledger_is: Condition,
    /// Until then no node beats or commits.
    idle_until: u64,
    /// Tasks of which no second copy may run.
    pub(super) non_speculative: Vec<String>,
    /// What each job is like: µs a subtask.
    takes_us: BTreeMap<JobId, u64>,
    /// When the first subtask of a job began, ms.
    pub(super) began_ms: BTreeMap<JobId, u64>,
    /// Sizes of the chunks of a job in the order of their claims.
    pub(super) sizes: BTreeMap<JobId, Vec<u64>>,
    pub(super) most_waiting: usize,
    /// Copies that were offered.
    pub(super) offered: usize,
    /// Questions how a job stands.
    pub(super) looks: usize,
    drawn: u128,
}

/// The answer of a future that never waits.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the memory ledger never waits")
}

impl World {
    pub(super) fn new(nodes: usize, slots: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let ledger = MemoryLedger::new(clock.clone());
        let events = at_once(ledger.events(Topic::Schedulers)).unwrap();
        let me = SchedulerId::new("me");
        let mut engine = Engine::new(Config { me, dead_after: Duration::from_secs(5) });
        engine.step(Timestamp::default(), signed_in(&["me"], 1));
        let node = |i| Node {
            id: NodeId::new(format!("n{i}")),
            slots: (0..slots).map(|_| None).collect(),
            own: VecDeque::new(),
            alive: true,
            slowness: 1,
            tasks: ["noop", "sum"].map(String::from).to_vec(),
            refused: 0,
            is_hole: false,
            record: TaskRecord {
                task: "noop".into(),
                done: 0,
                failed: 0,
                cleared: BTreeMap::new(),
            },
        };
        Self {
            ledger,
            engine,
            clock,
            events,
            deaf: false,
            now_ms: 0,
            answers: VecDeque::new(),
            queue: VecDeque::new(),
            nodes: (0..nodes).map(node).collect(),
            non_speculative: Vec::new(),
            schedulers: vec!["me"],
            ledger_is: Condition::Well,
            idle_until: 0,
            takes_us: BTreeMap::new(),
            began_ms: BTreeMap::new(),
            sizes: BTreeMap::new(),
            most_waiting: 0,
            offered: 0,
            looks: 0,
            drawn: 0,
        }
    }

    /// Admits a job of `total` subtasks of `takes_us` each; `fields` are more fields of its
    /// document.
    pub(super) fn submit(&mut self, total: u64, takes_us: u64, fields: &str) -> JobId {
        self.submit_task("noop", total, takes_us, fields)
    }

    pub(super) fn submit_task(
        &mut self,
        task: &str,
        total: u64,
        takes_us: u64,
        fields: &str,
    ) -> JobId {
        self.drawn += 1;
        let job = JobId::from_uuid(uuid::Uuid::from_u128(self.drawn));
        let json = format!(
            r#"{{"id":"{job}","task":"{task}",
                "split":{{"by":"range","start":0,"end":{total}}}{fields}}}"#
        );
        let document = JobDocument::parse(json.as_bytes()).unwrap();
        let plan = longshore_protocol::Plan::new(document, Default::default()).unwrap();
        at_once(self.ledger.admit(&crate::admitter::admission(job, &plan))).unwrap();
        self.takes_us.insert(job, takes_us);
        job
    }

    pub(super) fn summary(&self, job: JobId) -> JobSummary {
        at_once(self.ledger.job(job)).unwrap().unwrap()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A node can run these tasks and no others.
    pub(super) fn give_tasks(&mut self, node: usize, tasks: &[&str]) {
        self.nodes[node].tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
    }

    /// Every attempt on a node fails at once, or does so no more.
    pub(super) fn make_hole(&mut self, node: usize, is_hole: bool) {
        self.nodes[node].is_hole = is_hole;
    }

    /// The nodes that are out of rotation, and how many attempts failed on them.
    pub(super) fn isolated(&self) -> Vec<(String, u64)> {
        let records = at_once(self.ledger.nodes()).unwrap();
        let isolated = records.iter().filter(|record| !record.isolated.is_empty());
        let failed = |id: &NodeId| {
            self.nodes.iter().find(|node| node.id == *id).map_or(0, |node| node.record.failed)
        };
        isolated.map(|record| (record.info.id.to_string(), failed(&record.info.id))).collect()
    }

    /// How many chunks a node was granted and could not run.
    pub(super) fn refused(&self, node: usize) -> usize {
        self.nodes[node].refused
    }

    /// A node takes so many times as long as the others.
    pub(super) fn slow_down(&mut self, node: usize, times: u64) {
        self.nodes[node].slowness = times;
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
    }

    /// A node that was only frozen goes on under its old name; its first beat told it to drop what it held.
    pub(super) fn thaw(&mut self, node: usize) {
        self.nodes[node].alive = true;
        self.nodes[node].slots.fill_with(|| None);
    }

    /// Somebody who is none of the nodes claims the next chunk that waits.
    pub(super) fn haunt(&mut self, ghost: &str) -> Held {
        let message = self.queue.pop_front().expect("something waits");
        self.claim_as(ghost, message)
    }

    /// Somebody who is none of the nodes claims this chunk.
    pub(super) fn claim_as(&mut self, ghost: &str, message: ChunkMessage) -> Held {
        let (ghost, token) = (NodeId::new(ghost), Token::from_bytes([9; 16]));
        let params = ClaimParams::of(&message, token, ghost.clone());
        let claim = self.ledger.claim(message.job, &params);
        assert!(matches!(at_once(claim).unwrap(), Claim::Granted(_)));
        Held { job: message.job, chunk: message.chunk, token }
    }

    /// Somebody who never claims anything fetches what waits.
    pub(super) fn swallow(&mut self) {
        assert!(!self.queue.is_empty(), "something waits");
        self.queue.clear();
    }

    pub(super) fn beat(&mut self, name: &str) {
        let info = Arc::unwrap_or_clone(record(name, "other", 1, 0).info);
        at_once(self.ledger.beat(&BeatParams::new(info, []))).unwrap();
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        self.run_until(ms, "", |_| false);
    }

    /// Runs until `done`; fails after `ms` unless `what` is empty.
    #[track_caller]
    pub(super) fn run_until(&mut self, ms: u64, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            if done(self) {
                return;
            }
            self.tick();
        }
        assert!(what.is_empty() || done(self), "waited {ms} ms for {what}");
    }

    fn tick(&mut self) {
        self.now_ms += 1;
        self.clock.0.store(self.now_ms, Ordering::Relaxed);
        if self.now_ms % 500 == 1 {
            self.read_lists();
        }
        while let Some(hint) = self.events.next().now_or_never() {
            if !self.deaf {
                self.step(Event::Hint(hint));
            }
        }
        while self.answers.front().is_some_and(|(at, _)| *at <= self.now_ms) {
            let (_, event) = self.answers.pop_front().expect("just seen");
            self.step(event);
        }
        if self.engine.next_wake().is_some_and(|at| at.as_millis() <= self.now_ms) {
            self.step(Event::Tick);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive && self.nodes_can_write() {
                self.work(node);
            }
        }
        self.most_waiting = self.most_waiting.max(self.queue.len());
    }

    fn sign_in(&mut self) {
        if self.ledger_is == Condition::Well {
            self.step(signed_in(&self.schedulers.clone(), self.now_ms));
        }
    }

    /// The ledger is in a condition for so long: no node beats or commits, nor for a second after.
    pub(super) fn outage(&mut self, ledger_is: Condition, ms: u64) {
        self.ledger_is = ledger_is;
        self.run_for(ms);
        self.ledger_is = Condition::Well;
        self.idle_until = self.now_ms + 1_000;
    }

    fn nodes_can_write(&self) -> bool {
        self.ledger_is == Condition::Well && self.now_ms >= self.idle_until
    }

    fn read_lists(&mut self) {
        if self.ledger_is == Condition::Away {
            return;
        }
        let is_beat_due = self.now_ms % 1_000 == 1 && self.nodes_can_write();
        for node in self.nodes.iter().filter(|node| node.alive && is_beat_due) {
            let record = record(node.id.as_str(), "default", node.slots.len() as u32, 0);
            let mut info = Arc::unwrap_or_clone(record.info);
            info.busy = node.slots.iter().flatten().count() as u32;
            info.non_speculative.clone_from(&self.non_speculative);
            info.tasks.clone_from(&node.tasks);
            if node.record.failed > 0 || !node.record.cleared.is_empty() {
                info.records = vec![node.record.clone()];
            }
            at_once(self.ledger.beat(&BeatParams::new(info.clone(), []))).unwrap();
        }
        let nodes = at_once(self.ledger.nodes_since(&NodeSnapshot::default())).unwrap();
        self.step(Event::Nodes(nodes));
        let active = at_once(self.ledger.active_jobs()).unwrap();
        self.step(Event::Active(active));
        self.step(Event::Clock(self.clock.now()));
        self.sign_in();
    }

    pub(super) fn step(&mut self, event: Event) {
        for action in self.engine.step(Timestamp::from_millis(self.now_ms), event) {
            if let Some(answer) = self.perform(action) {
                self.answers.push_back((self.now_ms + LATENCY_MS, answer));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        if let Some(job) = self.ledger_is.fails(&action) {
            return Some(Event::Unanswered { job });
        }
        self.looks += usize::from(matches!(action, Action::Look { .. } | Action::Sweep { .. }));
        let ledger = &self.ledger;
        // Keys by index are as good as any.
        let keyed = |message: ChunkMessage| Keyed {
            tried: at_once(ledger.tried_nodes(message.job, &[message.chunk])).unwrap().remove(0),
            key: Some(ring::hash(&message.from.to_be_bytes())),
            message,
        };
        Some(match action {
            Action::Look { job } => {
                let summary = at_once(ledger.job(job)).unwrap().map(Box::new);
                Event::Looked { job, summary, overdue: vec![] }
            }
            Action::Sweep { job, doubt, .. } => {
                let (within, doubt) =
                    (Duration::from_secs(5), doubt.then_some(Duration::from_millis(200)));
                let params = SweepParams { suspect_lost: doubt, ..SweepParams::new(1_000, within) };
                let sweep = at_once(ledger.sweep(job, &params)).unwrap()?;
                let overdue = sweep.publish.into_iter().map(keyed).collect();
                Event::Looked { job, summary: Some(Box::new(sweep.summary)), overdue }
            }
            Action::Study { job } => {
                let stored = at_once(ledger.document(job)).unwrap()?;
                let document = JobDocument::parse(stored.document.as_bytes()).unwrap();
                Event::Studied { job, terms: Terms::of(&document) }
            }
            Action::Copy { job, lagging } => {
                let stragglers = at_once(ledger.offer_speculative(job, &lagging)).unwrap();
                self.offered += stragglers.len();
                let ids: Vec<_> = stragglers.iter().map(|it| it.message.chunk).collect();
                let tried = at_once(ledger.tried_nodes(job, &ids)).unwrap();
                Event::Copied { job, stragglers, tried }
            }
            Action::AskHolders { job } => {
                let by = at_once(ledger.holders(job)).unwrap();
                Event::Held { job, by }
            }
            Action::Open { job, chunks, size, .. } => {
                let open = OpenParams::new(chunks, size, Duration::from_secs(5));
                let opened = at_once(ledger.open(job, &open)).unwrap();
                Event::Opened { job, chunks: opened.into_iter().map(keyed).collect() }
            }
            Action::Publish { queue: Queue::Node(id), chunk } => {
                match self.nodes.iter_mut().find(|node| node.id == id && node.alive) {
                    Some(node) => node.own.push_back(chunk.message),
                    None => return Some(Event::Returned { node: id, chunk }),
                }
                return None;
            }
            Action::Publish { chunk, .. } => {
                self.queue.push_back(chunk.message);
                return None;
            }
            Action::Fail { job, error } => {
                at_once(ledger.fail(job, &error)).unwrap();
                Event::Closed { job }
            }
            Action::Absolve { job, nodes } => {
                at_once(ledger.refund_attempts(job, &nodes)).unwrap();
                Event::Absolved { job, nodes }
            }
            Action::Isolate { node, isolated } => {
                at_once(ledger.isolate(&IsolateParams::new(node.clone(), isolated.clone())))
                    .unwrap();
                return None;
            }
            Action::Withdraw { scheduler } => {
                at_once(ledger.deregister_scheduler(&scheduler)).unwrap();
                return None;
            }
            Action::Archive { job } => {
                at_once(ledger.archive(job)).unwrap();
                Event::Closed { job }
            }
            Action::List => Event::Listed(at_once(ledger.active_jobs()).unwrap()),
            Action::Lose { node, grounds, loss } => {
                let params = DeclareLostParams::new(node.clone(), grounds, loss);
                let verdict = at_once(ledger.declare_lost(&params)).unwrap().verdict();
                Event::LossVerdict { node, verdict }
            }
            Action::Revoke { job, node, loss } => {
                let params = RevokeParams::new(node.clone(), loss);
                let revoked = at_once(ledger.revoke(job, &params)).unwrap();
                Event::Revoked { job, node, is_done: true, is_queued_again: !revoked.is_empty() }
            }
        })
    }

    /// Every slot of a node ends what is due and takes the next, until this millisecond is over.
    fn work(&mut self, node: usize) {
        let now_us = self.now_ms * 1_000;
        for slot in 0..self.nodes[node].slots.len() {
            let mut free_us = now_us;
            if let Some(running) = &self.nodes[node].slots[slot] {
                if running.until_us > now_us {
                    continue;
                }
                free_us = running.until_us;
            }
            loop {
                if let Some(running) = self.nodes[node].slots[slot].take() {
                    self.commit(node, &running);
                }
                let Some(running) = self.claim(node, free_us) else { break };
                free_us = running.until_us;
                self.nodes[node].slots[slot] = Some(running);
                if free_us > now_us {
                    break;
                }
            }
        }
    }

    fn claim(&mut self, node: usize, since_us: u64) -> Option<Running> {
        loop {
            let own = self.nodes[node].own.pop_front();
            let message = own.or_else(|| self.queue.pop_front())?;
            self.drawn += 1;
            let token = Token::from_bytes(self.drawn.to_be_bytes());
            let params = ClaimParams::of(&message, token, self.nodes[node].id.clone());
            let claim = self.ledger.claim(message.job, &params);
            let Claim::Granted(grant) = at_once(claim).unwrap() else { continue };
            let summary = self.summary(message.job);
            let is_reduce = grant.from >= summary.counts.total;
            let task = if is_reduce { "sum".to_owned() } else { summary.task };
            if !self.nodes[node].tasks.contains(&task) {
                self.nodes[node].refused += 1;
                at_once(
                    self.ledger.release(message.job, &ReleaseParams::new(message.chunk, token)),
                )
                .unwrap();
                continue;
            }
            let count = grant.to - grant.from;
            self.began_ms.entry(message.job).or_insert(self.now_ms);
            self.sizes.entry(message.job).or_default().push(count);
            let slowness = self.nodes[node].slowness;
            let each = self.takes_us[&message.job] * slowness;
            let each = if self.nodes[node].is_hole { each.min(1_000) } else { each };
            let until_us = since_us + count * each;
            let message = ChunkMessage { from: grant.from, to: grant.to, ..message };
            let Grant { attempt, tried, .. } = grant;
            return Some(Running { until_us, since_us, message, token, attempt, tried });
        }
    }

    fn commit(&mut self, node: usize, running: &Running) {
        let Running { message, token, attempt, tried, .. } = running;
        let count = message.to - message.from;
        let Node { is_hole, record, id, .. } = &mut self.nodes[node];
        let runs = if *is_hole {
            record.failed += count;
            let (error, delay) = ("hole".to_owned(), Duration::from_millis(100));
            let run = match *attempt >= ATTEMPTS {
                true => OutcomeRun::Failed { error },
                false => OutcomeRun::Retry { error, delay },
            };
            vec![run; count as usize]
        } else {
            record.done += count;
            let others: BTreeSet<&NodeId> = tried.iter().filter(|other| *other != id).collect();
            for other in others {
                *record.cleared.entry(other.clone()).or_default() += count;
            }
            vec![OutcomeRun::Success { count, results: None }]
        };
        let commit = Commit::new(
            message.from,
            runs,
            Duration::from_micros(running.until_us - running.since_us),
        );
        let params = CommitParams::new(message.chunk, *token, commit);
        at_once(self.ledger.commit(message.job, &params)).unwrap();
    }
}
