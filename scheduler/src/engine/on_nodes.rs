//! The event `Nodes`: judges all workers by the ledger's lists, and starts what follows from that.
//!
//! Workers are declared lost, recovered, isolated and readmitted; pools get their new capacities.

use std::collections::BTreeSet;

use longshore_ledger::{LossCause, LossEvidence, NodeSnapshot};
use longshore_protocol::{JobId, NodeId, NodeRecord, Timestamp};

use super::Engine;
use super::event::Action;
use super::job::Job;
use super::pool::{Pool, PoolKey};

impl Engine {
    pub(super) fn on_nodes(&mut self, now: Timestamp, snapshot: &NodeSnapshot) {
        self.jobs.forget_ceded(now);
        self.recover_lost(now, snapshot);
        let is_up = self.ledger_writes.work(now);
        self.fleet.set_judges_silence(is_up);
        let changes = self.fleet.observe(now, &snapshot.nodes);
        self.judge_isolation(now, &snapshot.nodes);
        self.orphans.heard(|node, job| self.fleet.names(node, job) == Some(true));
        for job in self.orphans.ripe(|node| self.fleet.beats(node)) {
            self.want_holders(now, job);
        }
        self.declare_dead_lost(now);
        self.declare_unlisted_lost(now, is_up);
        self.suspect_queues(now, &changes.silent_queues, true);
        self.suspect_queues(now, &changes.gone_queues, false);
        if changes.capacity {
            self.update_capacities(now);
        }
        self.rebalance(now);
        if is_up {
            self.report_blocked(now);
        }
    }

    /// Begins to take back what newly lost workers hold. Before the fleet forgets them: what a
    /// worker said of itself last tells where to look first.
    fn recover_lost(&mut self, now: Timestamp, snapshot: &NodeSnapshot) {
        let mut lost = Vec::new();
        for verdict in self.node_recovery.new_verdicts(now, &snapshot.nodes, &snapshot.lost) {
            lost.push(verdict.node.clone());
            let jobs = self.jobs.likely_held_by(&verdict.node, &self.fleet);
            self.node_recovery.begin(now, verdict, jobs);
        }
        self.want_holders_of(now, &lost);
    }

    /// Has the holders read of those own jobs of which these lost workers may hold chunks: all jobs
    /// with open chunks in the queues from which the workers took work. One read for each job
    /// serves, however many workers are lost at once.
    pub(super) fn want_holders_of(&mut self, now: Timestamp, lost: &[NodeId]) {
        if lost.is_empty() {
            return;
        }
        let infos: Option<Vec<_>> = lost.iter().map(|id| self.fleet.info(id)).collect();
        // `None`: one of the workers was never heard here, so that its queues are not known.
        let queues: Option<BTreeSet<&String>> =
            infos.map(|infos| infos.into_iter().flat_map(|info| &info.queues).collect());
        let may_hold =
            |key: &PoolKey| queues.as_ref().is_none_or(|queues| queues.contains(&key.queue));
        let pools = self.pools.iter().filter(|(key, _)| may_hold(key));
        let jobs: Vec<JobId> = pools.flat_map(|(_, pool)| pool.jobs()).copied().collect();
        for id in jobs {
            if self.jobs.own(id).is_some_and(|job| job.is_open()) {
                self.want_holders(now, id);
            }
        }
    }

    /// Decides which nodes are out of rotation, of those that this scheduler decides about.
    fn judge_isolation(&mut self, now: Timestamp, records: &[NodeRecord]) {
        let Some(ledger_now) = self.clock.at(now) else { return };
        self.isolation.observe(ledger_now, records);
        for record in records {
            let id = &record.info.id;
            if !self.fleet.is_alive(id) || !self.peers.owns(id.as_str()) {
                continue;
            }
            let may_isolate = |task: &str| self.fleet.has_others(id, task);
            let verdict = self.isolation.judge(ledger_now, record, may_isolate);
            let isolate = verdict.map(|(node, isolated)| Action::Isolate { node, isolated });
            self.actions.extend(isolate);
        }
    }

    /// Has the ledger declare those workers lost that this scheduler takes for dead.
    pub(super) fn declare_dead_lost(&mut self, now: Timestamp) {
        for (id, beat_at) in self.fleet.dead() {
            // A heartbeat that came between our last read of the list and the end of the
            // connections is no sign of life.
            let gone_at = self.fleet.disconnected_at(id).and_then(|at| self.clock.at(at));
            let (evidence, cause) = match (self.fleet.death(id), gone_at) {
                (Some(death), _) => (LossEvidence::Certain, LossCause::Crashed(death.to_owned())),
                (None, Some(at)) => (LossEvidence::SilentSince(at), LossCause::Vanished),
                (None, None) => (LossEvidence::LastBeat(beat_at), LossCause::Vanished),
            };
            self.node_recovery.declare_lost(now, id, evidence, cause, &mut self.actions);
        }
    }

    /// Has the ledger declare those holders of chunks lost that have been on no list for too long.
    fn declare_unlisted_lost(&mut self, now: Timestamp, is_up: bool) {
        let (fleet, node_recovery) = (&self.fleet, &self.node_recovery);
        // While the ledger takes no writes no worker can be on a list.
        self.unlisted.forget(|id| !is_up || fleet.is_listed(id) || node_recovery.is_lost(id));
        for id in self.unlisted.lost(now, self.config.dead_after) {
            let (evidence, cause) = (LossEvidence::Absent, LossCause::Vanished);
            self.node_recovery.declare_lost(now, &id, evidence, cause, &mut self.actions);
        }
    }

    /// Workers that take chunks came, went or changed.
    pub(super) fn update_capacities(&mut self, now: Timestamp) {
        for (id, is_changed) in self.pools.update_capacities(&self.fleet) {
            let needs_refresh = |job: &Job| {
                let task = job.task().unwrap_or_default();
                let isolated = self.fleet.isolated(&job.summary.queue, task);
                job.is_misplaced(&self.fleet) || isolated != job.refunded_nodes
            };
            // The number of slots is part of what each job offers.
            if is_changed || self.jobs.own(id).is_some_and(needs_refresh) {
                self.refresh(now, id);
            }
        }
    }

    /// Chunks that were sent to one worker stay with it though other workers are idle. Those of
    /// jobs that only some workers can run are published again while one of these is idle.
    fn rebalance(&mut self, now: Timestamp) {
        let has_idle = |key: &PoolKey| {
            let takers = self.fleet.takers(key).1;
            let infos = takers.iter().filter_map(|id| self.fleet.info(id));
            infos.into_iter().any(|info| info.busy < info.slots)
        };
        let is_uneven = |(key, pool): &(&PoolKey, &Pool)| {
            key.task.is_some() && pool.load.waiting > 0 && has_idle(key)
        };
        let jobs = self.pools.iter().filter(is_uneven).flat_map(|(_, pool)| pool.jobs()).copied();
        for id in jobs.collect::<Vec<_>>() {
            if let Some(job) = self.jobs.own_mut(id)
                && job.summary.queued_chunks > 0
            {
                job.suspect_lost_once(now);
                self.refresh(now, id);
            }
        }
    }
}
