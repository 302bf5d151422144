//! The model of the ledger's list of workers and its verdicts: the operations `beat` and `lose`.
//!
//! They are those of `ledger/lua`.
//!
//! Verdicts never expire here. In the ledger they expire after ten minutes; a holder that comes
//! later is not listed, and `LossEvidence::Absent` applies.

use crate::Mutation;
use crate::ledger::Node;

/// The time of a heartbeat: a number above those of all earlier heartbeats.
pub type Beat = u8;

/// The evidence on which a scheduler has a worker declared lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossEvidence {
    /// The last heartbeat of the worker. Void if another one has come.
    LastBeat(Beat),
    /// The worker holds chunks and is not listed. Void if it is listed.
    Absent,
}

/// The listed workers and the lost ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fleet {
    /// The workers that send heartbeats, each with its last one, by node.
    pub listed: Vec<(Node, Beat)>,
    /// The workers that are declared lost, by node.
    pub lost: Vec<Node>,
}

impl Fleet {
    /// The last heartbeat of a listed worker.
    pub fn last_beat(&self, node: Node) -> Option<Beat> {
        self.listed.iter().find(|(listed, _)| *listed == node).map(|(_, beat)| *beat)
    }

    /// Whether a worker is declared lost.
    pub fn is_lost(&self, node: Node) -> bool {
        self.lost.contains(&node)
    }

    /// Lists the worker of a heartbeat, and voids a verdict on it.
    pub fn beat(&mut self, node: Node, beat: Beat, mutation: Option<Mutation>) {
        self.listed.retain(|(listed, _)| *listed != node);
        self.listed.push((node, beat));
        self.listed.sort_unstable();
        if mutation != Some(Mutation::VerdictsStay) {
            self.lost.retain(|lost| *lost != node);
        }
    }

    /// Declares a worker lost, unless the evidence is void. Returns whether it is.
    pub fn lose(&mut self, node: Node, evidence: LossEvidence, mutation: Option<Mutation>) -> bool {
        let is_void =
            self.last_beat(node).is_some_and(|beat| evidence != LossEvidence::LastBeat(beat));
        if is_void && mutation != Some(Mutation::EvidenceUnchecked) {
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
