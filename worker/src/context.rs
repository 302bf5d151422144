//! What a handler knows of its attempt: job, index, attempt, node, parameters, cancellation.

use std::sync::Arc;

use longshore_protocol::{JobId, NodeId, Plan};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::TaskError;

/// One attempt at one subtask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) job: JobId,
    pub(crate) index: u64,
    pub(crate) attempt: u32,
    pub(crate) node: NodeId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) cancel: CancellationToken,
    /// Cancelled when the worker is asked to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) max_result: usize,
}

impl Context {
    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// The index of the subtask within the job; from the job's total on, that of a reduce node.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number of the attempt: 1 for the first, one more after each failure of the subtask.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The node that runs the attempt.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// `job/index`: the same for every attempt. A side effect that is keyed by it happens once.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.job, self.index)
    }

    /// The job's `params`, the same for every subtask. The error is permanent and names the place.
    pub fn params<T: for<'de> Deserialize<'de>>(&self) -> Result<T, TaskError> {
        self.plan
            .document()
            .params
            .read()
            .map_err(|error| TaskError::permanent(format_args!("params: {error}")))
    }

    /// Whether the attempt should stop: it ran out of time, its job ended, or the worker leaves.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until the attempt should stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}
