//! Prints what became of many jobs, or would become of them.

use longshore_producer::{BulkAction, BulkOutcome, BulkPlan, BulkResult, Jobs};
use longshore_protocol::wire::StateAfter;

use super::{Output, grouped, jobs, talk};
use crate::failure::Failure;

/// Counts outcomes while they are printed.
pub(crate) struct Tally {
    action: BulkAction,
    done: u64,
    skipped: u64,
    failed: u64,
}

impl Tally {
    pub(crate) fn new(action: BulkAction) -> Self {
        Self { action, done: 0, skipped: 0, failed: 0 }
    }

    /// Prints a line about one job.
    pub(crate) fn print(
        &mut self,
        output: &mut Output,
        outcome: &BulkOutcome,
    ) -> Result<(), Failure> {
        match outcome.outcome {
            BulkResult::Done => self.done += 1,
            BulkResult::Skipped => self.skipped += 1,
            BulkResult::Failed => self.failed += 1,
        }
        if output.is_json() {
            return output.json(outcome);
        }
        let id = outcome.id;
        let reason = outcome.reason.as_deref().unwrap_or_default();
        match outcome.outcome {
            BulkResult::Done => match outcome.state {
                Some(StateAfter::State(state)) => output.line(format_args!("{id} {state}")),
                _ => output.line(format_args!("{id} {}", self.action.done())),
            },
            BulkResult::Skipped => output.line(format_args!("{id} skipped: {reason}")),
            BulkResult::Failed => output.line(format_args!("{id} failed: {reason}")),
        }
    }

    /// Says how many jobs had which outcome.
    pub(crate) fn report(&self) {
        if self.done + self.skipped + self.failed == 0 {
            return talk("no job satisfies the filter");
        }
        let mut words = vec![format!("{} {}", counted(self.done), self.action.done())];
        for (count, word) in [(self.skipped, "skipped"), (self.failed, "failed")] {
            words.extend((count > 0).then(|| format!("{} {word}", grouped(count))));
        }
        talk(words.join(", "));
    }

    /// Fails if the action failed on a job.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        match self.failed {
            0 => Ok(()),
            failed => {
                Err(Failure::other(format_args!("could not {} {}", self.action, counted(failed))))
            }
        }
    }
}

/// Prints what an action would do.
pub(crate) async fn plan(output: &mut Output, plan: &BulkPlan, jobs: &Jobs) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(plan);
    }
    let BulkPlan { action, matched, allowed, ref first } = *plan;
    let (of, others) = (grouped(allowed), matched - allowed);
    let text = counted(matched);
    let others = match others {
        0 => String::new(),
        others => format!("; {} skipped, whose state does not allow it", grouped(others)),
    };
    output.line(format_args!("{text} found, {of} would be {}{others}", action.done()))?;
    if first.is_empty() {
        return Ok(());
    }
    jobs::print(output, jobs, first, false).await?;
    match allowed - first.len() as u64 {
        0 => Ok(()),
        more => output.line(format_args!("… and {} more", grouped(more))),
    }
}

fn counted(jobs: u64) -> String {
    format!("{} {}", grouped(jobs), if jobs == 1 { "job" } else { "jobs" })
}
