//! The states of jobs and chunks, and THE one table of transitions of each.
//!
//! The memory ledger calls these functions; the Redis ledger's Lua library gets the same table
//! generated from them, so there is one place to read and one to change.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Accepted; no subtask has started. The first claim moves it on.
    Queued,
    /// Subtasks run. The commit that settles the last one moves it on.
    Running,
    /// All subtasks are done and the tree of results is being combined. The root's commit moves it
    /// on.
    Reducing,
    /// Nothing new starts until somebody resumes it. The ledger remembers the state to return to.
    Paused,
    /// The end: every subtask is done, and reduced where the job asks for it.
    Succeeded,
    /// The end: some subtask failed for good, or a limit of the job was reached. `retry` re-opens
    /// it.
    Failed,
    /// The end: somebody cancelled it.
    Cancelled,
    /// The end: the document was never accepted; `error` says why.
    Rejected,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A worker claimed the first chunk.
    Start,
    /// All subtasks are done and there are results to combine.
    Reduce,
    /// Everything that the job asked for is done.
    Succeed,
    /// The last subtask is settled and some failed, or a deadline or limit was reached.
    Fail,
    /// Somebody asked for a pause.
    Pause,
    /// Somebody asked to go on; the job returns to the state that it was paused in.
    Resume,
    /// Somebody asked to stop for good.
    Cancel,
    /// Somebody re-opened what failed.
    Retry,
}

/// A thing that can't happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} can't {event}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: JobState,
    /// What was asked.
    pub event: JobEvent,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Reducing,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Where `event` leads. `resume_to` is the state that a paused job was paused in (ignored
    /// otherwise). A pause of a paused job, a resume of one that runs and a cancel of a cancelled
    /// one change nothing and are no error: repeats are how lost replies are settled.
    ///
    /// Two pairs that one may look for are refused:
    /// - `(Paused, Reduce)`. What ran when the job was paused may settle the last subtask; then the
    ///   job stays paused, and it is the remembered state that moves: the ledger asks
    ///   `resume_to.on(Reduce, …)`, keeps the answer, and a resume leads to `Reducing`.
    /// - `(Cancelled, Retry)`. Who cancelled a job meant it, and nothing of it failed. Whoever
    ///   wants it after all submits it again, under a new id.
    pub fn on(self, event: JobEvent, resume_to: Self) -> Result<Self, IllegalTransition> {
        use JobEvent as E;
        use JobState as S;
        match (self, event) {
            (S::Queued | S::Running, E::Start) => Ok(S::Running),
            (S::Reducing, E::Start) => Ok(S::Reducing),
            (S::Queued | S::Running, E::Reduce) => Ok(S::Reducing),
            (S::Queued | S::Running | S::Reducing | S::Paused, E::Succeed) => Ok(S::Succeeded),
            (S::Queued | S::Running | S::Reducing | S::Paused, E::Fail) => Ok(S::Failed),
            (S::Queued | S::Running | S::Reducing | S::Paused, E::Pause) => Ok(S::Paused),
            (S::Paused, E::Resume) => Ok(resume_to),
            (S::Queued | S::Running | S::Reducing, E::Resume) => Ok(self),
            (S::Queued | S::Running | S::Reducing | S::Paused | S::Cancelled, E::Cancel) => {
                Ok(S::Cancelled)
            }
            (S::Failed, E::Retry) => Ok(S::Running),
            (S::Running | S::Paused, E::Retry) => Ok(self),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }

    /// Whether nothing but `retry` or `delete` can change the job any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Rejected)
    }

    /// The word in keys, messages and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Reducing => "reducing",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`")]
pub struct UnknownState(pub String);

impl FromStr for JobState {
    type Err = UnknownState;

    fn from_str(s: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| UnknownState(s.to_owned()))
    }
}

impl JobEvent {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Reduce,
        Self::Succeed,
        Self::Fail,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Retry,
    ];

    /// The verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reduce => "reduce",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }
}

impl fmt::Display for JobEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an open chunk stands. A chunk whose last subtask is settled is gone from the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// Its message is on the way to a worker, or lost; the sweep publishes it again when `due` has
    /// passed. A claim moves it on.
    Queued {
        /// When the sweep is to publish it again (the ledger's clock).
        due: crate::Timestamp,
    },
    /// A worker runs it. The commit of its last subtask, a release or a revoke moves it on; after a
    /// crash it stays here until the watcher revokes its token.
    Running {
        /// Whoever shows this token may commit.
        token: crate::Token,
        /// Who holds it.
        node: crate::NodeId,
    },
}

/// What can happen to an open chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// A worker that got the message of `epoch` wants to run it.
    Claim {
        /// The epoch of the message.
        epoch: crate::Epoch,
        /// The claimant's token.
        token: crate::Token,
        /// The claimant.
        node: crate::NodeId,
    },
    /// The holder hands back what it has not settled (drain, shutdown), or the watcher takes it
    /// away.
    Released {
        /// The token that loses its hold.
        token: crate::Token,
        /// When the sweep is to publish the rest.
        due: crate::Timestamp,
    },
    /// The holder is gone, or hands back what it has not settled, and the node that runs a copy of the chunk takes its place.
    HandOver {
        /// The token that loses its hold.
        token: crate::Token,
        /// The token of the copy.
        to: crate::Token,
        /// Who runs the copy.
        node: crate::NodeId,
    },
    /// The holder settles some of its subtasks.
    Commit {
        /// The holder's token.
        token: crate::Token,
    },
}

/// Why a chunk did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRefusal {
    /// Somebody else holds it, or the message is from an earlier epoch.
    Stale,
    /// The token is not the current one.
    Fenced,
}

impl ChunkState {
    /// Where `event` leads a chunk of the given current `epoch`.
    pub fn on(self, current: crate::Epoch, event: ChunkEvent) -> Result<Self, ChunkRefusal> {
        use ChunkEvent as E;
        use ChunkState as S;
        match (self, event) {
            (S::Queued { .. }, E::Claim { epoch, token, node }) if epoch == current => {
                Ok(S::Running { token, node })
            }
            // The same token again is a repeat after a lost reply.
            (S::Running { token, node }, E::Claim { token: again, .. }) if token == again => {
                Ok(S::Running { token, node })
            }
            (_, E::Claim { .. }) => Err(ChunkRefusal::Stale),
            (S::Running { token, .. }, E::Released { token: shown, due }) if token == shown => {
                Ok(S::Queued { due })
            }
            (S::Running { token, .. }, E::HandOver { token: shown, to, node })
                if token == shown =>
            {
                Ok(S::Running { token: to, node })
            }
            (S::Running { token, node }, E::Commit { token: shown }) if token == shown => {
                Ok(S::Running { token, node })
            }
            (_, E::Released { .. } | E::HandOver { .. } | E::Commit { .. }) => {
                Err(ChunkRefusal::Fenced)
            }
        }
    }
}
