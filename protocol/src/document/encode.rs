//! Encodes a document as canonical JSON, computes its digest, and defines its JSON Schema.
//!
//! The canonical form has every field, in the order of these types.
//!
//! The JSON Schema in `docs/` is generated from the same types, so it has every field that is
//! written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super as document;
use super::leaves::{Data, DurationText, Name, SizeText};
use crate::json::Items;
use crate::{Digest, JobId};

impl document::JobDocument {
    /// The document as canonical JSON: every field, in a fixed order, the keys of the application's
    /// own objects sorted. An id that is not chosen yet is absent.
    pub fn to_json(&self) -> String {
        to_json(&JobDocument::new(self, self.id))
    }

    /// The length of the canonical JSON in bytes, without building the text.
    pub(super) fn json_length(&self) -> usize {
        let mut length = Length(0);
        write_json(&mut length, &JobDocument::new(self, self.id));
        length.0
    }

    /// The digest of the content without the id: same digest, same content.
    pub fn digest(&self) -> Digest {
        let mut hash = BufWriter::with_capacity(1 << 16, Hash(Sha256::new()));
        write_json(&mut hash, &JobDocument::new(self, None));
        let hash = hash.into_inner().ok().expect("a hash takes everything").0.finalize();
        Digest::new(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl JsonSchema for document::JobDocument {
    fn schema_name() -> Cow<'static, str> {
        "JobDocument".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        JobDocument::json_schema(generator)
    }
}

fn to_json(document: &JobDocument<'_>) -> String {
    serde_json::to_string(document).expect("every part of a document can be written as JSON")
}

fn write_json(to: impl Write, document: &JobDocument<'_>) {
    serde_json::to_writer(to, document).expect("every part of a document can be written as JSON");
}

/// A writer that hashes its input.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that counts its input.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A job for Longshore: what to run, how it becomes subtasks, and how to treat them.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct JobDocument<'a> {
    /// The idempotency key: the same id with the same content is accepted again and does nothing,
    /// with other content it is a conflict. Chosen on admission when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))]
    id: Option<JobId>,
    /// Name of the task that workers run.
    task: Name<'a>,
    /// How the job becomes subtasks.
    split: Split<'a>,
    /// Parameters that every subtask gets.
    #[schemars(default)]
    params: Data<'a>,
    /// How results are combined; absent if they are not.
    #[schemars(default)]
    reduce: Option<Reduce<'a>>,
    /// The queue from which workers take the subtasks.
    #[schemars(default = "default_name")]
    queue: Name<'a>,
    /// 0 (last) to 9 (first). Jobs of a lower priority get a smaller share of the slots, not none.
    #[schemars(default = "default_priority", range(min = 0, max = 9))]
    priority: u8,
    /// The tenant that owns the job, for fair shares and limits.
    #[schemars(default = "default_name")]
    tenant: Name<'a>,
    /// What happens after a failed attempt.
    #[schemars(default)]
    retry: Retry,
    /// Time limit of one attempt at a subtask.
    #[schemars(default)]
    timeout: Option<DurationText>,
    /// Time limit of the whole job, from its submission.
    #[schemars(default)]
    deadline: Option<DurationText>,
    /// Most subtasks of this job that run at once, exact across all workers.
    #[schemars(default, range(min = 1, max = 1_099_511_627_776_u64))]
    max_parallel: Option<u64>,
    /// The job ends as failed once this many subtasks have failed for good.
    #[schemars(default, range(min = 1, max = 1_099_511_627_776_u64))]
    stop_after_failures: Option<u64>,
    /// Which worker gets which subtask.
    #[schemars(default)]
    placement: Placement<'a>,
    /// The number of subtasks in one chunk.
    #[schemars(default)]
    chunk: Chunk,
    /// Where results are kept.
    #[schemars(default)]
    results: Results<'a>,
    /// What happens to a subtask whose file or object has changed since the job was admitted (its
    /// size and change time, or its ETag): it fails for good, or reads the changed file.
    // Absent where it is the default, so that documents without this field keep their digests.
    #[serde(skip_serializing_if = "Changed::is_default")]
    #[schemars(default)]
    changed: Changed,
    /// How long the ledger keeps the finished job; at least 1s.
    #[schemars(default = "default_keep_for")]
    keep_for: DurationText,
    /// What people call the job: lists show it. The name need not be unique.
    // Left out where there is none, so that digests stay what they were before there was this
    // field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(min = 1, max = 200))]
    name: Option<&'a str>,
    /// Labels for finding the job.
    #[schemars(default = "default_labels", extend("maxProperties" = 64))]
    #[schemars(with = "BTreeMap<String, String>")]
    labels: &'a BTreeMap<String, String>,
}

fn default_name() -> Name<'static> {
    Name(document::DEFAULT_NAME)
}

fn default_priority() -> u8 {
    document::DEFAULT_PRIORITY
}

fn default_keep_for() -> DurationText {
    DurationText(document::DEFAULT_KEEP_FOR)
}

fn default_labels() -> BTreeMap<String, String> {
    BTreeMap::new()
}

impl<'a> JobDocument<'a> {
    fn new(from: &'a document::JobDocument, id: Option<JobId>) -> Self {
        Self {
            id,
            task: Name(&from.task),
            split: Split::new(&from.split),
            params: Data(Some(&from.params)),
            reduce: from
                .reduce
                .as_ref()
                .map(|reduce| Reduce { task: Name(&reduce.task), fan_in: reduce.fan_in }),
            queue: Name(&from.queue),
            priority: from.priority,
            tenant: Name(&from.tenant),
            retry: Retry::new(&from.retry),
            timeout: from.timeout.map(DurationText),
            deadline: from.deadline.map(DurationText),
            max_parallel: from.max_parallel,
            stop_after_failures: from.stop_after_failures,
            placement: match &from.placement {
                document::Placement::Shared => Placement::Shared,
                document::Placement::RoundRobin => Placement::RoundRobin,
                document::Placement::Hash(pointer) => Placement::Hash(pointer),
            },
            chunk: match from.chunk {
                document::Chunk::Auto => Chunk::Auto(Auto::Auto),
                document::Chunk::Fixed(size) => Chunk::Fixed(size),
            },
            results: match &from.results {
                document::Results::Keep => Results::Word(ResultsWord::Keep),
                document::Results::Discard => Results::Word(ResultsWord::Discard),
                document::Results::Url(url) => Results::Url(url),
            },
            changed: match from.changed {
                document::Changed::Fail => Changed::Fail,
                document::Changed::Read => Changed::Read,
            },
            keep_for: DurationText(from.keep_for),
            name: from.name.as_deref(),
            labels: &from.labels,
        }
    }
}

/// How a job becomes subtasks.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "by", rename_all = "lowercase")]
#[schemars(deny_unknown_fields)]
enum Split<'a> {
    /// One element for each subtask.
    Items {
        /// The elements: any JSON.
        #[schemars(length(min = 1))]
        #[schemars(with = "Vec<Data<'a>>")]
        items: &'a Items,
    },
    /// One number for each subtask: `start`, `start + step`, … before `end`.
    Range {
        /// The first number.
        start: i64,
        /// The numbers end before this one.
        end: i64,
        /// Not zero; negative counts down.
        #[schemars(default = "default_step")]
        step: i64,
    },
    /// For each subtask the lines that start in one byte window of a file.
    Lines {
        /// Paths, globs or URLs, expanded once when the job is admitted.
        #[schemars(length(min = 1))]
        files: &'a [String],
        /// Size of a window.
        bytes: SizeText,
    },
    /// One file for each subtask.
    Files {
        /// Paths, globs or URLs, expanded once when the job is admitted.
        #[schemars(length(min = 1))]
        files: &'a [String],
    },
    /// One combination for each subtask; the last axis changes fastest.
    Grid {
        /// Name and values of each axis, in order.
        axes: Axes<'a>,
    },
}

fn default_step() -> i64 {
    1
}

impl<'a> Split<'a> {
    fn new(from: &'a document::Split) -> Self {
        match from {
            document::Split::Items { items } => Self::Items { items },
            document::Split::Range { start, end, step } => {
                Self::Range { start: *start, end: *end, step: *step }
            }
            document::Split::Lines { files, bytes } => {
                Self::Lines { files, bytes: SizeText(*bytes) }
            }
            document::Split::Files { files } => Self::Files { files },
            document::Split::Grid { axes } => Self::Grid { axes: Axes(axes) },
        }
    }
}

/// The axes of a grid, in the document's order.
struct Axes<'a>(&'a [(String, document::Axis)]);

impl Serialize for Axes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, axis) in self.0 {
            map.serialize_entry(name, &Axis::new(axis))?;
        }
        map.end()
    }
}

impl JsonSchema for Axes<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Axes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let axis = generator.subschema_for::<Axis<'_>>();
        json_schema!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": 64,
            "additionalProperties": axis,
        })
    }
}

/// The values along one axis of a grid, listed or counted.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(deny_unknown_fields)]
enum Axis<'a> {
    /// A list: any JSON.
    Values(#[schemars(with = "Vec<Data<'a>>", length(min = 1))] &'a Items),
    /// A range of numbers.
    Range {
        /// The first number.
        start: i64,
        /// The numbers end before this one.
        end: i64,
        /// Not zero; negative counts down.
        #[schemars(default = "default_step")]
        step: i64,
    },
}

impl<'a> Axis<'a> {
    fn new(from: &'a document::Axis) -> Self {
        match from {
            document::Axis::Values(values) => Self::Values(values),
            document::Axis::Range { start, end, step } => {
                Self::Range { start: *start, end: *end, step: *step }
            }
        }
    }
}

/// How results are combined: by a task, in a tree.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Reduce<'a> {
    /// The task that combines; its input is `{"inputs": [results…]}`.
    task: Name<'a>,
    /// The number of results that the task combines at once.
    #[schemars(default = "default_fan_in", range(min = 2, max = 10_000))]
    fan_in: u64,
}

fn default_fan_in() -> u64 {
    document::DEFAULT_FAN_IN
}

/// What happens after a failed attempt.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// The number of attempts in all.
    #[schemars(default = "default_attempts", range(min = 1, max = 1_000))]
    attempts: u32,
    /// The wait before the second attempt.
    #[schemars(default = "default_backoff")]
    backoff: DurationText,
    /// Each wait is this many times the one before.
    #[schemars(default = "default_factor", range(min = 1, max = 1_000))]
    factor: f64,
    /// The longest wait (before jitter); at least `backoff`.
    #[schemars(default = "default_max_backoff")]
    max_backoff: DurationText,
    /// Each wait is lengthened or shortened at random by up to this share.
    #[schemars(default = "default_jitter", range(min = 0, max = 1))]
    jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self::new(&document::Retry::default())
    }
}

impl Retry {
    fn new(from: &document::Retry) -> Self {
        Self {
            attempts: from.attempts,
            backoff: DurationText(from.backoff),
            factor: from.factor,
            max_backoff: DurationText(from.max_backoff),
            jitter: from.jitter,
        }
    }
}

fn default_attempts() -> u32 {
    Retry::default().attempts
}

fn default_backoff() -> DurationText {
    Retry::default().backoff
}

fn default_factor() -> f64 {
    Retry::default().factor
}

fn default_max_backoff() -> DurationText {
    Retry::default().max_backoff
}

fn default_jitter() -> f64 {
    Retry::default().jitter
}

/// Which worker gets which subtask.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Placement<'a> {
    /// The first free worker.
    #[default]
    Shared,
    /// The live workers in turn.
    RoundRobin,
    /// Consistent hashing of the value at this JSON pointer (RFC 6901) of the input, over the live
    /// workers.
    Hash(#[schemars(regex(pattern = r"^(/([^~]|~[01])*)?$"), length(max = 1_000))] &'a str),
}

/// The number of subtasks in one chunk.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Chunk {
    Auto(Auto),
    /// A fixed number.
    Fixed(#[schemars(range(min = 1, max = 1_000_000))] u64),
}

impl Default for Chunk {
    fn default() -> Self {
        Self::Auto(Auto::Auto)
    }
}

/// As many as suit their duration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

/// Where results are kept.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Results<'a> {
    Word(ResultsWord),
    /// Written under this URL prefix.
    Url(
        #[schemars(regex(pattern = r"^(file:///\S|s3://[^/\s])\S*$"), length(max = 4_096))]
        &'a str,
    ),
}

impl Default for Results<'_> {
    fn default() -> Self {
        Self::Word(ResultsWord::Keep)
    }
}

/// What happens to a subtask whose file has changed: it fails, or reads the changed file.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Changed {
    #[default]
    Fail,
    Read,
}

impl Changed {
    fn is_default(&self) -> bool {
        matches!(self, Self::Fail)
    }
}

/// Results are kept in the ledger, or discarded.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ResultsWord {
    Keep,
    Discard,
}
