//! The ledger's list of workers and its verdicts: `beat` and `lose`, as `ledger/lua` has them.
//!
//! Verdicts are never forgotten here. The ledger forgets them after ten minutes; a holder that
//! comes later is on no list, and `LossEvidence::Absent` applies.

use crate::Mutation;
use crate::ledger::Node;

/// When a heartbeat came: a number above those of all heartbeats before it.
pub type Beat = u8;

/// On what grounds a scheduler has a worker declared lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossEvidence {
    /// This was its last heartbeat. Void if another one has come.
    LastBeat(Beat),
    /// It holds chunks and is on no list. Void if it is on the list.
    Absent,
}

/// Who beats, and who is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fleet {
    /// The workers that beat, each with its last heartbeat, by node.
    pub listed: Vec<(Node, Beat)>,
    /// The workers on which a verdict stands, by node.
    pub lost: Vec<Node>,
}

impl Fleet {
    /// The last heartbeat of a worker that is on the list.
    pub fn last_beat(&self, node: Node) -> Option<Beat> {
        self.listed.iter().find(|(listed, _)| *listed == node).map(|(_, beat)| *beat)
    }

    /// Whether a verdict stands on a worker.
    pub fn is_lost(&self, node: Node) -> bool {
        self.lost.contains(&node)
    }

    /// A heartbeat puts its worker on the list, and makes a verdict void.
    pub fn beat(&mut self, node: Node, beat: Beat, mutation: Option<Mutation>) {
        self.listed.retain(|(listed, _)| *listed != node);
        self.listed.push((node, beat));
        self.listed.sort_unstable();
        if mutation != Some(Mutation::VerdictsStay) {
            self.lost.retain(|lost| *lost != node);
        }
    }

    /// Declares a worker lost, unless the grounds are void; whether a verdict stands now.
    pub fn lose(&mut self, node: Node, grounds: LossEvidence, mutation: Option<Mutation>) -> bool {
        let is_void =
            self.last_beat(node).is_some_and(|beat| grounds != LossEvidence::LastBeat(beat));
        if is_void && mutation != Some(Mutation::GroundsUnchecked) {
            return false;
        }
        self.listed.retain(|(listed, _)| *listed != node);
        if !self.is_lost(node) && mutation != Some(Mutation::VerdictsDropped) {
            self.lost.push(node);
            self.lost.sort_unstable();
        }
        true
    }
}
