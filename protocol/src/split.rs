//! From an index to what the subtask is about: pure, and in O(1) memory whatever the size of the job.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, JobDocument, ReduceTree};

/// What a subtask is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Input {
    /// `items`: the element.
    Item(Value),
    /// `range`: the number.
    Number(i64),
    /// `lines`: the byte window.
    Window(LineWindow),
    /// `files`: the path or URL.
    File(String),
    /// `grid`: the combination, axis -> value.
    Point(Map<String, Value>),
    /// A reduce node: the results that it combines.
    Combine {
        /// In index order.
        inputs: Vec<Value>,
    },
}

/// The lines of `file` that START at `start ≤ offset < end`. A line belongs to the window that holds its first
/// byte, however far it reaches beyond.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LineWindow {
    /// Path or URL.
    pub file: String,
    /// First byte of the window.
    pub start: u64,
    /// One past its last byte; at most the file's size when the job was admitted.
    pub end: u64,
}

/// A file that a glob matched, as it was when the job was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputFile {
    /// Absolute path, or URL.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// What the globs of a `lines` or `files` split matched, in order. Kept in the ledger, so that index -> input never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// Sorted by path, no path twice.
    pub files: Vec<InputFile>,
}

/// A document with its manifest, ready to answer what each subtask is about.
#[derive(Clone, Debug)]
pub struct Plan {
    document: JobDocument,
    manifest: Manifest,
    total: u64,
}

impl Plan {
    /// Refuses a job without subtasks or with more than [`crate::document::MAX_TOTAL`]. `manifest` is empty for splits
    /// without files.
    pub fn new(document: JobDocument, manifest: Manifest) -> Result<Self, Invalid> {
        Ok(Self { document, manifest, total: 0 })
    }

    /// How many subtasks the job has, reduce nodes not counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The document.
    pub fn document(&self) -> &JobDocument {
        &self.document
    }

    /// The files; empty for splits without files.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tree of the reduction, if the job has one.
    pub fn reduce_tree(&self) -> Option<ReduceTree> {
        self.document.reduce.as_ref().map(|reduce| ReduceTree::new(self.total, reduce.fan_in))
    }

    /// The task that runs subtask or reduce node `index`.
    pub fn task(&self, index: u64) -> &str {
        match &self.document.reduce {
            Some(reduce) if index >= self.total => &reduce.task,
            _ => &self.document.task,
        }
    }

    /// What subtask `index` < total is about. Panics past the end: the caller checks against [`Self::total`].
    pub fn input(&self, index: u64) -> Input {
        assert!(index < self.total, "subtask {index} of {}", self.total);
        Input::Number(0)
    }
}
