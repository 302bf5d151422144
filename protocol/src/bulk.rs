//! Actions on all jobs that a filter shows: which actions there are, and what became of each job.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::{JobEvent, JobState};
use crate::wire::StateAfter;
use crate::{JobId, JobSummary};

/// An action on jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkAction {
    /// Running chunks finish, no new ones start.
    Pause,
    /// Paused jobs go on.
    Resume,
    /// The jobs end; running subtasks are stopped within a second.
    Cancel,
    /// Failed subtasks are tried again.
    Retry,
    /// Ended jobs are forgotten, with their results and errors.
    Delete,
}

impl BulkAction {
    /// All actions.
    pub const ALL: [Self; 5] = [Self::Pause, Self::Resume, Self::Cancel, Self::Retry, Self::Delete];

    /// The verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Delete => "delete",
        }
    }

    /// The verb in the past.
    pub const fn done(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::Delete => "deleted",
        }
    }

    /// Whether a job in this state allows the action. A job may still refuse a retry, if none of
    /// its subtasks has failed.
    pub fn is_allowed_in(self, state: JobState) -> bool {
        let event = match self {
            Self::Pause => JobEvent::Pause,
            Self::Resume => JobEvent::Resume,
            Self::Cancel => JobEvent::Cancel,
            Self::Retry => JobEvent::Retry,
            Self::Delete => return state.is_terminal(),
        };
        state.on(event, JobState::INITIAL).is_ok()
    }
}

impl fmt::Display for BulkAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown action `{0}`; use pause, resume, cancel, retry or delete")]
pub struct UnknownAction(pub String);

impl FromStr for BulkAction {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == text);
        found.ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// What became of one job of a bulk action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BulkOutcome {
    /// The job's id.
    pub id: JobId,
    /// Whether the action was carried out.
    pub outcome: BulkResult,
    /// The job's state after the action; absent unless it was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateAfter>,
    /// Why the action was not carried out; absent if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether an action on a job was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkResult {
    /// It was.
    Done,
    /// It was not: the state of the job does not allow it, or the job is gone.
    Skipped,
    /// It was not, because of an error.
    Failed,
}

impl BulkOutcome {
    /// The action was carried out.
    pub const fn done(id: JobId, state: StateAfter) -> Self {
        Self { id, outcome: BulkResult::Done, state: Some(state), reason: None }
    }

    /// The job does not allow the action, for this reason.
    pub fn skipped(id: JobId, reason: impl fmt::Display) -> Self {
        Self { id, outcome: BulkResult::Skipped, state: None, reason: Some(reason.to_string()) }
    }

    /// The action failed, for this reason.
    pub fn failed(id: JobId, reason: impl fmt::Display) -> Self {
        Self { outcome: BulkResult::Failed, ..Self::skipped(id, reason) }
    }
}

/// What a bulk action would do: the answer to a dry run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BulkPlan {
    /// The action.
    pub action: BulkAction,
    /// The number of jobs that the filter shows.
    pub matched: u64,
    /// The number of those whose state allows the action.
    pub allowed: u64,
    /// The newest of these, a few at most.
    pub first: Vec<JobSummary>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_that_allow_an_action_are_those_of_the_table() {
        let allowed = |action: BulkAction| {
            let states = JobState::ALL.into_iter().filter(|state| action.is_allowed_in(*state));
            states.map(JobState::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(allowed(BulkAction::Pause), "queued running reducing paused");
        assert_eq!(allowed(BulkAction::Resume), "queued running reducing paused");
        assert_eq!(allowed(BulkAction::Cancel), "queued running reducing paused cancelled");
        assert_eq!(allowed(BulkAction::Retry), "running paused failed");
        assert_eq!(allowed(BulkAction::Delete), "succeeded failed cancelled rejected");
    }

    #[test]
    fn an_action_is_read_as_it_is_written() {
        for action in BulkAction::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
            assert_eq!(serde_json::to_string(&action).unwrap(), format!("\"{action}\""));
        }
        assert!("explode".parse::<BulkAction>().is_err());
    }
}
