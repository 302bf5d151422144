//! The hints that something changed, as JSON.
//!
//! A hint may get lost, so nothing but speed depends on it.
//!
//! Deliberately absent: how hints travel, and what a ledger tells the processes of Longshore beside
//! them (`Event` of the ledger).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{JobId, NodeId, SchedulerId};

/// A hint that something changed. In Redis it is JSON on the channel `<ns>:events` and on the
/// channels of the topics, e.g. `{"event":"room","job":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Hint {
    /// A job was admitted, re-opened, resumed, paused or ended, or went on to its next level.
    Job {
        /// The job.
        job: JobId,
        /// Its state now.
        state: JobState,
    },
    /// A chunk was closed, released or revoked: there is room in the window of its queue, or a
    /// chunk to publish.
    Room {
        /// The job.
        job: JobId,
    },
    /// A worker joined, began to drain, was lost, left, or has other tasks than before.
    Node {
        /// The worker.
        node: NodeId,
    },
    /// A scheduler left or died.
    Scheduler {
        /// The scheduler.
        scheduler: SchedulerId,
    },
}
