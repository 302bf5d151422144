//! What becomes of workers that are no more: their work is taken back, then they are forgotten.
//!
//! A claim that a worker had sent before it froze can be executed after its chunks were revoked. So
//! each burial has a second pass, long after the worker has given up by itself. Deliberately
//! absent: who is dead (see `fleet`).

use std::collections::BTreeMap;
use std::time::Duration;

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
    died: bool,
    pass: Pass,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    First,
    Second,
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

    /// A worker died, or left without a word. Does nothing for one that is being buried.
    pub(super) fn begin(&mut self, now: Timestamp, node: &NodeId, died: bool) {
        let first = || Grave { died, pass: Pass::First, stage: Stage::Waits(now) };
        self.graves.entry(node.clone()).or_insert_with(first);
    }

    /// A worker that was taken for dead beats again: it stays on the list.
    pub(super) fn spare(&mut self, node: &NodeId) {
        self.graves.remove(node);
    }

    /// What is to be done now.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        jobs: impl Fn() -> Vec<JobId>,
        actions: &mut Vec<Action>,
    ) {
        for (node, grave) in &mut self.graves {
            if matches!(grave.stage, Stage::Waits(until) if until <= now) {
                grave.stage = Stage::Digs;
                actions.push(Action::Bury {
                    node: node.clone(),
                    jobs: jobs(),
                    died: grave.died,
                    forget: grave.died && grave.pass == Pass::First,
                });
            }
        }
    }

    /// An action came to its end.
    pub(super) fn done(&mut self, now: Timestamp, node: &NodeId, complete: bool) {
        let Some(grave) = self.graves.get_mut(node) else { return };
        match (complete, grave.pass) {
            (false, _) => grave.stage = Stage::Waits(now.plus(AGAIN)),
            (true, Pass::First) => {
                grave.pass = Pass::Second;
                grave.stage = Stage::Waits(now.plus(2 * self.dead_after));
            }
            (true, Pass::Second) => {
                self.graves.remove(node);
            }
        }
    }

    /// Those whose first pass is not over: they are still on the list.
    pub(super) fn first_pass(&self) -> impl Iterator<Item = &NodeId> {
        self.graves.iter().filter(|(_, grave)| grave.pass == Pass::First).map(|(node, _)| node)
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
