//! What must hold, whatever happens. A property is about one history of the ledger: a rollback returns to an older one,
//! with what is remembered of it.
//!
//! | id | holds |
//! | --- | --- |
//! | L1 | each subtask is counted at most once |
//! | L2 | a chunk that runs changes hands only when it was handed back, and a token that lost it never holds it again |
//! | L3 | a commit is accepted only under the token that holds the chunk |
//! | L4 | from every state the end can be reached once faults stop (checked by `explore`) |
//! | L5 | commits of one subtask are accepted under one token only |
//! | L6 | the books balance |

use crate::ledger::{Answer, Ledger, RANGES, Request};

const L1: &str = "L1: each subtask is counted at most once";
const L2: &str = "L2: a chunk changes hands only when it was handed back, and no token comes back";
const L3: &str = "L3: a commit is accepted only under the token that holds the chunk";
const L5: &str = "L5: commits of one subtask are accepted under one token only";
const L6: &str = "L6: the books balance";

/// Of what a worker was told.
pub(crate) fn check_answer(
    before: &Ledger,
    request: Request,
    answer: Answer,
) -> Result<(), &'static str> {
    let Request::Commit { message: (chunk, _), token, from, to } = request else { return Ok(()) };
    if answer != Answer::Settled {
        return Ok(());
    }
    let subtasks = usize::from(from)..usize::from(to);
    if before.settled_by[subtasks].iter().flatten().any(|other| *other != token) {
        return Err(L5);
    }
    match before.holder(chunk) {
        Some((holder, _)) if holder == token => Ok(()),
        _ => Err(L3),
    }
}

/// Of a step of the ledger. Remembers which tokens lost their chunk in it.
pub(crate) fn check_step(before: &Ledger, after: &mut Ledger) -> Result<(), &'static str> {
    if after.counted.iter().any(|times| *times > 1) {
        return Err(L1);
    }
    for chunk in 0..RANGES.len() as u8 {
        let was = before.holder(chunk).map(|(token, _)| token);
        let is = after.holder(chunk).map(|(token, _)| token);
        let returns = is.is_some_and(|token| after.lost.contains(&(chunk, token)));
        if returns || was.is_some() && is.is_some() && was != is {
            return Err(L2);
        }
        let closed = after.chunks[usize::from(chunk)].is_none();
        if closed {
            after.lost.retain(|(other, _)| *other != chunk);
        } else if let Some(token) = was.filter(|_| is.is_none()) {
            after.lost.push((chunk, token));
            after.lost.sort_unstable();
        }
    }
    if after.balances() { Ok(()) } else { Err(L6) }
}
