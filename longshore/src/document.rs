//! Builds the description of a job: the task, how the job is split, and its settings.

use std::ops::Range;
use std::time::Duration;

use longshore_protocol::document::{self, JobDocument};
use longshore_protocol::{Invalid, JobId, Json};
use serde::Serialize;

use crate::Error;

/// Describes a job. The setters check nothing; [`Client::submit`](crate::Client::submit) and
/// [`Self::check`] report the first mistake.
///
/// ```
/// use std::time::Duration;
///
/// use longshore::{Document, Retry, Split};
///
/// let document = Document::new("render", Split::range(0..1_000))
///     .params(&("scene.blend", 4096))
///     .reduce("concat")
///     .retry(Retry::attempts(5).backoff(Duration::from_secs(2)))
///     .timeout(Duration::from_secs(600))
///     .label("project", "harbour");
/// document.check()?;
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    inner: JobDocument,
    /// The first value that can't be written as JSON.
    mistake: Option<Invalid>,
}

/// How a job is split into subtasks, each with one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Split(Result<document::Split, Invalid>);

/// The values along one axis of a [grid](Split::grid).
#[derive(Clone, Debug, PartialEq)]
pub struct Axis(Result<document::Axis, Invalid>);

/// When a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry(document::Retry);

impl Split {
    /// A subtask for each value.
    pub fn items(items: impl IntoIterator<Item = impl Serialize>) -> Self {
        Self(document::Split::values(items))
    }

    /// A subtask for each number.
    pub fn range(numbers: Range<i64>) -> Self {
        Self(Ok(document::Split::range(numbers)))
    }

    /// A subtask for each of the numbers `start`, `start + step`, … before `end`. A negative step
    /// counts down.
    pub fn stepped_range(numbers: Range<i64>, step: i64) -> Self {
        Self(Ok(document::Split::Range { start: numbers.start, end: numbers.end, step }))
    }

    /// A subtask for each window of this many bytes of the files, with the lines that start in the
    /// window. Globs of paths, `file://` and `s3://` URLs.
    pub fn lines(globs: impl IntoIterator<Item = impl Into<String>>, bytes: u64) -> Self {
        Self(Ok(document::Split::lines(globs, bytes)))
    }

    /// A subtask for each file. Globs of paths, `file://` and `s3://` URLs.
    pub fn files(globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Ok(document::Split::files(globs)))
    }

    /// A subtask for each combination of the axes' values, whose input is an object with a field
    /// for each axis. The last axis varies fastest.
    pub fn grid(axes: impl IntoIterator<Item = (impl Into<String>, Axis)>) -> Self {
        let axes = axes.into_iter().map(|(name, Axis(axis))| Ok((name.into(), axis?)));
        Self(axes.collect::<Result<Vec<_>, Invalid>>().map(|axes| document::Split::Grid { axes }))
    }
}

impl Axis {
    /// These values.
    pub fn values(values: impl IntoIterator<Item = impl Serialize>) -> Self {
        let values = values.into_iter().map(|value| Json::of(&value));
        Self(values.collect::<Result<_, Invalid>>().map(document::Axis::Values))
    }

    /// These numbers.
    pub fn range(numbers: Range<i64>) -> Self {
        Self(Ok(document::Axis::Range { start: numbers.start, end: numbers.end, step: 1 }))
    }
}

impl Retry {
    /// This many attempts in all, at least 1. The waits between them begin with a second and
    /// double, up to 5 minutes.
    pub fn attempts(attempts: u32) -> Self {
        Self(document::Retry { attempts, ..document::Retry::default() })
    }

    /// The wait before the second attempt.
    #[must_use]
    pub fn backoff(mut self, wait: Duration) -> Self {
        self.0.backoff = wait;
        self
    }

    /// Each further wait is this many times the one before, at least 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.0.factor = factor;
        self
    }

    /// The longest wait.
    #[must_use]
    pub fn max_backoff(mut self, wait: Duration) -> Self {
        self.0.max_backoff = wait;
        self
    }
}

impl Document {
    /// A job that runs this task, with the default of every setting.
    pub fn new(task: impl Into<String>, Split(split): Split) -> Self {
        match split {
            Ok(split) => Self { inner: JobDocument::new(task, split), mistake: None },
            Err(mistake) => {
                let inner = JobDocument::new(task, document::Split::range(0..0));
                Self { inner, mistake: Some(mistake) }
            }
        }
    }

    /// Reads a document from JSON, as `longshore submit` does.
    ///
    /// # Errors
    /// [`ErrorKind::BadInput`](crate::ErrorKind::BadInput), with the place, what was found there
    /// and what is allowed.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        Ok(Self { inner: JobDocument::parse(json.as_bytes())?, mistake: None })
    }

    /// The document as JSON, with the defaults.
    pub fn to_json(&self) -> String {
        self.inner.to_json()
    }

    /// The id, which is the idempotency key: two documents with the same id and content are one
    /// job.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.inner.id = Some(id);
        self
    }

    /// A value for all subtasks, which tasks read with [`Context::params`](crate::Context::params).
    #[must_use]
    pub fn params(mut self, params: &impl Serialize) -> Self {
        match Json::of(params) {
            Ok(params) => self.inner.params = params,
            Err(mistake) => {
                self.mistake.get_or_insert(mistake);
            }
        }
        self
    }

    /// Combines the results with this task, in a tree: its input is `{"inputs": [results…]}`, and
    /// its result an input of the next level. [`Job::value`](crate::Job::value) gives the last one.
    #[must_use]
    pub fn reduce(mut self, task: impl Into<String>) -> Self {
        self.inner.reduce = Some(document::Reduce::new(task));
        self
    }

    /// The most results that the reduce task combines at once, at least 2; 64 unless set. Call it
    /// after [`Self::reduce`].
    #[must_use]
    pub fn fan_in(mut self, fan_in: u64) -> Self {
        if let Some(reduce) = &mut self.inner.reduce {
            reduce.fan_in = fan_in;
        }
        self
    }

    /// The pool of workers; `default` unless set.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.inner.queue = queue.into();
        self
    }

    /// 0 (lowest) to 9 (highest); 5 unless set. A share of the workers, not a strict order.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.inner.priority = priority;
        self
    }

    /// The tenant that the job belongs to; `default` unless set. Tenants share the workers fairly.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.inner.tenant = tenant.into();
        self
    }

    /// When a failed attempt is repeated; 3 attempts unless set.
    #[must_use]
    pub fn retry(mut self, Retry(retry): Retry) -> Self {
        self.inner.retry = retry;
        self
    }

    /// The time limit of one attempt.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.inner.timeout = Some(limit);
        self
    }

    /// The time limit of the whole job, from its submission.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.inner.deadline = Some(limit);
        self
    }

    /// The most subtasks that run at once on all workers together.
    #[must_use]
    pub fn max_parallel(mut self, subtasks: u64) -> Self {
        self.inner.max_parallel = Some(subtasks);
        self
    }

    /// The job fails once this many subtasks have failed for good.
    #[must_use]
    pub fn stop_after_failures(mut self, subtasks: u64) -> Self {
        self.inner.stop_after_failures = Some(subtasks);
        self
    }

    /// Places the subtasks on the workers in turn. Unless a placement is set, a subtask goes to the
    /// first free worker.
    #[must_use]
    pub fn place_in_turn(mut self) -> Self {
        self.inner.placement = document::Placement::RoundRobin;
        self
    }

    /// Places subtasks with the same value at this JSON pointer of the input on the same worker, as
    /// long as the set of workers stays the same.
    #[must_use]
    pub fn place_by_hash(mut self, pointer: impl Into<String>) -> Self {
        self.inner.placement = document::Placement::Hash(pointer.into());
        self
    }

    /// The number of subtasks in one chunk, which is what a worker claims at once. Unless set, it
    /// follows from how long subtasks take.
    #[must_use]
    pub fn chunk(mut self, subtasks: u64) -> Self {
        self.inner.chunk = document::Chunk::Fixed(subtasks);
        self
    }

    /// Keeps no results.
    #[must_use]
    pub fn discard_results(mut self) -> Self {
        self.inner.results = document::Results::Discard;
        self
    }

    /// Writes the results under this `file://` or `s3://` URL, and not into Redis.
    #[must_use]
    pub fn results_at(mut self, url: impl Into<String>) -> Self {
        self.inner.results = document::Results::Url(url.into());
        self
    }

    /// Reads files as they are, though they have changed since the job was accepted. Unless set,
    /// their subtasks fail.
    #[must_use]
    pub fn read_changed_files(mut self) -> Self {
        self.inner.changed = document::Changed::Read;
        self
    }

    /// How long the ended job and its results are kept; a day unless set.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.inner.keep_for = time;
        self
    }

    /// What people call the job, in lists; need not be unique.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.inner.name = Some(name.into());
        self
    }

    /// A label to find the job by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.inner.labels.insert(name.into(), value.into());
        self
    }

    /// Reports the first mistake of the document.
    ///
    /// # Errors
    /// [`ErrorKind::BadInput`](crate::ErrorKind::BadInput), with the place, what was found there
    /// and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        self.checked().map(drop)
    }

    pub(crate) fn checked(&self) -> Result<JobDocument, Error> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone().into());
        }
        self.inner.validate()?;
        Ok(self.inner.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(document: &Document, complaint: &str) {
        let error = document.check().expect_err("it has a mistake");
        assert_eq!(error.kind(), crate::ErrorKind::BadInput);
        assert!(error.to_string().starts_with(complaint), "{error}");
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        let document = || Document::new("t", Split::range(0..3));
        document().check().expect("it is fine");
        refused(&Document::new("a b", Split::range(0..3)), "task: ");
        refused(&document().priority(10), "priority: ");
        refused(&document().reduce("sum").fan_in(1), "reduce.fan_in: ");
        let not_json = std::collections::BTreeMap::from([((1, 2), 3)]);
        refused(&document().params(&not_json), "document: ");
        refused(&Document::new("t", Split::items([not_json])), "document: ");
    }

    #[test]
    fn a_document_is_the_same_as_its_json() {
        let document = Document::new("t", Split::grid([("x", Axis::range(0..2))]))
            .params(&"p")
            .reduce("sum")
            .queue("gpu")
            .results_at("s3://bucket/results")
            .label("a", "b");
        let read = Document::from_json(&document.to_json()).expect("it is valid");
        assert_eq!(read, document);
    }
}
