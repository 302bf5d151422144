//! What to do next, as a pure function of what happened: `step(now, event) -> actions`.
//!
//! ```text
//!   active jobs, hints ──▶ line of jobs to look at ──▶ Look / Sweep / Study ──▶ summaries
//!   summaries ──▶ window (how much) + shares (whose) ──▶ Open ──▶ Opened ──▶ placement ──▶ Publish
//!   nodes ──▶ fleet (who lives) ──▶ hands of each pool, Bury
//!   peers ──▶ which pools are ours
//! ```
//!
//! At most one call about a job is under way at a time (its lane), so that what we know of a job is
//! what the ledger said last plus what we opened since. Deliberately absent: async, clocks,
//! randomness, logging, and any knowledge of how actions are performed. `now` is milliseconds of
//! any monotonic clock of this process.

mod burials;
mod capability;
mod chunk;
mod contact;
mod copies;
mod event;
mod feed;
mod fleet;
mod health;
mod job;
mod jobs;
#[cfg(test)]
mod losses;
mod orphans;
#[cfg(test)]
mod outages;
mod peers;
mod placement;
mod pool;
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

use longshore_ledger::Loss;
use longshore_protocol::{
    ChunkMessage, JobId, NodeId, NodeRecord, SchedulerId, SchedulerRecord, Timestamp,
};

pub use event::{Action, Event, Keyed, Terms};

use burials::Burials;
use contact::Contact;
use fleet::Fleet;
use health::Health;
use job::{Job, Opening};
use orphans::Orphans;
use peers::Peers;
use pool::{Pool, PoolKey};

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

/// Everything that one scheduler knows, and decides upon.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    jobs: BTreeMap<JobId, Entry>,
    pools: BTreeMap<PoolKey, Pool>,
    fleet: Fleet,
    health: Health,
    contact: Contact,
    burials: Burials,
    orphans: Orphans,
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
    /// The first chunks of jobs that are being admitted.
    promised: BTreeMap<JobId, Promise>,
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

/// A chunk that is to be opened together with its job.
#[derive(Debug)]
struct Promise {
    /// The pool that it counts in.
    pool: PoolKey,
    /// So many subtasks, if the job has them.
    size: u64,
    /// Its message, if that was published at once.
    early: Option<ChunkMessage>,
    /// When it was promised, and the message published.
    at: Timestamp,
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
    /// `Study`, `AskHolders`, `Copy`, `Fail` or `Archive`.
    Asking,
}

impl Engine {
    /// Knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            fleet: Fleet::new(config.dead_after),
            health: Health::default(),
            contact: Contact::new(config.dead_after),
            burials: Burials::new(config.dead_after),
            orphans: Orphans::default(),
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
            promised: BTreeMap::new(),
            touched: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in an event; gives what is to be done because of it, or because of the time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.take_in(now, event);
        self.wake_jobs(now);
        let jobs = &self.jobs;
        self.burials.due(now, &jobs.keys().copied(), &mut self.actions);
        for pool in std::mem::take(&mut self.touched) {
            self.fill(now, &pool);
        }
        self.pump(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::step`] with [`Event::Tick`] if nothing happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let job = self.timers.first().map(|(at, _)| *at);
        let probe = self.trouble.filter(|_| self.in_flight == 0).map(|trouble| trouble.until);
        [job, probe, self.burials.next_wake()].into_iter().flatten().min()
    }

    fn take_in(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Active(jobs) => self.active(now, &jobs),
            Event::Hint(hint) => self.hint(now, &hint),
            Event::Admitting { summary, terms } => self.admitting(now, *summary, terms),
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
            Event::Nodes(records) => self.nodes(now, &records),
            Event::Severed { workers, schedulers } => self.severed(now, &workers, &schedulers),
            Event::Buried { node, complete, queued_again } => {
                self.burials.done(now, &node, complete);
                self.doubt(now, queued_again);
            }
            Event::Reclaimed { job } => self.doubt(now, [job]),
            Event::Peers(peers) => self.peers(now, peers),
            Event::Clock(ledger) => self.clock(now, ledger),
            Event::Link { up } => self.link(now, up),
            Event::Tick => {}
        }
    }

    fn nodes(&mut self, now: Timestamp, records: &[NodeRecord]) {
        self.fleet.judge_silence(self.contact.is_up(now));
        let changes = self.fleet.observe(now, records);
        self.judge_health(now, records);
        self.burials.spare(|id| self.fleet.is_alive(id));
        self.orphans.heard(|node, job| self.fleet.names(node, job) == Some(true));
        for job in self.orphans.ripe(|node| self.fleet.beats(node)) {
            self.ask_holders(now, job);
        }
        for node in &changes.left {
            if self.is_mine(node.as_str()) {
                self.burials.begin(now, node, Loss::Left, BTreeSet::new);
            }
        }
        self.bury_the_dead(now);
        self.doubt_queues(now, &changes.silent_queues, true);
        self.doubt_queues(now, &changes.gone_queues, false);
        // Whoever asked for the holders of a job is the one who knows of them.
        let strays = self.fleet.lost_strays();
        let nobody_knows = BTreeSet::new;
        strays.iter().for_each(|id| self.burials.begin(now, id, Loss::Vanished, nobody_knows));
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
            self.bury_the_dead(now);
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

    fn bury_the_dead(&mut self, now: Timestamp) {
        let dead: Vec<NodeId> =
            self.fleet.dead().filter(|id| self.is_mine(id.as_str())).cloned().collect();
        for id in &dead {
            let crash = self.fleet.death(id).map(|death| Loss::Crashed(death.to_owned()));
            let held = || likely(&self.jobs, &self.pools, &self.fleet, id);
            self.burials.begin(now, id, crash.unwrap_or(Loss::Vanished), held);
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
        }
        if self.peers.observe(records) {
            self.share_out(now);
        }
    }

    /// Others live than before: what falls to us is taken over, what does not is let go.
    fn share_out(&mut self, now: Timestamp) {
        self.bury_the_dead(now);
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

/// Jobs of which a worker probably holds something: those that it named last, and those of its queues that run.
fn likely(
    jobs: &BTreeMap<JobId, Entry>,
    pools: &BTreeMap<PoolKey, Pool>,
    fleet: &Fleet,
    id: &NodeId,
) -> BTreeSet<JobId> {
    let Some(info) = fleet.info(id) else { return BTreeSet::new() };
    let named = info.jobs.iter().flatten().copied();
    let of_its_queues =
        pools.iter().filter_map(|(key, pool)| info.queues.contains(&key.queue).then_some(pool));
    let runs = |id: &JobId| match jobs.get(id).map(|entry| &entry.known) {
        Some(Known::Ours(job)) => job.summary.running_chunks > 0,
        _ => false,
    };
    named.chain(of_its_queues.flat_map(|pool| &pool.jobs).copied().filter(runs)).collect()
}
