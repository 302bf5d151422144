//! The recovery of workers that look dead, as steps of the model: judge, declare, learn, revoke.
//!
//! ```text
//!   Judge ──▶ Declare ──▶ declared lost ──▶ Learn ──▶ Revoke
//!                              ▲    │
//!                        Beat ─┘    └─▶ void
//! ```
//!
//! Either scheduler may judge; only the owner of the queue learns and revokes. Between any two
//! steps the worker may send a heartbeat, claim, or commit, and the other scheduler may become the
//! owner.

use crate::fleet::{Beat, LossEvidence};
use crate::ledger::{Node, RANGES, Request};
use crate::world::{Action, NextStep, OWNER, State, WORKERS};
use crate::{Config, Mutation, properties};

impl State {
    /// A number above those of all heartbeats in use.
    pub fn fresh_beat(&self) -> Beat {
        let ledgers = [Some(&self.ledger), self.saved.as_deref()];
        let listed = ledgers.into_iter().flatten().flat_map(|ledger| &ledger.fleet.listed);
        let judged = self.next_steps.iter().filter_map(|step| match step {
            NextStep::Judging { evidence: LossEvidence::LastBeat(beat), .. } => Some(*beat),
            _ => None,
        });
        listed.map(|(_, beat)| *beat).chain(judged).max().map_or(0, |newest| newest + 1)
    }

    /// The nodes that hold a chunk, or will if a late claim arrives. Verdicts on other nodes change
    /// nothing.
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

    /// The evidence on which a scheduler that considers a node dead has it declared lost.
    fn evidence(&self, node: Node) -> Option<LossEvidence> {
        match self.ledger.fleet.last_beat(node) {
            Some(beat) => Some(LossEvidence::LastBeat(beat)),
            None => (!self.ledger.fleet.is_lost(node)).then_some(LossEvidence::Absent),
        }
    }

    /// Whether a heartbeat of this node would change the state.
    fn changes_by_beat(&self, node: Node) -> bool {
        let Some(beat) = self.ledger.fleet.last_beat(node) else { return true };
        let evidence = LossEvidence::LastBeat(beat);
        self.ledger.fleet.is_lost(node)
            || self.next_steps.contains(&NextStep::Judging { node, evidence })
    }
}

impl Config {
    /// The possible steps in the recovery of workers.
    pub(crate) fn recovery_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let concerned = state.concerned();
        // Any scheduler may judge, so one without another step does.
        if let Some(scheduler) =
            state.next_steps.iter().rposition(|step| *step == NextStep::Nothing)
        {
            let judge = |node: Node| {
                let evidence = state.evidence(node)?;
                let is_left = self.mutation == Some(Mutation::NoAbsent);
                let wrongly = state.is_alive(node);
                (evidence != LossEvidence::Absent || !is_left).then_some(Action::Judge {
                    scheduler,
                    node,
                    evidence,
                    wrongly,
                })
            };
            actions.extend(concerned.iter().copied().filter_map(judge));
        }
        if state.next_steps[OWNER] == NextStep::Nothing {
            let is_due = |node: &Node| match self.mutation {
                Some(Mutation::OneRecovers) => false,
                Some(Mutation::RevokesOnce) => !state.revoked_once.contains(node),
                _ => state.ledger.holds(*node),
            };
            let lost = concerned.iter().copied().filter(|node| state.ledger.fleet.is_lost(*node));
            actions.extend(lost.filter(is_due).map(|node| Action::Learn { node }));
        }
        for (scheduler, step) in state.next_steps.into_iter().enumerate() {
            match step {
                NextStep::Nothing => {}
                NextStep::Judging { .. } => actions.push(Action::Declare { scheduler }),
                NextStep::Revoking { .. } => actions.push(Action::Revoke { scheduler }),
            }
            let other = state.next_steps[1 - scheduler];
            if step != NextStep::Nothing || scheduler == OWNER && other != NextStep::Nothing {
                actions.push(Action::SchedulerDies { scheduler });
            }
        }
        if state.next_steps[OWNER] != state.next_steps[1 - OWNER] {
            actions.push(Action::TakeOver);
        }
        let alive = (0..WORKERS).map(|worker| state.node(worker));
        let alive: Vec<Node> = alive.filter(|node| state.is_alive(*node)).collect();
        let dead = concerned.into_iter().filter(|node| !state.is_alive(*node));
        let beats = alive.iter().map(|node| (*node, false)).chain(dead.map(|node| (node, true)));
        let beats = beats.filter(|(node, _)| state.changes_by_beat(*node));
        actions.extend(beats.map(|(node, late)| Action::Beat { node, late }));
    }

    /// Takes a step of a recovery.
    pub(crate) fn recover(&self, state: &mut State, action: Action) -> Result<(), &'static str> {
        match action {
            Action::Judge { scheduler, node, evidence, .. } => {
                state.next_steps[scheduler] = NextStep::Judging { node, evidence };
            }
            Action::Declare { scheduler } => self.declare(state, scheduler)?,
            Action::Learn { node } => {
                state.next_steps[OWNER] = NextStep::Revoking { node };
                if self.mutation == Some(Mutation::RevokesOnce) {
                    state.revoked_once.push(node);
                }
            }
            Action::Revoke { scheduler } => {
                let NextStep::Revoking { node } = state.next_steps[scheduler] else {
                    unreachable!("it revokes")
                };
                state.next_steps[scheduler] = NextStep::Nothing;
                self.change(state, |ledger| ledger.revoke(node, self.mutation))?;
            }
            Action::SchedulerDies { scheduler } => {
                state.next_steps[scheduler] = NextStep::Nothing;
                if scheduler == OWNER {
                    state.next_steps.reverse();
                }
            }
            Action::TakeOver => state.next_steps.reverse(),
            Action::Beat { node, .. } => self.beat(state, node)?,
            _ => unreachable!("{action:?} is about something else"),
        }
        Ok(())
    }

    fn declare(&self, state: &mut State, scheduler: usize) -> Result<(), &'static str> {
        let NextStep::Judging { node, evidence } = state.next_steps[scheduler] else {
            unreachable!("it judges")
        };
        let before = state.ledger.fleet.clone();
        let mut is_lost = false;
        self.change(state, |ledger| is_lost = ledger.fleet.lose(node, evidence, self.mutation))?;
        properties::check_verdict(&before, (node, evidence), &state.ledger.fleet)?;
        let knows_job = scheduler == OWNER;
        let revokes = is_lost && knows_job && self.mutation == Some(Mutation::OneRecovers);
        state.next_steps[scheduler] =
            if revokes { NextStep::Revoking { node } } else { NextStep::Nothing };
        Ok(())
    }

    /// Executes a heartbeat.
    pub(crate) fn beat(&self, state: &mut State, node: Node) -> Result<(), &'static str> {
        let beat = state.fresh_beat();
        state.revoked_once.retain(|other| *other != node);
        self.change(state, |ledger| ledger.fleet.beat(node, beat, self.mutation))
    }
}
