//! What becomes of workers that are no more: their work is taken back, then they are forgotten.
//!
//! What a worker held may be of any job. Of ten thousand it is one or two, so a burial begins with the likely ones: once those
//! are done with, what was taken back can run while the others are gone through.
//!
//! A claim that a worker had sent before it froze can be executed after its chunks were revoked. So
//! each burial has one more pass, long after the worker has given up by itself. Deliberately
//! absent: who is dead (see `fleet`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_ledger::Loss;
use longshore_protocol::{JobId, NodeId, Timestamp};

use super::event::Action;

/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Burials under way.
#[derive(Debug)]
pub(super) struct Burials {
    dead_after: Duration,
    graves: BTreeMap<NodeId, Grave>,
}

#[derive(Debug)]
struct Grave {
    loss: Loss,
    /// Jobs of which it probably held something.
    likely: BTreeSet<JobId>,
    pass: Pass,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// The likely jobs.
    Likely,
    /// All others; then it is forgotten.
    Others,
    /// All of them, much later.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until then nothing is done.
    Waits(Timestamp),
    /// An action is under way.
    Digs,
}

impl Burials {
    /// None.
    pub(super) fn new(dead_after: Duration) -> Self {
        Self { dead_after, graves: BTreeMap::new() }
    }

    /// A worker died, or left without a word; `likely` gives the jobs of which it probably held something. Does nothing for one
    /// that is being buried.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        loss: Loss,
        likely: impl FnOnce() -> BTreeSet<JobId>,
    ) {
        let grave = || {
            let likely = likely();
            let pass = if likely.is_empty() { Pass::Others } else { Pass::Likely };
            Grave { loss, likely, pass, stage: Stage::Waits(now) }
        };
        self.graves.entry(node.clone()).or_insert_with(grave);
    }

    /// Workers that were taken for dead and beat again keep what they hold, and what they take on from now on.
    pub(super) fn spare(&mut self, is_alive: impl Fn(&NodeId) -> bool) {
        self.graves.retain(|node, _| !is_alive(node));
    }

    /// What is to be done now.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        known: &(impl Iterator<Item = JobId> + Clone),
        actions: &mut Vec<Action>,
    ) {
        for (node, grave) in &mut self.graves {
            if !matches!(grave.stage, Stage::Waits(until) if until <= now) {
                continue;
            }
            grave.stage = Stage::Digs;
            let others = || known.clone().filter(|job| !grave.likely.contains(job));
            let jobs: Vec<JobId> = match grave.pass {
                Pass::Likely => grave.likely.iter().copied().collect(),
                Pass::Others => others().collect(),
                Pass::Again => known.clone().collect(),
            };
            if grave.pass == Pass::Likely && others().next().is_none() {
                grave.pass = Pass::Others;
            }
            let forget = grave.loss != Loss::Left && grave.pass == Pass::Others;
            actions.push(Action::Bury {
                node: node.clone(),
                jobs,
                loss: grave.loss.clone(),
                forget,
            });
        }
    }

    /// An action came to its end.
    pub(super) fn done(&mut self, now: Timestamp, node: &NodeId, complete: bool) {
        let Some(grave) = self.graves.get_mut(node) else { return };
        match (complete, grave.pass) {
            (false, _) => grave.stage = Stage::Waits(now.plus(AGAIN)),
            (true, Pass::Likely) => {
                grave.pass = Pass::Others;
                grave.stage = Stage::Waits(now);
            }
            (true, Pass::Others) => {
                grave.pass = Pass::Again;
                grave.stage = Stage::Waits(now.plus(2 * self.dead_after));
            }
            (true, Pass::Again) => {
                self.graves.remove(node);
            }
        }
    }

    /// When something is to be done next.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.graves
            .values()
            .filter_map(|grave| match grave.stage {
                Stage::Waits(until) => Some(until),
                Stage::Digs => None,
            })
            .min()
    }
}
