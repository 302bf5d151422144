//! The job document as Rust types with its limits: what an application publishes.
//!
//! Parsing goes through `json` (text to tree), `decode` (tree to types) and `rules` (which values
//! are allowed); a document built in Rust passes the same rules. `encode` writes the document.
//! Deliberately absent: files (see [`crate::Plan`]).

mod decode;
mod encode;
pub(crate) mod field_path;
mod json;
mod leaves;
mod reader;
pub(crate) mod rules;
mod schema;
mod units;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JobId;
use crate::json::{Items, Json};

pub(crate) use json::quote;
pub use reader::nearest;
pub use schema::{chunk_schema, job_schema, journal_schema, views_schema};

/// Most subtasks that a job may have.
pub const MAX_TOTAL: u64 = 1 << 40;

/// Largest document, bytes. RabbitMQ 4.x takes no message over 16 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// The depth to which lists and objects may be nested, the document itself included. serde_json
/// reads at most 128 levels, and a subtask or a result adds some levels around the data.
pub const MAX_DEPTH: usize = 100;

const DEFAULT_NAME: &str = "default";
const DEFAULT_PRIORITY: u8 = 5;
const DEFAULT_FAN_IN: u64 = 64;
const DEFAULT_KEEP_FOR: Duration = Duration::from_secs(24 * 3600);

/// A job, complete and valid: every field has its value, written out or by default.
#[derive(Clone, Debug, PartialEq)]
pub struct JobDocument {
    /// The idempotency key; if absent, it is chosen when the document is admitted.
    pub id: Option<JobId>,
    /// Name of the task that workers run.
    pub task: String,
    /// How the job becomes subtasks.
    pub split: Split,
    /// Parameters that every subtask gets.
    pub params: Json,
    /// How results are combined; `None` if they are not.
    pub reduce: Option<Reduce>,
    /// The queue from which workers take the subtasks.
    pub queue: String,
    /// 0 (last) to 9 (first). Jobs of a lower priority get a smaller share of the slots, not none.
    pub priority: u8,
    /// The tenant that owns the job.
    pub tenant: String,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// Time limit of one attempt at a subtask.
    pub timeout: Option<Duration>,
    /// Time limit of the whole job, from its submission.
    pub deadline: Option<Duration>,
    /// Most subtasks that run at once, exact across all workers.
    pub max_parallel: Option<u64>,
    /// The job ends as failed once this many subtasks have failed for good.
    pub stop_after_failures: Option<u64>,
    /// Which worker gets which subtask.
    pub placement: Placement,
    /// The number of subtasks in one chunk.
    pub chunk: Chunk,
    /// Where results are kept.
    pub results: Results,
    /// What happens to a subtask whose file has changed since the job was admitted.
    pub changed: Changed,
    /// How long the ledger keeps the finished job.
    pub keep_for: Duration,
    /// What people call the job; need not be unique.
    pub name: Option<String>,
    /// Labels for finding the job.
    pub labels: BTreeMap<String, String>,
}

/// How a job becomes subtasks. A rule, never a list of records.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// One element for each subtask.
    Items {
        /// The elements.
        items: Items,
    },
    /// One number for each subtask: `start`, `start + step`, … before `end`.
    Range {
        /// The first number.
        start: i64,
        /// The numbers end before this one.
        end: i64,
        /// Not zero; negative counts down.
        step: i64,
    },
    /// For each subtask the lines that start in one byte window of a file.
    Lines {
        /// Globs, expanded once when the job is admitted.
        files: Vec<String>,
        /// Size of a window.
        bytes: u64,
    },
    /// One file for each subtask.
    Files {
        /// Globs, expanded once when the job is admitted.
        files: Vec<String>,
    },
    /// One combination for each subtask; the last axis changes fastest.
    Grid {
        /// Name and values of each axis, in the document's order.
        axes: Vec<(String, Axis)>,
    },
}

/// The values along one axis of a grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Axis {
    /// A list of values.
    Values(Items),
    /// A range of numbers.
    Range {
        /// The first number.
        start: i64,
        /// The numbers end before this one.
        end: i64,
        /// Not zero; negative counts down.
        step: i64,
    },
}

/// How results are combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// The task that combines; its input is `{"inputs": [results…]}`.
    pub task: String,
    /// The number of results that the task combines at once, at least 2.
    pub fan_in: u64,
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The number of attempts in all, at least 1.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub backoff: Duration,
    /// Each wait is this many times the one before, at least 1.
    pub factor: f64,
    /// The longest wait (before jitter).
    pub max_backoff: Duration,
    /// Each wait is lengthened or shortened at random by up to this share, 0 to 1.
    pub jitter: f64,
}

/// Which worker gets which subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The first free worker.
    Shared,
    /// The live workers in turn.
    RoundRobin,
    /// Consistent hashing of the value at this JSON pointer of the input, over the live workers.
    Hash(String),
}

/// The number of subtasks in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// As many as suit their duration.
    Auto,
    /// A fixed number, at least 1.
    Fixed(u64),
}

/// Where results are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Results {
    /// Results are kept in the ledger.
    Keep,
    /// Results are discarded.
    Discard,
    /// Results are written under this URL prefix (`file://` or `s3://`).
    Url(String),
}

/// What to do with a subtask whose file has changed since the job was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The subtask fails for good; the error names the expected and the found version.
    Fail,
    /// The subtask reads the changed file.
    Read,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_secs(1),
            factor: 2.0,
            max_backoff: Duration::from_secs(300),
            jitter: 0.1,
        }
    }
}

impl Retry {
    /// The wait after failed attempt number `attempt` (1 is the first), or `None` if it was the
    /// last. `random` in 0..1 decides the jitter.
    pub fn delay_after(&self, attempt: u32, random: f64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        Some(self.backoff_for(attempt, random))
    }

    /// The wait before try number `tries + 1`, without regard to how many attempts are allowed.
    pub fn backoff_for(&self, tries: u32, random: f64) -> Duration {
        if self.backoff.is_zero() {
            // Zero times an infinite factor is not a number.
            return Duration::ZERO;
        }
        let exponent = i32::try_from(tries.saturating_sub(1)).unwrap_or(i32::MAX);
        let plain = self.backoff.as_secs_f64() * self.factor.powi(exponent);
        let capped = plain.min(self.max_backoff.as_secs_f64());
        let jittered = capped * (1.0 + self.jitter * (2.0 * random - 1.0));
        Duration::from_secs_f64(jittered)
    }
}

impl JobDocument {
    /// A document with all defaults; set the fields that are to differ, then
    /// [`validate`](Self::validate).
    pub fn new(task: impl Into<String>, split: Split) -> Self {
        Self {
            id: None,
            task: task.into(),
            split,
            params: Json::null(),
            reduce: None,
            queue: DEFAULT_NAME.into(),
            priority: DEFAULT_PRIORITY,
            tenant: DEFAULT_NAME.into(),
            retry: Retry::default(),
            timeout: None,
            deadline: None,
            max_parallel: None,
            stop_after_failures: None,
            placement: Placement::Shared,
            chunk: Chunk::Auto,
            results: Results::Keep,
            changed: Changed::Fail,
            keep_for: DEFAULT_KEEP_FOR,
            name: None,
            labels: BTreeMap::new(),
        }
    }
}

impl Split {
    /// One element for each subtask.
    pub fn items(items: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        Self::Items { items: items.into_iter().map(|item| Json::from(item.into())).collect() }
    }

    /// One Rust value for each subtask, as serde writes it, numbers beyond 64 bits included. The
    /// error names the value that JSON can't represent.
    pub fn values(values: impl IntoIterator<Item = impl Serialize>) -> Result<Self, Invalid> {
        let items: Result<Items, Invalid> =
            values.into_iter().map(|value| Json::of(&value)).collect();
        Ok(Self::Items { items: items? })
    }

    /// One number for each subtask: `start`, `start + 1`, … before `end`.
    pub fn range(numbers: Range<i64>) -> Self {
        Self::Range { start: numbers.start, end: numbers.end, step: 1 }
    }

    /// For each subtask the lines that start in one window of `bytes` bytes.
    pub fn lines(globs: impl IntoIterator<Item = impl Into<String>>, bytes: u64) -> Self {
        Self::Lines { files: globs.into_iter().map(Into::into).collect(), bytes }
    }

    /// One file for each subtask.
    pub fn files(globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Files { files: globs.into_iter().map(Into::into).collect() }
    }

    /// One combination for each subtask; the last axis changes fastest.
    pub fn grid(axes: impl IntoIterator<Item = (impl Into<String>, Axis)>) -> Self {
        Self::Grid { axes: axes.into_iter().map(|(name, axis)| (name.into(), axis)).collect() }
    }
}

impl Reduce {
    /// Combines by `task`, with the default fan-in of 64.
    pub fn new(task: impl Into<String>) -> Self {
        Self { task: task.into(), fan_in: DEFAULT_FAN_IN }
    }
}

/// The number of values from `start` before `end`, in steps that are not zero.
pub(crate) fn range_len(start: i64, end: i64, step: i64) -> u128 {
    let distance = i128::from(end) - i128::from(start);
    if step == 0 || (distance > 0) != (step > 0) {
        return 0;
    }
    distance.unsigned_abs().div_ceil(u128::from(step.unsigned_abs()))
}

/// A mistake in a document: its place, what was found, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
#[error("{place}: {found}; {allowed}")]
pub struct Invalid {
    /// A path like `split.axes.lr[2]`; `document` for the whole.
    pub place: String,
    /// What was found, as a lowercase fragment.
    pub found: String,
    /// What is allowed, as a lowercase fragment.
    pub allowed: String,
}
