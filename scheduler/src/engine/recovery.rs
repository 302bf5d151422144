//! Takes back what lost workers hold of this scheduler's own jobs.
//!
//! Who is lost stands in the ledger, for all schedulers alike. Whoever finds that a worker died has it declared lost there; the
//! ledger refuses that if the worker has sent a heartbeat since. On each verdict every scheduler revokes what the worker holds of
//! the jobs of its own queues: it opened their chunks, so it knows which jobs may have some. Of a job that it begins to know
//! later (a take-over, a restart) it reads the holders first, and compares them with the verdicts, which stand for a while.
//!
//! ```text
//!   this scheduler's judgement ──▶ Lose ──▶ Declared ──┐
//!   the ledger's list of the lost ─────────────────────┼──▶ Revoke, for each own job ──▶ Revoked
//!   holders of a job, compared with it ────────────────┘
//! ```
//!
//! Deliberately absent: who is dead (see `fleet`); holders that are on neither list, or know nothing of what they hold (see
//! `holders`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_ledger::{LossCause, LossEvidence, LostNode};
use longshore_protocol::{JobId, NodeId, NodeRecord, Timestamp};

use super::event::Action;

/// How soon a call that failed is repeated, and a worker judged once more whose heartbeat came after all.
const AGAIN: Duration = Duration::from_millis(250);

/// Most revokes under way: the ledger answers thousands a second, and others want something of it too.
const MOST_IN_FLIGHT: usize = 64;

/// A list that lacks a verdict was read before it, if the verdict is not older than this.
const OLDEST_LIST: Duration = Duration::from_secs(5);

/// The workers that are lost, and what is still to be taken from them.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    lost: BTreeMap<NodeId, Lost>,
    /// Judged here; until when the ledger is not asked again.
    judged: BTreeMap<NodeId, Timestamp>,
    in_flight: usize,
    /// When the last verdict became known.
    last_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Lost {
    verdict: LostNode,
    /// When the verdict became known here.
    since: Timestamp,
    /// Jobs that may have something to take, in this order.
    jobs: VecDeque<JobId>,
    /// Jobs whose revoke has not been answered.
    under_way: BTreeSet<JobId>,
    /// Until then nothing is asked, since a call failed.
    rests_until: Timestamp,
}

impl Recovery {
    /// Whether this worker is lost.
    pub(super) fn is_lost(&self, node: &NodeId) -> bool {
        self.lost.contains_key(node)
    }

    /// Whether a verdict became known at this time or later.
    pub(super) fn is_news_since(&self, at: Timestamp) -> bool {
        self.last_at.is_some_and(|last| last >= at)
    }

    /// Asks the ledger to declare a worker lost.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        grounds: LossEvidence,
        loss: LossCause,
        actions: &mut Vec<Action>,
    ) {
        let waits = self.judged.get(node).is_some_and(|until| now < *until);
        if !waits && !self.is_lost(node) {
            // Longer than the call takes; its answer shortens or ends it.
            self.judged.insert(node.clone(), now.plus(8 * AGAIN));
            actions.push(Action::Lose { node: node.clone(), grounds, loss });
        }
    }

    /// The ledger answered, or did not; `is_lost` is whether a verdict stands.
    pub(super) fn answered(&mut self, now: Timestamp, node: &NodeId, is_lost: bool) {
        self.judged.insert(node.clone(), if is_lost { now } else { now.plus(AGAIN) });
    }

    /// Takes in the ledger's lists: gives the verdicts that are new, and drops those of workers that beat again.
    pub(super) fn news<'a>(
        &mut self,
        now: Timestamp,
        listed: &[NodeRecord],
        lost: &'a [LostNode],
    ) -> Vec<&'a LostNode> {
        let beats: BTreeMap<&NodeId, Timestamp> =
            listed.iter().map(|record| (&record.info.id, record.beat_at)).collect();
        let told: BTreeSet<&NodeId> = lost.iter().map(|verdict| &verdict.node).collect();
        self.lost.retain(|node, known| match beats.get(node) {
            Some(beat_at) => *beat_at == known.verdict.beat_at,
            None => told.contains(node) || now.since(known.since) < OLDEST_LIST,
        });
        self.judged.retain(|_, until| now < *until);
        let is_new =
            |verdict: &&LostNode| !beats.contains_key(&verdict.node) && !self.is_known(verdict);
        lost.iter().filter(is_new).collect()
    }

    fn is_known(&self, verdict: &LostNode) -> bool {
        self.lost.get(&verdict.node).is_some_and(|known| known.verdict.at == verdict.at)
    }

    /// A verdict became known; `jobs` are those of which the worker surely held something. Gives whether it is new.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        verdict: &LostNode,
        jobs: VecDeque<JobId>,
    ) -> bool {
        if self.is_known(verdict) {
            return false;
        }
        self.last_at = Some(now);
        let lost = Lost {
            verdict: verdict.clone(),
            since: now,
            jobs,
            under_way: BTreeSet::new(),
            rests_until: now,
        };
        self.lost.insert(verdict.node.clone(), lost);
        true
    }

    /// A lost worker holds something of this job.
    pub(super) fn take_back(&mut self, node: &NodeId, job: JobId) {
        if let Some(lost) = self.lost.get_mut(node)
            && !lost.jobs.contains(&job)
            && !lost.under_way.contains(&job)
        {
            lost.jobs.push_front(job);
        }
    }

    /// Takes from a worker that lives what it claimed up to this time without knowing it.
    pub(super) fn take_orphans(
        &mut self,
        (job, node): (JobId, NodeId),
        claimed_by: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.in_flight += 1;
        actions.push(Action::Revoke { job, node, loss: LossCause::Orphaned { claimed_by } });
    }

    /// The revokes that are to be made now.
    pub(super) fn due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (node, lost) in &mut self.lost {
            while now >= lost.rests_until && self.in_flight < MOST_IN_FLIGHT {
                let Some(job) = lost.jobs.pop_front() else { break };
                lost.under_way.insert(job);
                self.in_flight += 1;
                let (node, loss) = (node.clone(), lost.verdict.loss.clone());
                actions.push(Action::Revoke { job, node, loss });
            }
        }
    }

    /// A revoke was answered, or not.
    pub(super) fn revoked(&mut self, now: Timestamp, node: &NodeId, job: JobId, is_done: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(lost) = self.lost.get_mut(node) else { return };
        if lost.under_way.remove(&job) && !is_done {
            lost.jobs.push_back(job);
            lost.rests_until = now.plus(AGAIN);
        }
    }

    /// When something is to be done next.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let waits = |lost: &&Lost| !lost.jobs.is_empty() && self.in_flight < MOST_IN_FLIGHT;
        self.lost.values().filter(waits).map(|lost| lost.rests_until).min()
    }
}
