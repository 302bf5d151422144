//! What to do next, as a pure function of what happened: `step(now, event) -> actions`.
//!
//! ```text
//!   active jobs, hints ──▶ line of jobs to look at ──▶ Look / Sweep / Study ──▶ summaries
//!   summaries ──▶ window (how much) + shares (whose) ──▶ Open ──▶ Opened ──▶ placement ──▶ Publish
//!   nodes ──▶ fleet (who lives) ──▶ hands of each pool, Lose ──▶ recovery ──▶ Revoke
//!   peers ──▶ which pools are ours
//! ```
//!
//! At most one call about a job is under way at a time (its lane), so that what we know of a job is
//! what the ledger said last plus what we opened since. Deliberately absent: async, clocks,
//! randomness, logging, and any knowledge of how actions are performed. `now` is milliseconds of
//! any monotonic clock of this process.

mod capability;
mod chunk;
mod contact;
mod copies;
mod event;
mod feed;
mod fleet;
mod health;
mod holders;
mod job;
mod jobs;
#[cfg(test)]
mod losses;
mod node;
#[cfg(test)]
mod outages;
mod peers;
mod placement;
mod pool;
mod recovery;
pub(crate) mod ring;
mod severance;
mod shares;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_ledger::{LossCause, LossEvidence, LostNode, NodeSnapshot};
use longshore_protocol::{JobId, NodeId, SchedulerId, SchedulerRecord, Timestamp};

pub use event::{Action, Event, Keyed, Terms};

use contact::Contact;
use fleet::Fleet;
use health::Health;
use holders::{Orphans, Unlisted};
use job::{Job, Opening};
use peers::Peers;
use pool::{Pool, PoolKey};
use recovery::Recovery;

/// How the engine decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// This scheduler.
    pub me: SchedulerId,
    /// A worker that was silent for so long is dead.
    pub dead_after: Duration,
}

/// First and longest wait after the ledger left a question unanswered.
const TROUBLE: Duration = Duration::from_millis(100);
const TROUBLE_LONGEST: Duration = Duration::from_secs(2);

/// The ledger's clock is taken for changed when it differs by more than this from what we expect;
/// less is the delay of the answer.
const CLOCK_JUMP: Duration = Duration::from_millis(100);

/// A job that fell to another scheduler is cared for by the last one too for this time, in which the
/// other one surely hears of it (from the list of jobs, which is read once a second).
const CEDED_FOR: Duration = Duration::from_secs(3);

/// Everything that one scheduler knows, and decides upon.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    jobs: BTreeMap<JobId, Entry>,
    pools: BTreeMap<PoolKey, Pool>,
    fleet: Fleet,
    health: Health,
    contact: Contact,
    recovery: Recovery,
    orphans: Orphans,
    unlisted: Unlisted,
    /// Jobs that fell to other schedulers lately.
    ceded: BTreeMap<JobId, Timestamp>,
    peers: Peers,
    /// Our time and the ledger's at the same moment.
    clock: Option<(Timestamp, Timestamp)>,
    link_up: bool,
    /// When all jobs were looked at because hints were missed.
    gap_at: Timestamp,
    trouble: Option<Trouble>,
    timers: BTreeSet<(Timestamp, JobId)>,
    /// Jobs for which a call is to be made, in the order in which that became clear.
    line: VecDeque<JobId>,
    /// Calls about jobs that were not answered yet.
    in_flight: usize,
    /// First chunks that were promised to jobs which are being admitted.
    eager: BTreeMap<JobId, EagerChunk>,
    /// Pools in which something changed.
    touched: BTreeSet<PoolKey>,
    actions: Vec<Action>,
}

/// The ledger does not answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// Until then nobody asks it anything; then one call at a time.
    until: Timestamp,
    pause: Duration,
}

/// A chunk that the ledger opens together with its job, in the same operation.
#[derive(Debug)]
struct EagerChunk {
    /// The pool whose window it counts against until the ledger has answered.
    pool: PoolKey,
    /// When it was promised.
    promised_at: Timestamp,
}

/// A job that may not have ended.
#[derive(Debug)]
struct Entry {
    known: Known,
    lane: Lane,
    /// It is to be looked at.
    wanted: bool,
    in_line: bool,
    wake: Option<Timestamp>,
    /// The ledger's list lacked it the last time.
    missed: bool,
}

/// What we know of a job.
#[derive(Debug)]
enum Known {
    /// That it exists.
    Unseen,
    /// Its queue belongs to another scheduler.
    Elsewhere(String),
    /// Its queue is ours.
    Ours(Box<Job>),
    /// It ended, or is gone.
    Over,
}

/// What is under way about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Idle,
    /// Its document is on its way to the ledger.
    Admitting,
    Looking,
    Sweeping {
        doubt: bool,
    },
    Opening(Opening),
    AskingHolders,
    /// `Study`, `Copy`, `Fail` or `Archive`.
    Asking,
}

impl Engine {
    /// Knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            fleet: Fleet::new(config.dead_after),
            health: Health::default(),
            contact: Contact::new(config.dead_after),
            recovery: Recovery::default(),
            orphans: Orphans::default(),
            unlisted: Unlisted::default(),
            ceded: BTreeMap::new(),
            peers: Peers::new(config.me.clone()),
            config,
            jobs: BTreeMap::new(),
            pools: BTreeMap::new(),
            clock: None,
            link_up: true,
            gap_at: Timestamp::default(),
            trouble: None,
            timers: BTreeSet::new(),
            line: VecDeque::new(),
            in_flight: 0,
            eager: BTreeMap::new(),
            touched: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in an event; gives what is to be done because of it, or because of the time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.take_in(now, event);
        self.wake_jobs(now);
        for pool in std::mem::take(&mut self.touched) {
            self.fill(now, &pool);
        }
        self.recovery.due(now, &mut self.actions);
        self.pump(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::step`] with [`Event::Tick`] if nothing happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let job = self.timers.first().map(|(at, _)| *at);
        let probe = self.trouble.filter(|_| self.in_flight == 0).map(|trouble| trouble.until);
        [job, probe, self.recovery.next_wake()].into_iter().flatten().min()
    }

    fn take_in(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Active(jobs) => self.active(now, &jobs),
            Event::Listed(jobs) => jobs.into_iter().for_each(|job| self.meet(now, job)),
            Event::Hint(hint) => self.hint(now, &hint),
            Event::Admitted { summary, terms, opened } => {
                self.admitted(now, summary, terms, opened);
            }
            Event::NotAdmitted { job, known } => self.not_admitted(now, job, known),
            Event::Looked { job, summary, overdue } => self.looked(now, job, summary, &overdue),
            Event::Studied { job, terms } => self.studied(now, job, terms),
            Event::Opened { job, chunks } => self.opened(now, job, &chunks),
            Event::Absolved { job, nodes } => self.absolved(now, job, nodes),
            Event::Copied { job, stragglers, tried } => self.copied(now, job, stragglers, tried),
            Event::Held { job, by } => self.held(now, job, &by),
            Event::Closed { job } => self.closed(now, job),
            Event::Unanswered { job } => self.unanswered(now, job),
            Event::Returned { node, chunk } => self.returned(now, &node, chunk),
            Event::Nodes(roster) => self.nodes(now, &roster),
            Event::Severed { workers, schedulers } => self.severed(now, &workers, &schedulers),
            Event::LossVerdict { node, verdict } => self.declared(now, &node, verdict.as_ref()),
            Event::Revoked { job, node, is_done, is_queued_again } => {
                self.recovery.revoked(now, &node, job, is_done);
                if is_queued_again {
                    self.doubt(now, [job]);
                }
            }
            Event::Peers(peers) => self.peers(now, peers),
            Event::Clock(ledger) => self.clock(now, ledger),
            Event::Link { up } => self.link(now, up),
            Event::Tick => {}
        }
    }

    fn nodes(&mut self, now: Timestamp, roster: &NodeSnapshot) {
        // Before it is off our list: what a lost worker said of itself last tells where to look first.
        self.ceded.retain(|_, at| now.since(*at) < CEDED_FOR);
        let mut lost = Vec::new();
        for verdict in self.recovery.news(now, &roster.nodes, &roster.lost) {
            lost.push(verdict.node.clone());
            let jobs = likely(&self.jobs, &self.ceded, &self.fleet, &verdict.node);
            self.recovery.begin(now, verdict, jobs);
        }
        self.seek_holders(now, &lost);
        let is_up = self.contact.is_up(now);
        self.fleet.judge_silence(is_up);
        let changes = self.fleet.observe(now, &roster.nodes);
        self.judge_health(now, &roster.nodes);
        self.orphans.heard(|node, job| self.fleet.names(node, job) == Some(true));
        for job in self.orphans.ripe(|node| self.fleet.beats(node)) {
            self.ask_holders(now, job);
        }
        self.judge_the_dead(now);
        let (fleet, recovery) = (&self.fleet, &self.recovery);
        // While the ledger takes no writes nobody can be on a list.
        self.unlisted.found(|id| !is_up || fleet.is_listed(id) || recovery.is_lost(id));
        for id in self.unlisted.lost(now, self.config.dead_after) {
            let (grounds, loss) = (LossEvidence::Absent, LossCause::Vanished);
            self.recovery.judge(now, &id, grounds, loss, &mut self.actions);
        }
        self.doubt_queues(now, &changes.silent_queues, true);
        self.doubt_queues(now, &changes.gone_queues, false);
        if changes.hands {
            self.count_hands(now);
        }
        self.level(now);
    }

    fn severed(
        &mut self,
        now: Timestamp,
        workers: &BTreeSet<NodeId>,
        schedulers: &BTreeSet<SchedulerId>,
    ) {
        let gone = self.fleet.severed(now, workers);
        if !gone.is_empty() {
            self.judge_the_dead(now);
            self.doubt_queues(now, &gone, false);
            self.count_hands(now);
        }
        let died = self.peers.severed(now, schedulers);
        if !died.is_empty() {
            self.share_out(now);
        }
        let withdraw = died.into_iter().map(|scheduler| Action::Withdraw { scheduler });
        self.actions.extend(withdraw);
    }

    /// Has those declared lost that this scheduler takes for dead.
    fn judge_the_dead(&mut self, now: Timestamp) {
        for (id, beat_at) in self.fleet.dead() {
            // A heartbeat that came between our last look at the list and its end is no sign of life.
            let gone_at = self.fleet.disconnected_at(id).zip(self.clock);
            let (grounds, loss) = match (self.fleet.death(id), gone_at) {
                (Some(death), _) => (LossEvidence::Certain, LossCause::Crashed(death.to_owned())),
                (None, Some((at, (ours, ledger)))) => {
                    (LossEvidence::SilentSince(ledger.plus(at.since(ours))), LossCause::Vanished)
                }
                (None, None) => (LossEvidence::LastBeat(beat_at), LossCause::Vanished),
            };
            self.recovery.judge(now, id, grounds, loss, &mut self.actions);
        }
    }

    fn declared(&mut self, now: Timestamp, node: &NodeId, verdict: Option<&LostNode>) {
        self.recovery.answered(now, node, verdict.is_some());
        let Some(verdict) = verdict else { return };
        let jobs = likely(&self.jobs, &self.ceded, &self.fleet, node);
        if self.recovery.begin(now, verdict, jobs) {
            self.seek_holders(now, std::slice::from_ref(node));
        }
    }

    /// Asks who holds chunks of those own jobs of which these lost workers may hold some: all that have chunks open, in the queues
    /// from which they took work. One question a job serves, however many are lost at once.
    fn seek_holders(&mut self, now: Timestamp, lost: &[NodeId]) {
        if lost.is_empty() {
            return;
        }
        let infos: Option<Vec<_>> = lost.iter().map(|id| self.fleet.info(id)).collect();
        // `None`: one of them was never heard here.
        let queues: Option<BTreeSet<&String>> =
            infos.map(|infos| infos.into_iter().flat_map(|info| &info.queues).collect());
        let may_hold =
            |key: &PoolKey| queues.as_ref().is_none_or(|queues| queues.contains(&key.queue));
        let pools = self.pools.iter().filter(|(key, _)| may_hold(key));
        let jobs: Vec<JobId> = pools.flat_map(|(_, pool)| &pool.jobs).copied().collect();
        for id in jobs {
            if matches!(&self.jobs[&id].known, Known::Ours(job) if job.is_open()) {
                self.ask_holders(now, id);
            }
        }
    }

    fn count_hands(&mut self, now: Timestamp) {
        let mut changed = Vec::new();
        for (key, pool) in &mut self.pools {
            let is_changed = pool.count_hands(key, &self.fleet);
            if is_changed {
                self.touched.insert(key.clone());
            }
            let moves = |id: &JobId| match &self.jobs[id].known {
                Known::Ours(job) => {
                    let task = job.task().unwrap_or_default();
                    let isolated = self.fleet.isolated(&job.summary.queue, task);
                    job.is_misplaced(&self.fleet) || isolated != job.absolved
                }
                _ => false,
            };
            changed.extend(pool.jobs.iter().copied().filter(|id| is_changed || moves(id)));
        }
        // The number of slots is part of what each job offers.
        changed.into_iter().for_each(|job| self.reconsider(now, job));
    }

    fn peers(&mut self, now: Timestamp, records: Vec<SchedulerRecord>) {
        if self.contact.signed_in(now) {
            self.fleet.pardon();
            self.unlisted = Unlisted::default();
        }
        if self.peers.observe(records) {
            self.share_out(now);
        }
    }

    /// Others live than before: what falls to us is taken over, what does not is let go.
    fn share_out(&mut self, now: Timestamp) {
        // Of a job that another one admitted a moment ago nobody else may have heard.
        self.actions.push(Action::List);
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            let queue = match &self.jobs[&id].known {
                Known::Unseen | Known::Over => continue,
                Known::Elsewhere(queue) => queue.clone(),
                Known::Ours(job) => job.summary.queue.clone(),
            };
            let mine = self.is_mine(&queue);
            let ours = matches!(self.jobs[&id].known, Known::Ours(_));
            if ours && !mine {
                self.ceded.insert(id, now);
                self.become_known(id, Known::Elsewhere(queue));
            } else if !ours && mine {
                self.become_known(id, Known::Unseen);
                self.reconsider(now, id);
            }
        }
    }

    fn clock(&mut self, now: Timestamp, ledger: Timestamp) {
        let expected = self.ledger_now(now);
        self.clock = Some((now, ledger));
        let jumped = expected.is_none_or(|at| at.since(ledger).max(ledger.since(at)) > CLOCK_JUMP);
        if jumped {
            let ids: Vec<JobId> = self.jobs.keys().copied().collect();
            ids.into_iter().for_each(|id| self.reconsider(now, id));
        }
    }

    fn link(&mut self, now: Timestamp, up: bool) {
        let is_back = up && !self.link_up;
        self.link_up = up;
        if is_back {
            // What was published while the link broke may not have arrived.
            let all: Vec<JobId> = self.jobs.keys().copied().collect();
            self.doubt(now, all);
        }
    }

    /// Whether what is called `name` belongs to this scheduler.
    fn is_mine(&self, name: &str) -> bool {
        ring::owner(name, self.peers.living()) == Some(&self.config.me)
    }

    fn ledger_now(&self, now: Timestamp) -> Option<Timestamp> {
        self.clock.map(|(ours, ledger)| ledger.plus(now.since(ours)))
    }
}

/// Jobs of which a worker may hold something and of whose holders nobody else may ask: own ones that it
/// named with its last heartbeat, and those that fell to others lately.
fn likely(
    jobs: &BTreeMap<JobId, Entry>,
    ceded: &BTreeMap<JobId, Timestamp>,
    fleet: &Fleet,
    id: &NodeId,
) -> VecDeque<JobId> {
    let named = fleet.info(id).and_then(|info| info.jobs.as_ref()).into_iter().flatten();
    let is_ours =
        |id: &&JobId| jobs.get(id).is_some_and(|entry| matches!(entry.known, Known::Ours(_)));
    let named: BTreeSet<&JobId> = named.filter(is_ours).collect();
    let others = ceded.keys().filter(|id| !named.contains(id));
    named.iter().copied().chain(others).copied().collect()
}
