//! Explains why a job has not ended, or how it ended.

use longshore_protocol::state::JobState;
use longshore_protocol::wire::{Explanation, RankedReason};
use longshore_protocol::{JobSummary, Reason};

use crate::{Error, Job};

impl Job {
    /// How the job stands, and the reasons why its subtasks wait, the one to look at first in
    /// front.
    pub async fn explain(&self) -> Result<Explanation, Error> {
        let summary = self.summary().await?;
        let reasons = self.reasons().await?;
        Ok(explanation(&summary, reasons))
    }
}

fn explanation(job: &JobSummary, reasons: Vec<Reason>) -> Explanation {
    let ranked = |reason: Reason| RankedReason {
        needs_action: reason.code.needs_action(),
        advice: reason.code.advice().to_owned(),
        reason,
    };
    let mut reasons: Vec<RankedReason> = match job.state.is_terminal() {
        true => Vec::new(),
        false => reasons.into_iter().map(ranked).collect(),
    };
    reasons.sort_by_key(|ranked| {
        (!ranked.needs_action, std::cmp::Reverse(ranked.reason.subtasks.unwrap_or_default()))
    });
    let text = match reasons.first() {
        Some(first) => first.reason.text.clone(),
        None => status(job),
    };
    Explanation { id: job.id, state: job.state, text, reasons }
}

/// How a job stands of which nothing is known to wait.
fn status(job: &JobSummary) -> String {
    let counts = &job.counts;
    let why = || job.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    match job.state {
        JobState::Succeeded => format!("the job succeeded: {} subtasks are done", counts.done),
        JobState::Failed => format!("the job failed{}", why()),
        JobState::Cancelled => {
            let (done, total) = (counts.done, counts.total);
            format!("the job was cancelled when {done} of {total} subtasks were done")
        }
        JobState::Rejected => format!("the job was rejected{}", why()),
        _ => {
            let now = if job.state.is_reducing() { &job.reduce } else { counts };
            match (now.queued + now.running, now.waiting + now.retrying) {
                (0, _) => "its scheduler has not said yet what the job waits for".into(),
                (open, 0) => format!("nothing waits: {open} subtasks run or are about to"),
                (open, rest) => {
                    format!(
                        "nothing holds it up: {open} subtasks run or are about to, {rest} follow"
                    )
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use longshore_ledger::Admission;
    use longshore_protocol::{Counts, JobId, ReasonCode, Timestamp};

    use super::*;

    fn job(state: JobState, counts: Counts) -> JobSummary {
        let id = JobId::from_uuid(uuid::Uuid::from_u128(7));
        JobSummary { state, counts, ..Admission::plain(id, 10).accepted(Timestamp::default()) }
    }

    fn reason(code: ReasonCode, subtasks: Option<u64>) -> Reason {
        Reason { code, text: format!("{code:?}"), subtasks, since: None }
    }

    #[test]
    fn what_needs_action_comes_first_then_what_concerns_most_subtasks() {
        use ReasonCode::{Backoff, NoWorkerForTask, SlotsBusy, Stalled};
        let reasons = vec![
            reason(Backoff, Some(3)),
            reason(SlotsBusy, Some(7)),
            reason(Stalled, None),
            reason(NoWorkerForTask, Some(2)),
        ];
        let found = explanation(&job(JobState::Running, Counts::new(10)), reasons.clone());
        let codes: Vec<_> = found.reasons.iter().map(|ranked| ranked.reason.code).collect();
        assert_eq!(codes, [NoWorkerForTask, Stalled, SlotsBusy, Backoff]);
        assert_eq!(found.text, "NoWorkerForTask");
        assert!(found.reasons.iter().all(|ranked| ranked.advice.ends_with('.')));
        let ended = explanation(&job(JobState::Cancelled, Counts::new(10)), reasons);
        assert_eq!(ended.reasons, []);
        assert_eq!(ended.text, "the job was cancelled when 0 of 10 subtasks were done");
    }

    #[track_caller]
    fn stands(state: JobState, counts: Counts, expected: &str) {
        assert_eq!(explanation(&job(state, counts), Vec::new()).text, expected);
    }

    #[test]
    fn a_job_of_which_nothing_waits_says_how_it_stands() {
        let counts = |running, waiting, done| Counts {
            total: 10,
            running,
            waiting,
            done,
            ..Counts::default()
        };
        stands(JobState::Succeeded, counts(0, 0, 10), "the job succeeded: 10 subtasks are done");
        let running = "nothing waits: 4 subtasks run or are about to";
        stands(JobState::Running, counts(4, 0, 6), running);
        let more = "nothing holds it up: 4 subtasks run or are about to, 6 follow";
        stands(JobState::Running, counts(4, 6, 0), more);
        let unknown = "its scheduler has not said yet what the job waits for";
        stands(JobState::Queued, counts(0, 10, 0), unknown);
    }
}
