//! The rules and bounds that every document must obey, parsed from JSON or built in Rust.
//!
//! Each bound has its reason beside it. Deliberately absent: types and unknown fields, which only
//! JSON can get wrong (see `decode`), and files, which only the ledger's manifest knows (see
//! `crate::Plan`).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::field_path::FieldPath;
use super::json::{quote, too_long};
use super::units::format_duration;
use super::{
    Axis, Chunk, Invalid, JobDocument, MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_TOTAL, Placement,
    Results, Retry, Split,
};
use crate::json::{self, Items};
use crate::names::{MAX_LABEL_VALUE, MAX_NAME, check_name};

pub(super) const PRIORITY: RangeInclusive<u64> = 0..=9;
/// A reduce node gets its results in one message and holds them in memory at once.
pub(super) const FAN_IN: RangeInclusive<u64> = 2..=10_000;
/// A subtask that failed a thousand times will not succeed.
pub(super) const ATTEMPTS: RangeInclusive<u64> = 1..=1_000;
pub(super) const FACTOR: RangeInclusive<f64> = 1.0..=1_000.0;
pub(super) const JITTER: RangeInclusive<f64> = 0.0..=1.0;
/// The outcomes and results of one chunk must fit in a worker's memory and in one commit.
pub(super) const CHUNK: RangeInclusive<u64> = 1..=1_000_000;
/// No job has more subtasks, so no larger limit means anything; and Lua counts exactly that far.
pub(super) const SUBTASKS: RangeInclusive<u64> = 1..=MAX_TOTAL;
/// Small windows are slow, not wrong, and the largest total bounds them; a larger window than this
/// would be one subtask of many hours.
const WINDOW: RangeInclusive<u64> = 1..=1 << 40;
/// Names in a grid's point, which every subtask carries.
const MAX_AXES: usize = 64;
const MAX_LABELS: usize = 64;

/// Longest name of a job, in characters.
const MAX_JOB_NAME: usize = 200;
const MAX_POINTER: usize = 1_000;
/// Longest glob or URL: Linux takes no longer path.
const MAX_PATH: usize = 4_096;
/// 100 years: far enough for "for ever", and milliseconds since 1970 plus this stay exact in Lua.
const LONGEST: Duration = Duration::from_secs(876_600 * 3_600);
/// The ledger's clock ticks in milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);
/// A client that waits for a job must still find it after its end.
const SHORTEST_KEPT: Duration = Duration::from_secs(1);

impl JobDocument {
    /// Checks a document that was built in Rust against the rules of [`JobDocument::parse`].
    ///
    /// The rules of names: a task, queue or tenant has 1 to 100 characters out of `A-Z a-z 0-9 . _
    /// -`, because they become part of queue names, keys and metrics.
    pub fn validate(&self) -> Result<(), Invalid> {
        let root = FieldPath::Root;
        name(root.field("task"), &self.task)?;
        let place = root.field("split");
        split(place, &self.split)?;
        split_depth(place, &self.split)?;
        depth(root.field("params"), self.params.get(), 1)?;
        self.check_reduce(root.field("reduce"))?;
        name(root.field("queue"), &self.queue)?;
        whole(root.field("priority"), u64::from(self.priority), &PRIORITY)?;
        name(root.field("tenant"), &self.tenant)?;
        retry(root.field("retry"), &self.retry)?;
        if let Some(timeout) = self.timeout {
            duration(root.field("timeout"), timeout, SHORTEST)?;
        }
        if let Some(deadline) = self.deadline {
            duration(root.field("deadline"), deadline, SHORTEST)?;
        }
        if let Some(most) = self.max_parallel {
            whole(root.field("max_parallel"), most, &SUBTASKS)?;
        }
        if let Some(failures) = self.stop_after_failures {
            whole(root.field("stop_after_failures"), failures, &SUBTASKS)?;
        }
        placement(root.field("placement"), &self.placement)?;
        if let Chunk::Fixed(size) = self.chunk {
            whole(root.field("chunk"), size, &CHUNK)?;
        }
        if let Results::Url(url) = &self.results {
            results_url(root.field("results"), url)?;
        }
        duration(root.field("keep_for"), self.keep_for, SHORTEST_KEPT)?;
        if let Some(name) = &self.name {
            job_name(root.field("name"), name)?;
        }
        self.check_labels(root.field("labels"))?;
        // The canonical text is what is sent and kept, so it must fit too.
        let length = self.json_length();
        if length > MAX_DOCUMENT_BYTES {
            return Err(root.invalid(format!("{length} bytes"), too_long()));
        }
        Ok(())
    }

    fn check_reduce(&self, place: FieldPath<'_>) -> Result<(), Invalid> {
        let Some(reduce) = &self.reduce else { return Ok(()) };
        name(place.field("task"), &reduce.task)?;
        whole(place.field("fan_in"), reduce.fan_in, &FAN_IN)?;
        if self.results == Results::Discard {
            let found = r#"stands beside `"results": "discard"`"#;
            return Err(
                place.invalid(found, r#"keep the results that it combines: use "keep" or a URL"#)
            );
        }
        Ok(())
    }

    fn check_labels(&self, place: FieldPath<'_>) -> Result<(), Invalid> {
        if self.labels.len() > MAX_LABELS {
            let found = format!("{} labels", self.labels.len());
            return Err(place.invalid(found, format!("use at most {MAX_LABELS}")));
        }
        for (key, value) in &self.labels {
            key_text(place, key)?;
            let length = value.chars().count();
            if length > MAX_LABEL_VALUE {
                let found = format!("{length} characters");
                return Err(place
                    .field(key)
                    .invalid(found, format!("use at most {MAX_LABEL_VALUE}")));
            }
        }
        Ok(())
    }
}

fn job_name(place: FieldPath<'_>, name: &str) -> Result<(), Invalid> {
    let length = name.chars().count();
    let found = match name.chars().find(|char| char.is_control()) {
        _ if !(1..=MAX_JOB_NAME).contains(&length) => format!("{length} characters"),
        Some(char) => format!("the character `{}`", char.escape_debug()),
        None => return Ok(()),
    };
    Err(place.invalid(found, format!("use 1 to {MAX_JOB_NAME} printable characters")))
}

/// `use a whole number from 1 to 9`.
pub(super) fn whole_numbers(bounds: &RangeInclusive<u64>) -> String {
    format!("use a whole number from {} to {}", bounds.start(), bounds.end())
}

/// `use a number from 0 to 1`.
pub(super) fn real_numbers(bounds: &RangeInclusive<f64>) -> String {
    format!("use a number from {} to {}", bounds.start(), bounds.end())
}

fn whole(place: FieldPath<'_>, value: u64, bounds: &RangeInclusive<u64>) -> Result<(), Invalid> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(place.invalid(format!("`{value}`"), whole_numbers(bounds)))
}

fn real(place: FieldPath<'_>, value: f64, bounds: &RangeInclusive<f64>) -> Result<(), Invalid> {
    // NaN is in no range.
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(place.invalid(format!("`{value}`"), real_numbers(bounds)))
}

fn duration(place: FieldPath<'_>, value: Duration, least: Duration) -> Result<(), Invalid> {
    let in_milliseconds = value.subsec_nanos().is_multiple_of(1_000_000);
    if (least..=LONGEST).contains(&value) && in_milliseconds {
        return Ok(());
    }
    let (found, least) = (format!("`{}`", format_duration(value)), format_duration(least));
    let allowed =
        format!("use {least} to {} (100 years), in whole milliseconds", format_duration(LONGEST));
    Err(place.invalid(found, allowed))
}

fn name(place: FieldPath<'_>, name: &str) -> Result<(), Invalid> {
    check_name("", name).map_err(|wrong| place.invalid(wrong.found, wrong.allowed))
}

/// The name of an axis or label: free text on one line.
fn key_text(place: FieldPath<'_>, key: &str) -> Result<(), Invalid> {
    let length = key.chars().count();
    if (1..=MAX_NAME).contains(&length) && !key.chars().any(char::is_control) {
        return Ok(());
    }
    let found = match length {
        0 => "an empty name".into(),
        1..=MAX_NAME => format!("{} with a control character", quote(key)),
        _ => format!("a name of {length} characters"),
    };
    Err(place.invalid(found, format!("use 1 to {MAX_NAME} printable characters")))
}

fn retry(place: FieldPath<'_>, retry: &Retry) -> Result<(), Invalid> {
    whole(place.field("attempts"), u64::from(retry.attempts), &ATTEMPTS)?;
    duration(place.field("backoff"), retry.backoff, Duration::ZERO)?;
    real(place.field("factor"), retry.factor, &FACTOR)?;
    duration(place.field("max_backoff"), retry.max_backoff, Duration::ZERO)?;
    real(place.field("jitter"), retry.jitter, &JITTER)?;
    if retry.max_backoff < retry.backoff {
        let found = format!("`{}`", format_duration(retry.max_backoff));
        let allowed = format!("use at least the backoff, {}", format_duration(retry.backoff));
        return Err(place.field("max_backoff").invalid(found, allowed));
    }
    Ok(())
}

fn placement(place: FieldPath<'_>, placement: &Placement) -> Result<(), Invalid> {
    let Placement::Hash(pointer) = placement else { return Ok(()) };
    let place = place.field("hash");
    if pointer.len() > MAX_POINTER {
        let found = format!("a pointer of {} bytes", pointer.len());
        return Err(place.invalid(found, format!("use at most {MAX_POINTER}")));
    }
    // RFC 6901: empty, or a slash before each name, with `~` only as `~0` and `~1`.
    let escapes_are_whole =
        pointer.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'));
    if (pointer.is_empty() || pointer.starts_with('/')) && escapes_are_whole {
        return Ok(());
    }
    let found = format!("{} is no JSON pointer", quote(pointer));
    Err(place.invalid(found, "write a slash before each name, `~0` for `~` and `~1` for `/`"))
}

fn results_url(place: FieldPath<'_>, url: &str) -> Result<(), Invalid> {
    const ALLOWED: &str =
        "use keep, discard, or a URL like file:///absolute/path or s3://bucket/prefix";
    let odd = |char: char| char.is_control() || char.is_whitespace();
    let bucket = |path: &str| !path.is_empty() && !path.starts_with('/');
    let fits = url.strip_prefix("file:///").is_some_and(|path| !path.is_empty())
        || url.strip_prefix("s3://").is_some_and(bucket);
    if !fits || url.len() > MAX_PATH || url.contains(odd) {
        return Err(place.invalid(quote(url), ALLOWED));
    }
    Ok(())
}

/// Checks what can be checked of a split without its files. The counts that remain fit 128 bits.
pub(crate) fn split(place: FieldPath<'_>, split: &Split) -> Result<(), Invalid> {
    match split {
        Split::Items { items } if items.is_empty() => {
            Err(place.field("items").invalid("an empty list", "list at least one item"))
        }
        Split::Items { items } => total(place.field("items"), Some(items.len() as u128)),
        Split::Range { start, end, step } => total(place, Some(range(place, *start, *end, *step)?)),
        Split::Lines { files, bytes } => {
            globs(place.field("files"), files)?;
            if !WINDOW.contains(bytes) {
                let found = format!("`{}`", super::units::format_size(*bytes));
                return Err(place.field("bytes").invalid(found, "use 1B to 1TiB"));
            }
            Ok(())
        }
        Split::Files { files } => globs(place.field("files"), files),
        Split::Grid { axes } => grid(place.field("axes"), axes),
    }
}

/// Refuses more than [`MAX_TOTAL`] subtasks; `None` is a number past 128 bits.
pub(crate) fn total(place: FieldPath<'_>, count: Option<u128>) -> Result<(), Invalid> {
    let found = match count {
        Some(count) if count <= u128::from(MAX_TOTAL) => return Ok(()),
        Some(count) => format!("{count} subtasks"),
        None => "more than 2^128 subtasks".into(),
    };
    Err(place.invalid(found, format!("use at most {MAX_TOTAL} (2^40)")))
}

/// The number of values in a range, at least one.
fn range(place: FieldPath<'_>, start: i64, end: i64, step: i64) -> Result<u128, Invalid> {
    if step == 0 {
        return Err(place.field("step").invalid("`0`", "use a step that leads from start to end"));
    }
    match super::range_len(start, end, step) {
        0 => {
            let found = format!("no numbers from {start} to before {end} in steps of {step}");
            let side = if step > 0 { "above" } else { "below" };
            Err(place.invalid(found, format!("use an end {side} the start")))
        }
        count => Ok(count),
    }
}

fn grid(place: FieldPath<'_>, axes: &[(String, Axis)]) -> Result<(), Invalid> {
    if axes.is_empty() {
        return Err(place.invalid("no axes", "name at least one"));
    }
    if axes.len() > MAX_AXES {
        return Err(
            place.invalid(format!("{} axes", axes.len()), format!("use at most {MAX_AXES}"))
        );
    }
    let mut names = BTreeSet::new();
    let mut count = Some(1u128);
    for (name, axis) in axes {
        key_text(place, name)?;
        if !names.insert(name) {
            return Err(place.twice("axis", name));
        }
        let place = place.field(name);
        let length = match axis {
            Axis::Values(values) if values.is_empty() => {
                return Err(place.invalid("an empty list", "list at least one value"));
            }
            Axis::Values(values) => values.len() as u128,
            Axis::Range { start, end, step } => range(place, *start, *end, *step)?,
        };
        count = count.and_then(|count| count.checked_mul(length));
    }
    total(place, count)
}

fn globs(place: FieldPath<'_>, globs: &[String]) -> Result<(), Invalid> {
    const ALLOWED: &str =
        "write paths with * ? [abc] or **, or URLs that start with file:// or s3://";
    if globs.is_empty() {
        return Err(place.invalid("an empty list", "list at least one path or glob"));
    }
    for (index, text) in globs.iter().enumerate() {
        let place = place.index(index);
        let no_glob =
            |why: &str| place.invalid(format!("{} is no glob: {why}", quote(text)), ALLOWED);
        if text.is_empty() {
            return Err(place.invalid("an empty path", ALLOWED));
        }
        if text.len() > MAX_PATH {
            let found = format!("a path of {} bytes", text.len());
            return Err(place.invalid(found, format!("use at most {MAX_PATH}")));
        }
        if text.contains('\0') {
            return Err(no_glob("a NUL character"));
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| !["file", "s3"].contains(&scheme)) {
            return Err(no_glob("unknown scheme"));
        }
        if let Err(error) = glob::Pattern::new(text) {
            return Err(no_glob(error.msg));
        }
    }
    Ok(())
}

fn split_depth(place: FieldPath<'_>, split: &Split) -> Result<(), Invalid> {
    match split {
        Split::Items { items } => depths(place.field("items"), items, 3),
        Split::Grid { axes } => {
            let place = place.field("axes");
            axes.iter().try_for_each(|(name, axis)| match axis {
                Axis::Values(values) => depths(place.field(name), values, 4),
                Axis::Range { .. } => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

fn depths(place: FieldPath<'_>, values: &Items, above: usize) -> Result<(), Invalid> {
    if json::depth(values.text()) <= MAX_DEPTH - above + 1 {
        return Ok(());
    }
    values.iter().enumerate().try_for_each(|(index, text)| depth(place.index(index), text, above))
}

/// Refuses data that is nested so deep that the document could not be read again; `above` is the
/// number of levels around the data.
fn depth(place: FieldPath<'_>, text: &str, above: usize) -> Result<(), Invalid> {
    if json::depth(text) <= MAX_DEPTH - above {
        return Ok(());
    }
    Err(place.invalid("nested too deep", format!("nest at most {MAX_DEPTH} levels")))
}
