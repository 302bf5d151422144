//! What schedulers and heartbeats do about workers that look dead: judge, declare, learn, revoke.
//!
//! ```text
//!   Judge ──▶ Declare ──▶ a verdict stands ──▶ Learn ──▶ Revoke
//!                              ▲    │
//!                        Beat ─┘    └─▶ void
//! ```
//!
//! Either scheduler may judge; only the owner of the queue learns and revokes. Between any two
//! steps the worker may beat again, claim, or commit, and the queue may fall to the other
//! scheduler.

use crate::fleet::{Beat, LossEvidence};
use crate::ledger::{Node, RANGES, Request};
use crate::world::{Action, Hand, OWNER, State, WORKERS};
use crate::{Config, Mutation, properties};

impl State {
    /// A number above those of all heartbeats that anybody remembers.
    pub fn fresh_beat(&self) -> Beat {
        let ledgers = [Some(&self.ledger), self.saved.as_deref()];
        let listed = ledgers.into_iter().flatten().flat_map(|ledger| &ledger.fleet.listed);
        let judged = self.hands.iter().filter_map(|hand| match hand {
            Hand::Judging { grounds: LossEvidence::LastBeat(beat), .. } => Some(*beat),
            _ => None,
        });
        listed.map(|(_, beat)| *beat).chain(judged).max().map_or(0, |newest| newest + 1)
    }

    /// The nodes that hold something, or will if a claim of theirs arrives. Whether others are lost
    /// changes nothing.
    fn concerned(&self) -> Vec<Node> {
        let claims = self.late.iter().filter_map(|request| match *request {
            Request::Claim { node, .. } => Some(node),
            _ => None,
        });
        let held = (0..RANGES.len() as u8).flat_map(|chunk| self.ledger.holders(chunk));
        let mut nodes: Vec<Node> = held.map(|(_, node)| node).chain(claims).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The grounds on which a scheduler that takes a node for dead has it declared lost.
    fn grounds(&self, node: Node) -> Option<LossEvidence> {
        match self.ledger.fleet.last_beat(node) {
            Some(beat) => Some(LossEvidence::LastBeat(beat)),
            None => (!self.ledger.fleet.is_lost(node)).then_some(LossEvidence::Absent),
        }
    }

    /// Whether a heartbeat of this node would change anything.
    fn is_beat_news(&self, node: Node) -> bool {
        let Some(beat) = self.ledger.fleet.last_beat(node) else { return true };
        let grounds = LossEvidence::LastBeat(beat);
        self.ledger.fleet.is_lost(node) || self.hands.contains(&Hand::Judging { node, grounds })
    }
}

impl Config {
    /// What can happen about workers that look dead.
    pub(crate) fn recovery_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let concerned = state.concerned();
        // It makes no difference who judges, so a scheduler does that has nothing else in hand.
        if let Some(scheduler) = state.hands.iter().rposition(|hand| *hand == Hand::Empty) {
            let judge = |node: Node| {
                let grounds = state.grounds(node)?;
                let is_left = self.mutation == Some(Mutation::NoAbsent);
                let wrongly = state.is_alive(node);
                (grounds != LossEvidence::Absent || !is_left).then_some(Action::Judge {
                    scheduler,
                    node,
                    grounds,
                    wrongly,
                })
            };
            actions.extend(concerned.iter().copied().filter_map(judge));
        }
        if state.hands[OWNER] == Hand::Empty {
            let is_due = |node: &Node| match self.mutation {
                Some(Mutation::OneRecovers) => false,
                Some(Mutation::RevokesOnce) => !state.dealt_with.contains(node),
                _ => state.ledger.holds(*node),
            };
            let lost = concerned.iter().copied().filter(|node| state.ledger.fleet.is_lost(*node));
            actions.extend(lost.filter(is_due).map(|node| Action::Learn { node }));
        }
        for (scheduler, hand) in state.hands.into_iter().enumerate() {
            match hand {
                Hand::Empty => {}
                Hand::Judging { .. } => actions.push(Action::Declare { scheduler }),
                Hand::Revoking { .. } => actions.push(Action::Revoke { scheduler }),
            }
            let other = state.hands[1 - scheduler];
            if hand != Hand::Empty || scheduler == OWNER && other != Hand::Empty {
                actions.push(Action::SchedulerDies { scheduler });
            }
        }
        if state.hands[OWNER] != state.hands[1 - OWNER] {
            actions.push(Action::TakeOver);
        }
        let alive = (0..WORKERS).map(|worker| state.node(worker));
        let alive: Vec<Node> = alive.filter(|node| state.is_alive(*node)).collect();
        let dead = concerned.into_iter().filter(|node| !state.is_alive(*node));
        let beats = alive.iter().map(|node| (*node, false)).chain(dead.map(|node| (node, true)));
        let beats = beats.filter(|(node, _)| state.is_beat_news(*node));
        actions.extend(beats.map(|(node, late)| Action::Beat { node, late }));
    }

    /// Takes one of these steps.
    pub(crate) fn recover(&self, state: &mut State, action: Action) -> Result<(), &'static str> {
        match action {
            Action::Judge { scheduler, node, grounds, .. } => {
                state.hands[scheduler] = Hand::Judging { node, grounds };
            }
            Action::Declare { scheduler } => self.declare(state, scheduler)?,
            Action::Learn { node } => {
                state.hands[OWNER] = Hand::Revoking { node };
                if self.mutation == Some(Mutation::RevokesOnce) {
                    state.dealt_with.push(node);
                }
            }
            Action::Revoke { scheduler } => {
                let Hand::Revoking { node } = state.hands[scheduler] else {
                    unreachable!("it revokes")
                };
                state.hands[scheduler] = Hand::Empty;
                self.change(state, |ledger| ledger.revoke(node, self.mutation))?;
            }
            Action::SchedulerDies { scheduler } => {
                state.hands[scheduler] = Hand::Empty;
                if scheduler == OWNER {
                    state.hands.reverse();
                }
            }
            Action::TakeOver => state.hands.reverse(),
            Action::Beat { node, .. } => self.beat(state, node)?,
            _ => unreachable!("{action:?} is about something else"),
        }
        Ok(())
    }

    fn declare(&self, state: &mut State, scheduler: usize) -> Result<(), &'static str> {
        let Hand::Judging { node, grounds } = state.hands[scheduler] else {
            unreachable!("it judges")
        };
        let before = state.ledger.fleet.clone();
        let mut is_lost = false;
        self.change(state, |ledger| is_lost = ledger.fleet.lose(node, grounds, self.mutation))?;
        properties::check_verdict(&before, (node, grounds), &state.ledger.fleet)?;
        let knows_job = scheduler == OWNER;
        let revokes = is_lost && knows_job && self.mutation == Some(Mutation::OneRecovers);
        state.hands[scheduler] = if revokes { Hand::Revoking { node } } else { Hand::Empty };
        Ok(())
    }

    /// A heartbeat arrives.
    pub(crate) fn beat(&self, state: &mut State, node: Node) -> Result<(), &'static str> {
        let beat = state.fresh_beat();
        state.dealt_with.retain(|other| *other != node);
        self.change(state, |ledger| ledger.fleet.beat(node, beat, self.mutation))
    }
}
