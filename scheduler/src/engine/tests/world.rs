//! A simulated world for the engine's tests: the memory ledger, a work queue, pretended workers.
//!
//! The ledger is real and has a manual clock. The world goes on millisecond by millisecond, without
//! threads, and the same way each time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use longshore_broker::Queue;
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_ledger::{
    BeatParams, Claim, ClaimParams, Commit, CommitParams, DeclareLostParams, Events, Grant, Held,
    IsolateParams, Ledger, NodeSnapshot, OpenParams, ReleaseParams, RevokeParams, SweepParams,
    Topic,
};
use longshore_protocol::{
    ChunkMessage, JobDocument, JobId, JobSummary, NodeId, OutcomeRun, SchedulerId, TaskRecord,
    Timestamp, Token,
};

use super::super::fleet::tests::record;
use super::super::{Action, Config, Engine, Event, JobSpec, RoutedChunk, ring};

/// The ledger's clock is far from that of the scheduler, as in production.
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

/// What the ledger answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Works,
    /// Nothing.
    Away,
    /// Reads, and revokes, but no other writes.
    Full,
}

impl Condition {
    /// The job of the action, if the ledger does not answer it.
    fn fails(self, action: &Action) -> Option<JobId> {
        match action {
            Action::ReadJob { job } | Action::LoadSpec { job } | Action::ReadHolders { job }
                if self == Self::Away =>
            {
                Some(*job)
            }
            Action::Sweep { job, .. }
            | Action::Open { job, .. }
            | Action::OfferSpeculative { job, .. }
            | Action::FailJob { job, .. }
            | Action::ArchiveJob { job }
                if self != Self::Works =>
            {
                Some(*job)
            }
            _ => None,
        }
    }
}

/// This scheduler registered, and these are there.
fn registered(schedulers: &[&str], at_ms: u64) -> Event {
    let record = |name: &&str| super::super::peers::tests::record(name, at_ms);
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
    /// How many times as long as other nodes it takes.
    slowness: u64,
    /// The tasks that it can run.
    tasks: Vec<String>,
    /// How many chunks it was granted and could not run.
    refused: usize,
    /// Every attempt fails at once.
    is_hole: bool,
    /// The outcomes of its attempts.
    record: TaskRecord,
}

pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) engine: Engine,
    clock: Arc<ManualClock>,
    events: Box<dyn Events>,
    /// Whether hints get lost.
    pub(super) loses_hints: bool,
    now_ms: u64,
    answers: VecDeque<(u64, Event)>,
    queue: VecDeque<ChunkMessage>,
    nodes: Vec<Node>,
    /// The schedulers that register: this one, and perhaps others.
    pub(super) schedulers: Vec<&'static str>,
    ledger_is: Condition,
    /// No node sends heartbeats or commits before this time, ms.
    idle_until: u64,
    /// Tasks that must not be executed speculatively.
    pub(super) non_speculative: Vec<String>,
    /// The time of each job's subtasks, µs.
    takes_us: BTreeMap<JobId, u64>,
    /// When the first subtask of a job began, ms.
    pub(super) began_ms: BTreeMap<JobId, u64>,
    /// Sizes of the chunks of a job in the order of their claims.
    pub(super) sizes: BTreeMap<JobId, Vec<u64>>,
    pub(super) most_waiting: usize,
    /// Chunks that were offered for speculative execution.
    pub(super) offered: usize,
    /// How often jobs were read.
    pub(super) reads: usize,
    /// The time from a failed attempt to the next one.
    pub(super) retry_after_ms: u64,
    /// How many changes of what blocks jobs were reported.
    pub(super) reports: usize,
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
        engine.step(Timestamp::default(), registered(&["me"], 1));
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
            loses_hints: false,
            now_ms: 0,
            answers: VecDeque::new(),
            queue: VecDeque::new(),
            nodes: (0..nodes).map(node).collect(),
            non_speculative: Vec::new(),
            schedulers: vec!["me"],
            ledger_is: Condition::Works,
            idle_until: 0,
            takes_us: BTreeMap::new(),
            began_ms: BTreeMap::new(),
            sizes: BTreeMap::new(),
            most_waiting: 0,
            offered: 0,
            reads: 0,
            retry_after_ms: 100,
            reports: 0,
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

    /// Makes a node take this many times as long as the others.
    pub(super) fn slow_down(&mut self, node: usize, times: u64) {
        self.nodes[node].slowness = times;
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
    }

    /// A node that was only frozen goes on under its old name; its first heartbeat told it to drop
    /// what it held.
    pub(super) fn thaw(&mut self, node: usize) {
        self.nodes[node].alive = true;
        self.nodes[node].slots.fill_with(|| None);
    }

    /// A worker that is none of the nodes claims the next chunk that waits.
    pub(super) fn haunt(&mut self, ghost: &str) -> Held {
        let message = self.queue.pop_front().expect("a chunk waits");
        self.claim_as(ghost, message)
    }

    /// A worker that is none of the nodes claims this chunk.
    pub(super) fn claim_as(&mut self, ghost: &str, message: ChunkMessage) -> Held {
        let (ghost, token) = (NodeId::new(ghost), Token::from_bytes([9; 16]));
        let params = ClaimParams::of(&message, token, ghost);
        let claim = self.ledger.claim(message.job, &params);
        assert!(matches!(at_once(claim).unwrap(), Claim::Granted(_)));
        Held { job: message.job, chunk: message.chunk, token }
    }

    /// A worker that never claims anything fetches what waits.
    pub(super) fn swallow(&mut self) {
        assert!(!self.queue.is_empty(), "a chunk waits");
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
            if !self.loses_hints {
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

    fn register(&mut self) {
        if self.ledger_is == Condition::Works {
            self.step(registered(&self.schedulers.clone(), self.now_ms));
        }
    }

    /// The ledger is in a condition for this time: no node sends heartbeats or commits, nor for a
    /// second after.
    pub(super) fn outage(&mut self, ledger_is: Condition, ms: u64) {
        self.ledger_is = ledger_is;
        self.run_for(ms);
        self.ledger_is = Condition::Works;
        self.idle_until = self.now_ms + 1_000;
    }

    fn nodes_can_write(&self) -> bool {
        self.ledger_is == Condition::Works && self.now_ms >= self.idle_until
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
        self.step(Event::ActiveJobs(active));
        self.step(Event::Clock(self.clock.now()));
        self.register();
    }

    pub(super) fn step(&mut self, event: Event) {
        for action in self.engine.step(Timestamp::from_millis(self.now_ms), event) {
            if let Some(answer) = self.execute(action) {
                self.answers.push_back((self.now_ms + LATENCY_MS, answer));
            }
        }
    }

    fn execute(&mut self, action: Action) -> Option<Event> {
        if let Some(job) = self.ledger_is.fails(&action) {
            return Some(Event::CallFailed { job });
        }
        self.reads += usize::from(matches!(action, Action::ReadJob { .. } | Action::Sweep { .. }));
        let ledger = &self.ledger;
        // Keys by index are as good as any.
        let routed = |message: ChunkMessage| RoutedChunk {
            tried: at_once(ledger.tried_nodes(message.job, &[message.chunk])).unwrap().remove(0),
            key: Some(ring::hash(&message.from.to_be_bytes())),
            message,
        };
        Some(match action {
            Action::ReportBlocked(params) => {
                let is_done = self.ledger_is == Condition::Works;
                if is_done {
                    at_once(ledger.report_blocked(&params)).unwrap();
                    self.reports += params.changes.len();
                }
                Event::BlockedReported { queue: params.queue, is_done }
            }
            Action::ReadJob { job } => {
                let summary = at_once(ledger.job(job)).unwrap().map(Box::new);
                Event::JobRead { job, summary, overdue: vec![] }
            }
            Action::Sweep { job, suspect_lost, .. } => {
                let within = Duration::from_secs(5);
                let suspect_after = suspect_lost.then_some(Duration::from_millis(200));
                let sweep = at_once(ledger.sweep(
                    job,
                    &SweepParams { suspect_lost: suspect_after, ..SweepParams::new(1_000, within) },
                ))
                .unwrap()?;
                let overdue = sweep.publish.into_iter().map(routed).collect();
                Event::JobRead { job, summary: Some(Box::new(sweep.summary)), overdue }
            }
            Action::LoadSpec { job } => {
                let stored = at_once(ledger.document(job)).unwrap()?;
                let document = JobDocument::parse(stored.document.as_bytes()).unwrap();
                Event::SpecLoaded { job, spec: JobSpec::of(&document) }
            }
            Action::OfferSpeculative { job, request } => {
                let stragglers = at_once(ledger.offer_speculative(job, &request)).unwrap();
                self.offered += stragglers.len();
                let ids: Vec<_> = stragglers.iter().map(|it| it.message.chunk).collect();
                let tried = at_once(ledger.tried_nodes(job, &ids)).unwrap();
                Event::SpeculationOffered { job, stragglers, tried }
            }
            Action::ReadHolders { job } => {
                let holders = at_once(ledger.holders(job)).unwrap();
                Event::HoldersRead { job, holders }
            }
            Action::Open { job, chunks, size, .. } => {
                let open = OpenParams::new(chunks, size, Duration::from_secs(5));
                let opened = at_once(ledger.open(job, &open)).unwrap();
                Event::Opened { job, chunks: opened.into_iter().map(routed).collect() }
            }
            Action::Publish { queue: Queue::Node(id), chunk } => {
                match self.nodes.iter_mut().find(|node| node.id == id && node.alive) {
                    Some(node) => node.own.push_back(chunk.message),
                    None => return Some(Event::Unroutable { node: id, chunk }),
                }
                return None;
            }
            Action::Publish { chunk, .. } => {
                self.queue.push_back(chunk.message);
                return None;
            }
            Action::FailJob { job, error } => {
                at_once(ledger.fail(job, &error)).unwrap();
                Event::JobClosed { job }
            }
            Action::RefundAttempts { job, nodes } => {
                at_once(ledger.refund_attempts(job, &nodes)).unwrap();
                Event::AttemptsRefunded { job, nodes }
            }
            Action::Isolate { node, isolated } => {
                at_once(ledger.isolate(&IsolateParams::new(node, isolated))).unwrap();
                return None;
            }
            Action::DeregisterScheduler { scheduler } => {
                at_once(ledger.deregister_scheduler(&scheduler)).unwrap();
                return None;
            }
            Action::ArchiveJob { job } => {
                at_once(ledger.archive(job)).unwrap();
                Event::JobClosed { job }
            }
            Action::ListJobs => Event::JobsListed(at_once(ledger.active_jobs()).unwrap()),
            Action::DeclareLost { node, evidence, cause } => {
                let verdict = at_once(ledger.declare_lost(&DeclareLostParams::new(
                    node.clone(),
                    evidence,
                    cause,
                )))
                .unwrap()
                .verdict();
                Event::LossVerdict { node, verdict }
            }
            Action::RevokeNode { job, node, cause } => {
                let revoked =
                    at_once(ledger.revoke(job, &RevokeParams::new(node.clone(), cause))).unwrap();
                Event::Revoked { job, node, is_done: true, is_queued_again: !revoked.is_empty() }
            }
        })
    }

    /// Each slot of a node ends what is due and takes the next chunk, until this millisecond is
    /// over.
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
            let (error, delay) = ("hole".to_owned(), Duration::from_millis(self.retry_after_ms));
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
