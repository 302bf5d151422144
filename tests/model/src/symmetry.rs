//! Symmetry reduction: a key that is equal for states which differ only in names.
//!
//! Tokens and nodes are only compared, so they are numbered in the order of their appearance in the
//! state. Workers are interchangeable, so the key is the smaller one of the state and its mirror
//! image. The history of tokens that are not in use any more is left out, and so are the list entry
//! and the verdict of a node without steps, chunks and requests. Of the heartbeats of a node only
//! the order counts.

use crate::fleet::{Beat, LossEvidence};
use crate::ledger::{Ledger, Node, RANGES, Request, Speculation, TokenNumber};
use crate::world::{NextStep, State, Then, WORKERS, Worker};

/// Stands for a token that is not in use any more.
const UNUSED: u8 = u8::MAX - 1;
const NONE: u8 = u8::MAX;

/// The key of a state.
pub(crate) fn key(state: &State) -> Vec<u8> {
    let plain = Key::of(state, false);
    let mirrored = Key::of(state, true);
    plain.min(mirrored)
}

struct Key<'a> {
    state: &'a State,
    mirrored: bool,
    tokens: Vec<TokenNumber>,
    nodes: Vec<Node>,
    bytes: Vec<u8>,
}

impl Key<'_> {
    fn of(state: &State, mirrored: bool) -> Vec<u8> {
        let bytes = Vec::with_capacity(96);
        let mut key = Key { state, mirrored, tokens: Vec::new(), nodes: Vec::new(), bytes };
        for worker in 0..WORKERS {
            key.worker(if mirrored { WORKERS - 1 - worker } else { worker });
        }
        key.late();
        key.ledger(&state.ledger);
        match &state.saved {
            Some(saved) => key.ledger(saved),
            None => key.bytes.push(NONE),
        }
        for step in state.next_steps {
            let (kind, node) = match step {
                NextStep::Nothing => (0, NONE),
                NextStep::Judging { node, evidence: LossEvidence::LastBeat(_) } => {
                    (1, key.node(node))
                }
                NextStep::Judging { node, evidence: LossEvidence::Absent } => (2, key.node(node)),
                NextStep::Revoking { node } => (3, key.node(node)),
            };
            key.bytes.extend([kind, node]);
        }
        key.fleet();
        for (chunk, epoch) in &state.queue {
            key.bytes.extend([*chunk, *epoch]);
        }
        let flags = [state.may_roll_back, state.has_speculated].map(u8::from);
        key.bytes.push(state.faults);
        key.bytes.extend(flags);
        key.bytes
    }

    fn worker(&mut self, worker: u8) {
        let (starts, place) = self.state.workers[usize::from(worker)];
        self.node((worker, starts));
        let (kind, message, token, rest) = match place {
            Worker::Dead => return self.bytes.push(0),
            Worker::Idle => return self.bytes.push(1),
            Worker::Claiming { message, token } => (2, message, token, [0; 3]),
            Worker::Holding { message, token, from, to, asked } => {
                (3, message, token, [from, to, asked.unwrap_or(NONE)])
            }
            Worker::Leaving { message, token, then } => {
                (4, message, token, [u8::from(then == Then::Ack), 0, 0])
            }
        };
        let token = self.token(token);
        self.bytes.extend([kind, message.0, message.1, token]);
        self.bytes.extend(rest);
    }

    /// Adds the late requests in an order that does not depend on names.
    fn late(&mut self) {
        let mut late = self.state.late.clone();
        if self.mirrored {
            late.sort_by_key(|request| match *request {
                Request::Claim { message, node, .. } => (0, message, WORKERS - node.0, 0),
                Request::Commit { message, from, to, .. } => (1, message, from, to),
                Request::Release { message, .. } => (2, message, 0, 0),
            });
        }
        for request in late {
            let (kind, message, token, rest) = match request {
                Request::Claim { message, token, node } => {
                    (5, message, token, [self.node(node), 0])
                }
                Request::Commit { message, token, from, to } => (6, message, token, [from, to]),
                Request::Release { message, token } => (7, message, token, [0; 2]),
            };
            let token = self.token(token);
            self.bytes.extend([kind, message.0, message.1, token]);
            self.bytes.extend(rest);
        }
        self.bytes.push(NONE);
    }

    fn ledger(&mut self, ledger: &Ledger) {
        // By now all tokens outside of ledgers have been numbered.
        let known = self.tokens.clone();
        self.bytes.push(ledger.opened);
        for (number, (from, to)) in RANGES.into_iter().enumerate() {
            let Some(chunk) = ledger.chunks[number] else {
                self.bytes.push(NONE);
                continue;
            };
            let (token, node) = match chunk.holder {
                Some((token, node)) => (self.token(token), self.node(node)),
                None => (NONE, NONE),
            };
            self.bytes.extend([chunk.from, chunk.to, chunk.epoch, token, node]);
            let second = match chunk.speculation {
                Speculation::No => [NONE; 2],
                Speculation::Offered => [UNUSED; 2],
                Speculation::Held(token, node) => [self.token(token), self.node(node)],
            };
            self.bytes.extend(second);
            for index in from..to {
                let settled_by = match ledger.settled_by[usize::from(index)] {
                    Some(token) if known.contains(&token) => self.token(token),
                    Some(_) => UNUSED,
                    None => NONE,
                };
                self.bytes.push(settled_by);
            }
            for (other, token) in &ledger.lost {
                if usize::from(*other) == number && known.contains(token) {
                    let token = self.token(*token);
                    self.bytes.push(token);
                }
            }
            self.bytes.push(NONE);
        }
        self.bytes.extend(ledger.done.map(u8::from));
        self.bytes.extend(ledger.counts.map(i8::cast_unsigned));
        self.bytes.extend(ledger.counted);
    }

    /// Adds list and verdicts. Comes last, when all relevant nodes have been numbered.
    fn fleet(&mut self) {
        let ledgers = [Some(&self.state.ledger), self.state.saved.as_deref()];
        for node in std::mem::take(&mut self.nodes) {
            let judged = self.state.next_steps.iter().map(|step| match *step {
                NextStep::Judging { node: of, evidence: LossEvidence::LastBeat(beat) }
                    if of == node =>
                {
                    Some(beat)
                }
                _ => None,
            });
            let listed =
                ledgers.iter().map(|ledger| ledger.and_then(|ledger| ledger.fleet.last_beat(node)));
            let beats: Vec<Option<Beat>> = judged.chain(listed).collect();
            let rank = |beat: Beat| beats.iter().flatten().filter(|other| **other < beat).count();
            self.bytes.extend(beats.iter().map(|beat| beat.map_or(NONE, |beat| rank(beat) as u8)));
            let is_lost =
                |ledger: &Option<&Ledger>| ledger.is_some_and(|it| it.fleet.is_lost(node));
            self.bytes.extend(ledgers.iter().map(|ledger| u8::from(is_lost(ledger))));
            self.bytes.push(u8::from(self.state.revoked_once.contains(&node)));
        }
    }

    fn token(&mut self, token: TokenNumber) -> u8 {
        number(&mut self.tokens, token)
    }

    fn node(&mut self, node: Node) -> u8 {
        number(&mut self.nodes, node)
    }
}

fn number<T: PartialEq>(known: &mut Vec<T>, wanted: T) -> u8 {
    let at = known.iter().position(|other| *other == wanted).unwrap_or_else(|| {
        known.push(wanted);
        known.len() - 1
    });
    at.try_into().expect("a handful of names")
}
