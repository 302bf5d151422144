//! The properties L1 to L9 of the protocol that must always hold, and their checks.
//!
//! A property is about one history of the ledger: a rollback restores an older history.
//!
//! | id | property |
//! | --- | --- |
//! | L1 | each subtask is counted at most once |
//! | L2 | a running chunk gets another holder only while it is offered speculatively, and a token that lost it never holds it again |
//! | L3 | a commit is accepted only under the token that holds the chunk |
//! | L4 | from every state the end can be reached once faults stop (checked by `explore`) |
//! | L5 | commits of one subtask are accepted under one token only, until a chunk is offered speculatively |
//! | L6 | the counts balance |
//! | L7 | no listed worker is declared lost |
//! | L8 | a worker leaves the list only by a verdict |
//! | L9 | no worker is declared lost that has sent a heartbeat since the evidence |
//!
//! L4 includes that the owner of the queue revokes the chunks of lost workers: no other process
//! does, and a job does not end while a dead worker holds one of its chunks.

use crate::fleet::{Fleet, LossEvidence};
use crate::ledger::{Answer, Ledger, Node, RANGES, Request, Speculation, TokenNumber};

const L1: &str = "L1: each subtask is counted at most once";
const L2: &str = "L2: a chunk gets another holder only by an offer, and no token comes back";
const L3: &str = "L3: a commit is accepted only under the token that holds the chunk";
const L5: &str = "L5: commits of one subtask are accepted under one token only";
const L6: &str = "L6: the counts balance";
const L7: &str = "L7: no listed worker is declared lost";
const L8: &str = "L8: a worker leaves the list only by a verdict";
const L9: &str = "L9: no worker is declared lost that has sent a heartbeat since";

/// Checks the answer to a worker.
pub(crate) fn check_answer(
    before: &Ledger,
    request: Request,
    answer: Answer,
    has_speculated: bool,
) -> Result<(), &'static str> {
    let Request::Commit { message: (chunk, _), token, from, to } = request else { return Ok(()) };
    if answer != Answer::Settled {
        return Ok(());
    }
    let subtasks = usize::from(from)..usize::from(to);
    let foreign = |other: &u8| *other != token;
    if !has_speculated && before.settled_by[subtasks].iter().flatten().any(foreign) {
        return Err(L5);
    }
    if before.holders(chunk).any(|(holder, _)| holder == token) { Ok(()) } else { Err(L3) }
}

/// Checks a step of the ledger. Records the tokens that lost their chunk in it.
pub(crate) fn check_step(before: &Ledger, after: &mut Ledger) -> Result<(), &'static str> {
    if after.counted.iter().any(|times| *times > 1) {
        return Err(L1);
    }
    for chunk in 0..RANGES.len() as u8 {
        let tokens = |ledger: &Ledger| -> Vec<TokenNumber> {
            ledger.holders(chunk).map(|(token, _)| token).collect()
        };
        let (was, is) = (tokens(before), tokens(after));
        let offered = before.chunks[usize::from(chunk)]
            .is_some_and(|chunk| chunk.speculation == Speculation::Offered);
        let returns = is.iter().any(|token| after.lost.contains(&(chunk, *token)));
        let is_new = |token: &TokenNumber| !was.contains(token);
        if returns || !was.is_empty() && !offered && is.iter().any(is_new) {
            return Err(L2);
        }
        let closed = after.chunks[usize::from(chunk)].is_none();
        if closed {
            after.lost.retain(|(other, _)| *other != chunk);
        } else {
            let lost = was.into_iter().filter(|token| !is.contains(token));
            after.lost.extend(lost.map(|token| (chunk, token)));
            after.lost.sort_unstable();
        }
    }
    check_fleet(&before.fleet, &after.fleet)?;
    if after.balances() { Ok(()) } else { Err(L6) }
}

fn check_fleet(before: &Fleet, after: &Fleet) -> Result<(), &'static str> {
    if after.listed.iter().any(|(node, _)| after.is_lost(*node)) {
        return Err(L7);
    }
    let is_off = |node: Node| after.last_beat(node).is_none();
    let vanishes = |node: Node| is_off(node) && !after.is_lost(node);
    if before.listed.iter().any(|(node, _)| vanishes(*node)) { Err(L8) } else { Ok(()) }
}

/// Checks a verdict.
pub(crate) fn check_verdict(
    before: &Fleet,
    (node, evidence): (Node, LossEvidence),
    after: &Fleet,
) -> Result<(), &'static str> {
    let has_beaten = match (evidence, before.last_beat(node)) {
        (_, None) => false,
        (LossEvidence::LastBeat(known), Some(last)) => last > known,
        (LossEvidence::Absent, Some(_)) => true,
    };
    if has_beaten && after.is_lost(node) { Err(L9) } else { Ok(()) }
}
