//! Counts the states of a job's subtasks for equal ranges of their indices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Counts, JobId};

/// Largest number of ranges of one [`JobMap`].
pub const MAX_CELLS: u64 = 2_000;

/// The states of a job's subtasks by ranges of their indices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobMap {
    /// The job's id.
    pub id: JobId,
    /// The first index.
    pub from: u64,
    /// The index behind the last one.
    pub to: u64,
    /// The ranges in order, each as long as the others or shorter by one. Empty if `from` is `to`.
    pub cells: Vec<MapCell>,
}

/// A range of indices and the states of their subtasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapCell {
    /// The first index.
    pub from: u64,
    /// The number of subtasks in each state; `total` is the length of the range.
    #[serde(flatten)]
    pub counts: Counts,
}
