//! The states of jobs and chunks, the one table of transitions of each, and what a state allows.
//!
//! The memory ledger calls these functions; the Redis ledger's Lua library gets the same tables
//! generated from them. No other file compares states to decide something.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a job.
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
    /// Nothing new starts until the job is resumed. The ledger remembers the state to return to.
    Paused,
    /// Terminal: every subtask is done, and the results are reduced where the job asks for it.
    Succeeded,
    /// Terminal: a subtask failed for good, or a limit of the job was reached. `retry` re-opens the
    /// job.
    Failed,
    /// Terminal: the job was cancelled.
    Cancelled,
    /// Terminal: the document was never accepted; `error` says why.
    Rejected,
}

/// An event that moves a job from state to state.
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
    /// A user paused the job.
    Pause,
    /// A user resumed the job; it returns to the state that it was paused in.
    Resume,
    /// A user cancelled the job.
    Cancel,
    /// A user asked to try the failed subtasks again.
    Retry,
}

/// A predicate of a job's state, with its name: see [`JobState::PREDICATES`].
pub type Predicate = (&'static str, fn(JobState) -> bool);

/// An event that is not allowed in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} can't {event}")]
pub struct IllegalTransition {
    /// The job's state.
    pub state: JobState,
    /// The event.
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

    /// The state of a job that was just accepted.
    pub const INITIAL: Self = Self::Queued;

    /// The predicates below under the names of the tables that Lua gets. A new predicate gets a
    /// line here.
    pub const PREDICATES: [Predicate; 7] = [
        ("TERMINAL", Self::is_terminal),
        ("SUCCEEDED", Self::is_success),
        ("ACCEPTED", Self::was_accepted),
        ("PAUSED", Self::is_paused),
        ("FEEDS", Self::feeds),
        ("ACCEPTS_CLAIMS", Self::accepts_claims),
        ("IN_PROGRESS", Self::is_in_progress),
    ];

    /// The state that `event` leads to. `resume_to` is the state that a paused job was paused in
    /// (ignored otherwise). A pause of a paused job, a resume of a running job and a cancel of a
    /// cancelled job change nothing and are no error, so that a caller may repeat a request whose
    /// reply was lost.
    ///
    /// Two pairs are refused that a reader may expect:
    /// - `(Paused, Reduce)`. A chunk that was running when the job was paused may settle the last
    ///   subtask; then the job stays paused, and the remembered state moves instead: the ledger
    ///   asks `resume_to.on(Reduce, …)`, keeps the answer, and a resume leads to `Reducing`.
    /// - `(Cancelled, Retry)`. A cancel is deliberate, and no subtask failed. A user who wants the
    ///   job after all submits it again under a new id.
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

    /// Whether the job has ended: only `retry` and `delete` can change it.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Rejected)
    }

    /// Whether the job did everything that it was asked for.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// Whether the document was accepted. A job of the same id may replace a job that was not.
    pub const fn was_accepted(self) -> bool {
        !matches!(self, Self::Rejected)
    }

    /// Whether the job was paused and may be resumed.
    pub const fn is_paused(self) -> bool {
        matches!(self, Self::Paused)
    }

    /// Whether the job was accepted and no subtask has started.
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::Queued)
    }

    /// Whether subtasks of the job run or have run, and more may follow.
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running)
    }

    /// Whether the job combines results: its chunks hold nodes of the reduce.
    pub const fn is_reducing(self) -> bool {
        matches!(self, Self::Reducing)
    }

    /// Whether the job was cancelled.
    pub const fn is_cancelled(self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Whether the job has ended and a retry re-opens it.
    pub fn may_be_reopened(self) -> bool {
        self.is_terminal() && self.on(JobEvent::Retry, self).is_ok()
    }

    /// Whether chunks of the job are opened and published.
    pub const fn feeds(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Reducing)
    }

    /// Whether a worker may claim a chunk of the job: where [`JobEvent::Start`] is allowed.
    pub const fn accepts_claims(self) -> bool {
        self.feeds()
    }

    /// Whether work on the job has started and is going on, so that its rate tells when it will
    /// end.
    pub const fn is_in_progress(self) -> bool {
        matches!(self, Self::Running | Self::Reducing)
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

/// The state of an open chunk. The ledger removes a chunk whose last subtask is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// The chunk's message is on its way to a worker, or lost; the sweep publishes the chunk again
    /// after `due`. A claim moves the chunk on.
    Queued {
        /// When the sweep is to publish the chunk again (the ledger's clock).
        due: crate::Timestamp,
    },
    /// A worker runs the chunk. The commit of its last subtask, a release or a revoke moves it on;
    /// after a crash of the worker it stays in this state until the watcher revokes its token.
    Running {
        /// The fencing token: only commits that carry it are accepted.
        token: crate::Token,
        /// The worker that holds the chunk.
        node: crate::NodeId,
    },
}

/// An event that moves an open chunk from state to state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// A worker that received the message of `epoch` asks to run the chunk.
    Claim {
        /// The epoch of the message.
        epoch: crate::Epoch,
        /// The claimant's token.
        token: crate::Token,
        /// The claimant.
        node: crate::NodeId,
    },
    /// The holder releases what it has not settled (drain, shutdown), or the watcher revokes it.
    Released {
        /// The token that loses its hold.
        token: crate::Token,
        /// When the sweep is to publish the rest.
        due: crate::Timestamp,
    },
    /// The holder is lost or releases the chunk, and the node that runs the chunk speculatively
    /// takes its place.
    HandOver {
        /// The token that loses its hold.
        token: crate::Token,
        /// The token of the speculative execution.
        to: crate::Token,
        /// The node of the speculative execution.
        node: crate::NodeId,
    },
    /// The holder settles some of its subtasks.
    Commit {
        /// The holder's token.
        token: crate::Token,
    },
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRefusal {
    /// Another node holds the chunk, or the message is from an earlier epoch.
    Stale,
    /// The token is not the current one.
    Fenced,
}

impl ChunkState {
    /// The words of the two states in the ledger's records.
    pub const QUEUED: &'static str = "queued";
    /// See [`Self::QUEUED`].
    pub const RUNNING: &'static str = "running";

    /// The state that `event` leads to, for a chunk of the given current `epoch`.
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
