//! Has dead workers declared lost, and takes back what lost workers hold of this scheduler's jobs.
//!
//! Which workers are lost is recorded in the ledger, for all schedulers alike. A scheduler that
//! finds a worker dead has the ledger declare it lost; the ledger refuses if the worker has sent a
//! heartbeat since. On each verdict every scheduler revokes what the worker holds of the jobs of
//! its own queues: it opened their chunks, so it knows which jobs may have some. Of a job that it
//! begins to know later (a take-over, a restart) it reads the holders first, and compares them with
//! the verdicts, which the ledger keeps for a while.
//!
//! ```text
//!   worker found dead ─▶ DeclareLost ─▶ LossVerdict ──┐
//!   the ledger's list of lost workers ────────────────┼─▶ RevokeNode, for each own job ─▶ Revoked
//!   holders of a job, compared with that list ────────┘
//! ```
//!
//! Deliberately absent: which workers are dead (see `fleet`); holders that are on neither list, or
//! do not know what they hold (see `holders`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_ledger::{LossCause, LossEvidence, LostNode};
use longshore_protocol::{JobId, NodeId, NodeRecord, Timestamp};

use super::event::Action;

/// The pause before a call that failed is repeated, and before the ledger is asked again to declare
/// a worker lost whose heartbeat came after all.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The most revokes in flight: the ledger answers thousands a second, and other calls need it too.
const MAX_IN_FLIGHT: usize = 64;

/// A list that lacks a verdict was read before it, if the verdict is not older than this.
const OLDEST_LIST: Duration = Duration::from_secs(5);

/// The workers that are lost, and what is still to be taken from them.
#[derive(Debug, Default)]
pub(super) struct NodeRecovery {
    recoveries: BTreeMap<NodeId, Recovery>,
    /// Workers that the ledger was asked to declare lost, and until when it is not asked again.
    declared: BTreeMap<NodeId, Timestamp>,
    /// Revokes that were not answered yet.
    in_flight: usize,
    /// When the last verdict became known.
    last_verdict_at: Option<Timestamp>,
}

/// One lost worker.
#[derive(Debug)]
struct Recovery {
    verdict: LostNode,
    /// When the verdict became known here.
    since: Timestamp,
    /// Jobs of which the worker may hold chunks, in the order in which they are revoked.
    jobs: VecDeque<JobId>,
    /// Jobs whose revoke was not answered yet.
    in_flight: BTreeSet<JobId>,
    /// No revoke is made before this time, since one failed.
    paused_until: Timestamp,
}

impl NodeRecovery {
    /// Whether this worker is lost.
    pub(super) fn is_lost(&self, node: &NodeId) -> bool {
        self.recoveries.contains_key(node)
    }

    /// Whether a verdict became known at this time or later.
    pub(super) fn has_verdict_since(&self, at: Timestamp) -> bool {
        self.last_verdict_at.is_some_and(|last| last >= at)
    }

    /// Has the ledger declare a worker lost.
    pub(super) fn declare_lost(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        evidence: LossEvidence,
        cause: LossCause,
        actions: &mut Vec<Action>,
    ) {
        let waits = self.declared.get(node).is_some_and(|until| now < *until);
        if !waits && !self.is_lost(node) {
            // Longer than the call takes; its answer shortens or ends it.
            self.declared.insert(node.clone(), now.plus(8 * RETRY_AFTER));
            actions.push(Action::DeclareLost { node: node.clone(), evidence, cause });
        }
    }

    /// The ledger answered, or did not; `is_lost` says whether a verdict stands.
    pub(super) fn verdict_answered(&mut self, now: Timestamp, node: &NodeId, is_lost: bool) {
        self.declared.insert(node.clone(), if is_lost { now } else { now.plus(RETRY_AFTER) });
    }

    /// Takes in the ledger's lists: returns the verdicts that are new, and drops those of workers
    /// that send heartbeats again.
    pub(super) fn new_verdicts<'a>(
        &mut self,
        now: Timestamp,
        listed: &[NodeRecord],
        lost: &'a [LostNode],
    ) -> Vec<&'a LostNode> {
        let beats: BTreeMap<&NodeId, Timestamp> =
            listed.iter().map(|record| (&record.info.id, record.beat_at)).collect();
        let on_list: BTreeSet<&NodeId> = lost.iter().map(|verdict| &verdict.node).collect();
        self.recoveries.retain(|node, known| match beats.get(node) {
            Some(beat_at) => *beat_at == known.verdict.beat_at,
            None => on_list.contains(node) || now.since(known.since) < OLDEST_LIST,
        });
        self.declared.retain(|_, until| now < *until);
        let is_new =
            |verdict: &&LostNode| !beats.contains_key(&verdict.node) && !self.is_known(verdict);
        lost.iter().filter(is_new).collect()
    }

    fn is_known(&self, verdict: &LostNode) -> bool {
        self.recoveries.get(&verdict.node).is_some_and(|known| known.verdict.at == verdict.at)
    }

    /// A verdict became known; `jobs` are those of which the worker surely held chunks. Returns
    /// whether the verdict is new.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        verdict: &LostNode,
        jobs: VecDeque<JobId>,
    ) -> bool {
        if self.is_known(verdict) {
            return false;
        }
        self.last_verdict_at = Some(now);
        let recovery = Recovery {
            verdict: verdict.clone(),
            since: now,
            jobs,
            in_flight: BTreeSet::new(),
            paused_until: now,
        };
        self.recoveries.insert(verdict.node.clone(), recovery);
        true
    }

    /// A lost worker holds chunks of this job.
    pub(super) fn add_job(&mut self, node: &NodeId, job: JobId) {
        if let Some(recovery) = self.recoveries.get_mut(node)
            && !recovery.jobs.contains(&job)
            && !recovery.in_flight.contains(&job)
        {
            recovery.jobs.push_front(job);
        }
    }

    /// Takes from a worker that is alive what it claimed up to this time without knowing it.
    pub(super) fn revoke_orphans(
        &mut self,
        (job, node): (JobId, NodeId),
        claimed_by: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.in_flight += 1;
        let cause = LossCause::Orphaned { claimed_by };
        actions.push(Action::RevokeNode { job, node, cause });
    }

    /// Starts the revokes that are to be made now.
    pub(super) fn start_due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (node, recovery) in &mut self.recoveries {
            while now >= recovery.paused_until && self.in_flight < MAX_IN_FLIGHT {
                let Some(job) = recovery.jobs.pop_front() else { break };
                recovery.in_flight.insert(job);
                self.in_flight += 1;
                let (node, cause) = (node.clone(), recovery.verdict.loss.clone());
                actions.push(Action::RevokeNode { job, node, cause });
            }
        }
    }

    /// A revoke was answered, or failed.
    pub(super) fn revoked(&mut self, now: Timestamp, node: &NodeId, job: JobId, is_done: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(recovery) = self.recoveries.get_mut(node) else { return };
        if recovery.in_flight.remove(&job) && !is_done {
            recovery.jobs.push_back(job);
            recovery.paused_until = now.plus(RETRY_AFTER);
        }
    }

    /// When a revoke is to be made next.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let waits = |it: &&Recovery| !it.jobs.is_empty() && self.in_flight < MAX_IN_FLIGHT;
        self.recoveries.values().filter(waits).map(|it| it.paused_until).min()
    }
}
