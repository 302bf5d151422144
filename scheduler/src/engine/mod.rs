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
mod chunk;
mod event;
mod feed;
mod fleet;
mod job;
mod jobs;
mod placement;
mod pool;
pub(crate) mod ring;
mod shares;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_protocol::{JobId, NodeId, SchedulerId, Timestamp};

pub use event::{Action, Event, Keyed, Terms};

use burials::Burials;
use fleet::Fleet;
use job::{Job, Opening};
use pool::Pool;

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
    pools: BTreeMap<String, Pool>,
    fleet: Fleet,
    burials: Burials,
    peers: Vec<SchedulerId>,
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
    /// Pools in which something changed.
    touched: BTreeSet<String>,
    actions: Vec<Action>,
}

/// The ledger does not answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// Until then nobody asks it anything; then one call at a time.
    until: Timestamp,
    pause: Duration,
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
    Looking,
    Sweeping,
    Opening(Opening),
    /// `Study`, `AskHolders`, `Fail` or `Archive`.
    Asking,
}

impl Engine {
    /// Knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            fleet: Fleet::new(config.dead_after),
            burials: Burials::new(config.dead_after),
            config,
            jobs: BTreeMap::new(),
            pools: BTreeMap::new(),
            peers: Vec::new(),
            clock: None,
            link_up: true,
            gap_at: Timestamp::default(),
            trouble: None,
            timers: BTreeSet::new(),
            line: VecDeque::new(),
            in_flight: 0,
            touched: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in an event; gives what is to be done because of it, or because of the time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.take_in(now, event);
        self.wake_jobs(now);
        let jobs = &self.jobs;
        self.burials.due(now, || jobs.keys().copied().collect(), &mut self.actions);
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
            Event::Looked { job, summary, overdue } => self.looked(now, job, summary, &overdue),
            Event::Studied { job, terms } => self.studied(now, job, terms),
            Event::Opened { job, chunks } => self.opened(now, job, &chunks),
            Event::Held { job, by } => self.held(now, job, &by),
            Event::Closed { job } => self.closed(now, job),
            Event::Unanswered { job } => self.unanswered(now, job),
            Event::Returned { node, chunk } => self.returned(now, &node, chunk),
            Event::Nodes(records) => self.nodes(now, records),
            Event::Buried { node, complete } => self.burials.done(now, &node, complete),
            Event::Peers(peers) => self.peers(now, peers),
            Event::Clock(ledger) => self.clock(now, ledger),
            Event::Link { up } => self.link(now, up),
            Event::Tick => {}
        }
    }

    fn nodes(&mut self, now: Timestamp, records: Vec<longshore_protocol::NodeRecord>) {
        let changes = self.fleet.observe(now, records);
        let back: Vec<NodeId> =
            self.burials.first_pass().filter(|id| self.fleet.is_alive(id)).cloned().collect();
        back.iter().for_each(|id| self.burials.spare(id));
        for node in &changes.left {
            if self.is_mine(node.as_str()) {
                self.burials.begin(now, node, false);
            }
        }
        let dead: Vec<NodeId> =
            self.fleet.dead().filter(|id| self.is_mine(id.as_str())).cloned().collect();
        dead.iter().for_each(|id| self.burials.begin(now, id, true));
        // Whoever asked for the holders of a job is the one who knows of them.
        self.fleet.lost_strays().iter().for_each(|id| self.burials.begin(now, id, true));
        if changes.hands {
            self.count_hands(now);
        }
    }

    fn count_hands(&mut self, now: Timestamp) {
        let mut changed = Vec::new();
        for (name, pool) in &mut self.pools {
            if pool.count_hands(name, &self.fleet) {
                self.touched.insert(name.clone());
                changed.extend(pool.jobs.iter().copied());
            }
        }
        // The number of slots is part of what each job offers.
        changed.into_iter().for_each(|job| self.reconsider(now, job));
    }

    fn peers(&mut self, now: Timestamp, peers: Vec<SchedulerId>) {
        if peers == self.peers {
            return;
        }
        self.peers = peers;
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
        if up && !self.link_up {
            // What was published while the link broke may not have arrived.
            let ids: Vec<JobId> = self.jobs.keys().copied().collect();
            self.link_up = up;
            for id in ids {
                if let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) {
                    job.sweep_now(now);
                }
                self.reconsider(now, id);
            }
        }
        self.link_up = up;
    }

    /// Whether what is called `name` belongs to this scheduler.
    fn is_mine(&self, name: &str) -> bool {
        ring::owner(name, &self.peers) == Some(&self.config.me)
    }

    fn ledger_now(&self, now: Timestamp) -> Option<Timestamp> {
        self.clock.map(|(ours, ledger)| ledger.plus(now.since(ours)))
    }
}
