//! Compares the counts that a job keeps with those that `audit.lua` takes from its raw keys.
//!
//! The raw keys are bitmaps, open chunks, the retry set and the cursor.

use std::collections::HashMap;

use longshore_protocol::state::JobState;
use longshore_protocol::{Audit, Counts, JobId};

use super::RedisLedger;
use super::call::Call;
use super::reply::{Reply, corrupt};
use super::summary::{Fields, MOST};
use crate::Error;

const OPERATION: &str = "audit";

impl RedisLedger {
    pub(super) async fn audit_job(&self, job: JobId) -> Result<Option<Audit>, Error> {
        let keys = self.keys();
        let call = Call::new(
            OPERATION,
            [
                keys.job(job),
                keys.done(job),
                keys.failed(job),
                keys.chunks(job),
                keys.retry(job),
                keys.due(job),
            ],
        );
        let mut reply = self.call(&call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        read(job, &mut reply).map(Some)
    }
}

pub(super) fn read(job: JobId, reply: &mut Reply) -> Result<Audit, Error> {
    let fields = Fields::new(OPERATION, reply.reply()?.fields()?);
    let raw = Raw(reply.reply()?.fields()?);
    audit(job, &fields, &raw)
}

/// The counts of the function, by name.
struct Raw(HashMap<String, String>);

impl Raw {
    fn number(&self, name: &str) -> Result<u64, Error> {
        let word = self.0.get(name).ok_or_else(|| corrupt(OPERATION, format!("no `{name}`")))?;
        match super::reply::parse(OPERATION, word)? {
            number if number <= MOST => Ok(number),
            number => Err(corrupt(OPERATION, format!("{name} is {number}"))),
        }
    }
}

fn audit(job: JobId, fields: &Fields, raw: &Raw) -> Result<Audit, Error> {
    let state = fields.state()?;
    let (kept, reduce_kept) = (fields.counts("")?, fields.counts("reduce_")?);
    let mut findings = Vec::new();
    let (counted, reduce_counted) = match fields.time("restored_at")? {
        // Restored from the journal, which holds counts and no bitmaps.
        Some(_) => (kept, reduce_kept),
        None => recount(state, fields, raw, &mut findings)?,
    };
    compare("subtasks", &kept, &counted, &mut findings);
    compare("reduce nodes", &reduce_kept, &reduce_counted, &mut findings);
    for name in ["queued_chunks", "running_chunks"] {
        let (kept, counted) = (fields.number::<u64>(name)?, raw.number(name)?);
        if kept != counted {
            findings.push(format!("{name}: the job says {kept}, the open chunks are {counted}"));
        }
    }
    let oddities = [
        ("done_and_failed", "subtasks are both done and failed"),
        ("settled_in_chunks", "subtasks of open chunks are settled already"),
        ("overlapping", "open chunks overlap another"),
        ("outside_level", "open chunks lie outside the current level"),
        ("misplaced_in_due", "chunks are not in the list of what is due as their records say"),
    ];
    for (name, what) in oddities {
        let number = raw.number(name)?;
        if number > 0 {
            findings.push(format!("{number} {what}"));
        }
    }
    Ok(Audit { job, state, kept, counted, reduce_kept, reduce_counted, findings })
}

/// The counts of the current level follow from the raw keys; all levels below it are settled, and
/// those above have not begun.
fn recount(
    state: JobState,
    fields: &Fields,
    raw: &Raw,
    findings: &mut Vec<String>,
) -> Result<(Counts, Counts), Error> {
    let (total, nodes) = (fields.counts("")?.total, fields.counts("reduce_")?.total);
    let above = (total + nodes).saturating_sub(fields.number("level_to")?);
    let mut subtasks = Counts {
        total,
        done: raw.number("done")?,
        failed: raw.number("failed")?,
        ..Counts::default()
    };
    let mut reduce = Counts {
        total: nodes,
        done: raw.number("reduce_done")?,
        failed: raw.number("reduce_failed")?,
        ..Counts::default()
    };
    let reducing = fields.number::<u64>("level_from")? >= total && nodes > 0;
    let level = if reducing { &mut reduce } else { &mut subtasks };
    level.queued = raw.number("queued")?;
    level.running = raw.number("running")?;
    level.retrying = raw.number("retrying")?;
    if !state.is_terminal() {
        level.waiting = raw.number("not_done_from_cursor")?;
    }
    let below = if reducing { nodes.saturating_sub(above) } else { total };
    let placed = level.done + level.failed + level.open();
    if placed > below {
        findings.push(format!("{} subtasks are in two places", placed - below));
    }
    level.cancelled = below.saturating_sub(placed);
    let cut_off = state.is_terminal() || level.cancelled > 0;
    if reducing {
        subtasks.cancelled = total.saturating_sub(subtasks.done + subtasks.failed);
    }
    if cut_off {
        reduce.cancelled += above;
    } else {
        reduce.waiting += above;
    }
    Ok((subtasks, reduce))
}

fn compare(whose: &str, kept: &Counts, counted: &Counts, findings: &mut Vec<String>) {
    let pairs = [
        ("waiting", kept.waiting, counted.waiting),
        ("queued", kept.queued, counted.queued),
        ("running", kept.running, counted.running),
        ("retrying", kept.retrying, counted.retrying),
        ("done", kept.done, counted.done),
        ("failed", kept.failed, counted.failed),
        ("cancelled", kept.cancelled, counted.cancelled),
    ];
    for (name, kept, counted) in pairs {
        if kept != counted {
            findings.push(format!("{whose} {name}: the job says {kept}, the keys say {counted}"));
        }
    }
    if kept.imbalance() != 0 {
        findings.push(format!("{whose}: the counts are off by {}", kept.imbalance()));
    }
}
