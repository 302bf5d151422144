//! Prepares a granted chunk (plan, handler, classifier), and decides when it is too long to keep.
//!
//! The rest of a chunk that takes too long is released in parts.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_ledger::{Error, Grant};
use longshore_protocol::document::{self, Results, Split};
use longshore_protocol::{Outcome, Plan};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::debug;

use crate::classify::OutcomeClassifier;
use crate::config::{MAX_LEDGER_RESULT, REDUCE_FACTOR};
use crate::held_chunks::{ChunkLease, StopMode};
use crate::pipeline::{Pipeline, STALL};
use crate::plans;
use crate::task::{BlockingTask, Handler};

/// A chunk of automatic size is meant to take a quarter of a second, in the largest clusters a
/// second. A chunk that has run for longer than this, and has [`MUCH`] or more to go, has subtasks
/// that are slower than those by which its size was found. The rest is cut into parts of about
/// [`PART`].
const TOO_LONG: Duration = Duration::from_secs(1);
const MUCH: Duration = Duration::from_millis(500);
const PART: Duration = Duration::from_millis(250);

/// A granted chunk, ready to run.
pub(crate) struct Chunk<'a> {
    pub(crate) lease: &'a ChunkLease,
    pub(crate) grant: &'a Grant,
    pub(crate) plan: Arc<Plan>,
    pub(crate) handler: &'a dyn Handler,
    pub(crate) classifier: OutcomeClassifier,
    /// When the first subtask began.
    pub(crate) since: Instant,
    /// How many subtasks each part of the rest is to have, once the chunk takes too long.
    part: OnceLock<u64>,
    /// The outcome of each subtask where the results may not be written: nothing runs then.
    refusal: Option<Outcome>,
    /// Whether each input file is to be checked against the roots that jobs may touch.
    checks_files: bool,
    /// URLs of the result objects that were written and not committed yet.
    pub(crate) written: Mutex<Vec<String>>,
}

/// Why a granted chunk can't run.
pub(crate) enum Unprepared {
    /// Something can't be read or written now.
    NotYet(String),
    /// This worker can't run the task.
    NotHere(String),
}

impl Chunk<'_> {
    /// The name of the task that the chunk's subtasks run.
    pub(crate) fn task(&self) -> &str {
        self.plan.task(self.grant.from)
    }

    /// How many subtasks each part of the rest is to have; `None` if the rest stays one chunk.
    pub(crate) fn part(&self) -> Option<u64> {
        self.part.get().copied()
    }

    /// The outcome of a task that needs neither its input nor any time, or of a job that may not
    /// run here.
    pub(crate) fn instant_outcome(&self) -> Option<Outcome> {
        if let Some(refusal) = &self.refusal {
            return Some(refusal.clone());
        }
        let outcome = self.handler.instantly()?;
        Some(outcome(&self.plan.document().params, self.grant.attempt))
    }

    /// How long a subtask may take: the shorter of the job's limit and the task's own.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let limits = [self.plan.document().timeout, self.handler.timeout()];
        limits.into_iter().flatten().min()
    }

    /// The task, if its subtasks may run one after another on one thread. They may not where each
    /// is committed before the next begins (in a suspect chunk), needs results first (in a reduce
    /// node) or a look at its file.
    pub(crate) fn blocking_task(&self) -> Option<&BlockingTask> {
        let may_follow = !self.grant.is_suspect()
            && self.grant.from < self.plan.total()
            && self.refusal.is_none()
            && !(self.checks_files
                && matches!(self.plan.document().split, Split::Files { .. } | Split::Lines { .. }))
            && self.plan.unchanged_file(self.grant.from).is_none();
        self.handler.blocking().filter(|_| may_follow)
    }

    /// Drains the chunk if it takes too long by the duration of its newest subtasks (`each`), so
    /// that other workers get parts of the `left` ones. A chunk size that the job's owner chose
    /// stays, and a suspect chunk is for this worker alone.
    pub(crate) fn share_if_too_long(&self, left: u64, each: Duration) {
        let is_chosen = matches!(self.plan.document().chunk, document::Chunk::Fixed(_))
            && self.grant.from < self.plan.total();
        let is_long = self.since.elapsed() >= TOO_LONG
            && each.as_secs_f64() * left as f64 >= MUCH.as_secs_f64();
        if left > 1 && is_long && !is_chosen && !self.grant.is_suspect() {
            let part = (PART.as_secs_f64() / each.as_secs_f64()) as u64;
            debug!(left, ?each, part, "the chunk takes too long; its rest is shared");
            let _ = self.part.set(part.max(1));
            self.lease.stop(StopMode::Drain);
        }
    }
}

impl Pipeline {
    /// Finds the plan and the handler of a granted chunk.
    pub(crate) async fn prepare<'a>(
        &'a self,
        lease: &'a ChunkLease,
        grant: &'a Grant,
    ) -> Result<Chunk<'a>, Unprepared> {
        let job = lease.held.job;
        // In an outage of the ledger the chunk waits for the plan.
        let plan = loop {
            match self.plans.get(self.ledger.as_ref(), job, &grant.digest).await {
                Ok(plan) => break plan,
                Err(plans::Error::Ledger(Error::Unavailable { .. })) if lease.goes_on() => {
                    tokio::time::sleep(STALL / 4).await;
                }
                Err(error) => return Err(Unprepared::NotYet(error.to_string())),
            }
        };
        if let Some(reason) = self.unwritable(&plan.document().results) {
            return Err(Unprepared::NotYet(reason));
        }
        let refusal = self.refused_results(&plan.document().results).await?;
        // Subtasks and reduce nodes never share a chunk, so one handler serves all of it.
        let task = plan.task(grant.from);
        if let Some(reason) = self.availability.why_disabled(task) {
            return Err(Unprepared::NotHere(reason));
        }
        let Some(handler) = self.handlers.find(task) else {
            return Err(Unprepared::NotHere(format!("the worker has no task `{task}`")));
        };
        if self.config.exclusive.contains(task) {
            lease.make_exclusive();
            if self.liveness.is_fenced() {
                lease.stop(StopMode::Abandon);
            }
        }
        Ok(Chunk {
            lease,
            grant,
            classifier: self.classifier(&plan, grant),
            plan,
            handler,
            since: Instant::now(),
            part: OnceLock::new(),
            refusal,
            checks_files: self.config.allow_roots.is_set(),
            written: Mutex::default(),
        })
    }

    /// The outcome of subtasks whose results may not be written where the job wants them. Another
    /// worker may be allowed to, so another attempt may help.
    async fn refused_results(&self, results: &Results) -> Result<Option<Outcome>, Unprepared> {
        let Results::Url(location) = results else { return Ok(None) };
        let Err(error) = self.config.allow_roots.check_prefix(location).await else {
            return Ok(None);
        };
        let error_text = format!("results: {error}");
        if !error.is_users_fault() {
            return Err(Unprepared::NotYet(error_text));
        }
        Ok(Some(Outcome::Failure { error: error_text, retry: !error.is_permanent() }))
    }

    fn classifier(&self, plan: &Plan, grant: &Grant) -> OutcomeClassifier {
        let document = plan.document();
        let factor = if grant.from >= plan.total() { REDUCE_FACTOR } else { 1 };
        let largest = match document.results {
            Results::Url(_) => usize::MAX,
            Results::Keep | Results::Discard => MAX_LEDGER_RESULT,
        };
        OutcomeClassifier {
            retry: document.retry.clone(),
            attempt: grant.attempt,
            deferrals: grant.deferrals,
            max_result: self.config.max_result.saturating_mul(factor).min(largest),
            // A reduction needs the results that it combines, also where the job discards its own.
            keep_results: document.results != Results::Discard || document.reduce.is_some(),
        }
    }
}
