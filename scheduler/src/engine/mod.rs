//! Decides what to do next, as a pure function of what happened: `step(now, event) -> actions`.
//!
//! ```text
//!   active jobs, hints ─▶ calls ─▶ ReadJob / Sweep / LoadSpec ─▶ summaries
//!   summaries ─▶ window (how much) + fair queue (whose) ─▶ Open
//!   Opened ─▶ placement ─▶ Publish
//!   nodes ─▶ fleet (who is alive) ─▶ capacity of each pool
//!                            └─▶ DeclareLost ─▶ node recovery ─▶ RevokeNode
//!   peers ─▶ which pools are ours
//! ```
//!
//! Each event has a file of its own, `on_EVENT.rs`. What follows from any event for a job is in
//! `refresh`, for a pool in `fill`, and for the ledger in `next_call`.
//!
//! At most one call about a job is in flight at a time, so what is known of a job is what the
//! ledger said last plus what was opened since. Deliberately absent: async, clocks, randomness,
//! logging, and any knowledge of how actions are executed. `now` is in milliseconds of any
//! monotonic clock of this process.

mod blocked;
mod calls;
mod chunk_size;
mod disconnect_timer;
mod eager_chunks;
mod event;
mod fair_queue;
mod fill;
mod fleet;
mod holders;
mod isolation;
mod job;
mod jobs;
mod ledger_clock;
mod ledger_writes;
mod next_call;
mod node;
mod node_recovery;
mod on_active_jobs;
mod on_admission;
mod on_attempts_refunded;
mod on_call_failed;
mod on_clock;
mod on_connections_lost;
mod on_hint;
mod on_holders_read;
mod on_job_closed;
mod on_job_read;
mod on_link;
mod on_loss_verdict;
mod on_nodes;
mod on_opened;
mod on_peers;
mod on_revoked;
mod on_spec_loaded;
mod on_speculation_offered;
mod on_unroutable;
mod peers;
mod placement;
mod pool;
mod publish;
mod refresh;
pub(crate) mod ring;
mod speculation;
mod suspect;
#[cfg(test)]
mod tests;
mod timers;
mod window;

use std::time::Duration;

use longshore_protocol::{SchedulerId, Timestamp};

pub use event::{Action, Event, JobSpec, RoutedChunk};

use blocked::BlockedReports;
use calls::Calls;
use eager_chunks::EagerChunks;
use fleet::Fleet;
use holders::{OrphanDetector, UnlistedHolders};
use isolation::IsolationJudge;
use jobs::Jobs;
use ledger_clock::LedgerClock;
use ledger_writes::LedgerWrites;
use node_recovery::NodeRecovery;
use peers::Peers;
use pool::Pools;
use timers::Timers;

/// What the engine's decisions depend on.
#[derive(Clone, Debug)]
pub struct Config {
    /// This scheduler.
    pub me: SchedulerId,
    /// A worker that was silent for this long is dead, unless it announced another time.
    pub dead_after: Duration,
}

/// Everything that one scheduler knows and decides upon.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    jobs: Jobs,
    pools: Pools,
    /// First chunks of jobs that are being admitted.
    eager_chunks: EagerChunks,
    calls: Calls,
    timers: Timers,
    blocked: BlockedReports,
    fleet: Fleet,
    isolation: IsolationJudge,
    node_recovery: NodeRecovery,
    orphans: OrphanDetector,
    unlisted: UnlistedHolders,
    peers: Peers,
    clock: LedgerClock,
    ledger_writes: LedgerWrites,
    /// Whether the broker can be reached.
    is_link_up: bool,
    /// When all jobs were last looked at because hints were missed.
    gap_at: Timestamp,
    /// What the present step has decided so far.
    actions: Vec<Action>,
}

impl Engine {
    /// An engine that knows of no job, no worker and no scheduler, itself included.
    pub fn new(config: Config) -> Self {
        Self {
            jobs: Jobs::default(),
            pools: Pools::default(),
            eager_chunks: EagerChunks::default(),
            calls: Calls::default(),
            timers: Timers::default(),
            blocked: BlockedReports::default(),
            fleet: Fleet::new(config.dead_after),
            isolation: IsolationJudge::default(),
            node_recovery: NodeRecovery::default(),
            orphans: OrphanDetector::default(),
            unlisted: UnlistedHolders::default(),
            peers: Peers::new(config.me.clone()),
            clock: LedgerClock::default(),
            ledger_writes: LedgerWrites::new(config.dead_after),
            is_link_up: true,
            gap_at: Timestamp::default(),
            actions: Vec::new(),
            config,
        }
    }

    /// Takes in an event; returns what is to be done because of it, or because of the time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.on(now, event);
        while let Some(id) = self.timers.pop_due(now) {
            self.refresh(now, id);
        }
        for pool in self.pools.take_changed() {
            self.fill(now, &pool);
        }
        self.node_recovery.start_due(now, &mut self.actions);
        self.make_calls(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::step`] with [`Event::Tick`] if nothing happens before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let (job, call) = (self.timers.next_wake(), self.calls.next_wake());
        [job, call, self.node_recovery.next_wake()].into_iter().flatten().min()
    }

    fn on(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::ActiveJobs(jobs) => self.on_active_jobs(now, &jobs),
            Event::JobsListed(jobs) => self.on_jobs_listed(now, &jobs),
            Event::Hint(hint) => self.on_hint(now, &hint),
            Event::Admitted { summary, spec, opened } => {
                self.on_admitted(now, *summary, spec, opened.as_slice());
            }
            Event::NotAdmitted { job, known } => self.on_not_admitted(now, job, known),
            Event::JobRead { job, summary, overdue } => {
                self.on_job_read(now, job, summary, &overdue);
            }
            Event::SpecLoaded { job, spec } => self.on_spec_loaded(now, job, spec),
            Event::Opened { job, chunks } => self.on_opened(now, job, &chunks),
            Event::AttemptsRefunded { job, nodes } => self.on_attempts_refunded(now, job, nodes),
            Event::SpeculationOffered { job, stragglers, tried } => {
                self.on_speculation_offered(now, job, stragglers, tried);
            }
            Event::HoldersRead { job, holders } => self.on_holders_read(now, job, &holders),
            Event::JobClosed { job } => self.on_job_closed(now, job),
            Event::CallFailed { job } => self.on_call_failed(now, job),
            Event::Unroutable { node, chunk } => self.on_unroutable(now, &node, chunk),
            Event::Nodes(snapshot) => self.on_nodes(now, &snapshot),
            Event::ConnectionsLost { workers, schedulers } => {
                self.on_connections_lost(now, &workers, &schedulers);
            }
            Event::LossVerdict { node, verdict } => {
                self.on_loss_verdict(now, &node, verdict.as_ref());
            }
            Event::Revoked { job, node, is_done, is_queued_again } => {
                self.on_revoked(now, job, &node, is_done, is_queued_again);
            }
            Event::BlockedReported { queue, is_done } => {
                self.blocked.reported(&queue, is_done);
            }
            Event::Peers(peers) => self.on_peers(now, peers),
            Event::Clock(ledger) => self.on_clock(now, ledger),
            Event::Link { up } => self.on_link(now, up),
            Event::Tick => {}
        }
    }
}
