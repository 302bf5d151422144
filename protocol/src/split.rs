//! The plan of a job: computes the input of each subtask from its index, in O(1) memory.
//!
//! The memory does not depend on the size of the job. The manifest of matched files is defined
//! here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::field_path::FieldPath;
use crate::document::{Axis, Changed, Split, range_len, rules};
use crate::json::{self, Json};
use crate::{Invalid, JobDocument, LeftOut, ReduceTree};

/// Most files in a manifest. It is kept in the ledger as one value and held in memory by every
/// worker of the job: a million paths are around 100 MB, and at 500 bytes each still fit Redis's
/// limit of 512 MB a value.
pub const MAX_FILES: usize = 1_000_000;

/// About how many bytes of memory a file of a manifest takes, with two words of the allocator for
/// each text.
fn file_weight(file: &InputFile) -> usize {
    size_of::<InputFile>() + 32 + file.path.len() + file.version.as_ref().map_or(0, String::len)
}

/// The input of a subtask.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Input {
    /// `items`: the element.
    Item(Json),
    /// `range`: the number.
    Number(i64),
    /// `lines`: the byte window.
    Window(LineWindow),
    /// `files`: the path or URL.
    File(String),
    /// `grid`: the combination, axis -> value.
    Point(Json),
    /// A reduce node: the results that it combines.
    Combine {
        /// In index order.
        inputs: Vec<Json>,
    },
}

/// The lines of `file` that START at `start ≤ offset < end`. A line belongs to the window that
/// holds its first byte, however far it reaches beyond.
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
    /// The version of the content: the time of a file's last change, or the ETag of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What the globs of a `lines` or `files` split matched, in order. Kept in the ledger, so that
/// index -> input never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// Sorted by path, no path twice.
    pub files: Vec<InputFile>,
    /// What else the globs match. Known only while the job is admitted; a manifest that is read
    /// back does not have it.
    #[serde(skip)]
    pub left_out: LeftOut,
}

impl Manifest {
    /// Sorts the files by path, and keeps one file for each path, since globs may overlap.
    pub fn new(mut files: Vec<InputFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|later, earlier| later.path == earlier.path);
        Self { files, left_out: LeftOut::default() }
    }

    fn check(&self, split: &Split) -> Result<(), Invalid> {
        let place = FieldPath::Field(&FieldPath::Root, "manifest");
        if !matches!(split, Split::Lines { .. } | Split::Files { .. }) && !self.files.is_empty() {
            let found = format!("{} files", self.files.len());
            return Err(place.invalid(found, "only splits by lines or files have any"));
        }
        if self.files.len() > MAX_FILES {
            let found = format!("the globs match {} files", self.files.len());
            let allowed =
                format!("match at most {MAX_FILES}; pack small files, or use several jobs");
            return Err(files_place().invalid(found, allowed));
        }
        match self.files.iter().position(|file| file.path.is_empty()) {
            Some(index) => Err(place.index(index).invalid("an empty path", "name the file")),
            None => match self.files.windows(2).position(|pair| pair[0].path >= pair[1].path) {
                Some(index) => {
                    let found = format!("`{}` in the wrong order", self.files[index + 1].path);
                    Err(place.index(index + 1).invalid(found, "sort by path, each path once"))
                }
                None => Ok(()),
            },
        }
    }
}

/// Where a document names files.
fn files_place() -> FieldPath<'static> {
    const SPLIT: FieldPath<'static> = FieldPath::Field(&FieldPath::Root, "split");
    FieldPath::Field(&SPLIT, "files")
}

/// A document with its manifest, which gives the input of each subtask.
#[derive(Clone, Debug)]
pub struct Plan {
    document: JobDocument,
    manifest: Manifest,
    /// For `lines`: how many windows lie in the files up to and including this one. Files without
    /// lines repeat the number before them.
    windows: Vec<u64>,
    total: u64,
}

impl Plan {
    /// Refuses a job without subtasks or with more than [`crate::document::MAX_TOTAL`]. `manifest`
    /// is empty for splits without files.
    pub fn new(document: JobDocument, manifest: Manifest) -> Result<Self, Invalid> {
        let place = FieldPath::Field(&FieldPath::Root, "split");
        // A document built in Rust may never have met the rules, and the arithmetic below leans on
        // them.
        rules::split(place, &document.split)?;
        manifest.check(&document.split)?;
        let mut windows = Vec::new();
        let count = match &document.split {
            Split::Lines { bytes, .. } => {
                no_compressed(&manifest)?;
                windows = count_windows(&manifest, *bytes)?;
                windows.last().copied().unwrap_or(0)
            }
            Split::Files { .. } => manifest.files.len() as u64,
            Split::Items { items } => items.len() as u64,
            Split::Range { start, end, step } => whole(range_len(*start, *end, *step)),
            Split::Grid { axes } => axes.iter().map(|(_, axis)| axis_len(axis)).product(),
        };
        // The rules leave no other split empty.
        if count == 0 {
            let (found, allowed) = if manifest.files.is_empty() {
                ("the globs match no file", "match at least one that the scheduler can see")
            } else {
                ("all files that the globs match are empty", "match at least one line")
            };
            return Err(files_place().invalid(found, allowed));
        }
        Ok(Self { document, manifest, windows, total: count })
    }

    /// The number of subtasks, without reduce nodes.
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

    /// About how many bytes of memory the plan takes.
    pub fn weight(&self) -> usize {
        let items = |axis: &Axis| if let Axis::Values(values) = axis { values.weight() } else { 0 };
        let split = match &self.document.split {
            Split::Items { items } => items.weight(),
            Split::Grid { axes } => axes.iter().map(|(_, axis)| items(axis)).sum(),
            _ => 0,
        };
        let files: usize = self.manifest.files.iter().map(file_weight).sum();
        split + self.document.params.get().len() + files + 8 * self.windows.len()
    }

    /// The input of subtask `index` < total. Panics past the end: the caller checks against
    /// [`Self::total`].
    pub fn input(&self, index: u64) -> Input {
        assert!(index < self.total, "subtask {index} of {}", self.total);
        match &self.document.split {
            Split::Items { items } => Input::Item(items.json(position(index))),
            Split::Range { start, step, .. } => Input::Number(range_at(*start, *step, index)),
            Split::Lines { bytes, .. } => Input::Window(self.window(index, *bytes)),
            Split::Files { .. } => Input::File(self.manifest.files[position(index)].path.clone()),
            Split::Grid { axes } => Input::Point(point(axes, index)),
        }
    }

    /// The file that subtask `index` < total reads, if the file must not have changed since the job
    /// was admitted.
    pub fn unchanged_file(&self, index: u64) -> Option<&InputFile> {
        match (&self.document.split, self.document.changed) {
            (_, Changed::Read) => None,
            (Split::Files { .. }, _) => self.manifest.files.get(position(index)),
            (Split::Lines { .. }, _) => self.manifest.files.get(self.file_number(index)),
            _ => None,
        }
    }

    /// The file that holds the window of this index.
    fn file_number(&self, index: u64) -> usize {
        self.windows.partition_point(|end| *end <= index)
    }

    fn window(&self, index: u64, bytes: u64) -> LineWindow {
        let number = self.file_number(index);
        let before = if number == 0 { 0 } else { self.windows[number - 1] };
        let file = &self.manifest.files[number];
        let start = (index - before) * bytes;
        // Not start + bytes: that may lie past the largest number.
        let end = start + bytes.min(file.size - start);
        LineWindow { file: file.path.clone(), start, end }
    }
}

/// Refuses compressed files: their bytes are no lines, and a window of them can't be read without
/// all bytes before it.
fn no_compressed(manifest: &Manifest) -> Result<(), Invalid> {
    const ENDINGS: [&str; 6] = [".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip"];
    let is_compressed = |file: &&InputFile| ENDINGS.iter().any(|end| file.path.ends_with(end));
    match manifest.files.iter().find(is_compressed) {
        Some(file) => {
            let allowed = "decompress it, or split by `files`, where a subtask gets the whole file";
            Err(files_place().invalid(format!("`{}` is compressed", file.path), allowed))
        }
        None => Ok(()),
    }
}

/// For each file the number of windows in it and in all files before it. Refuses more windows than
/// a job may have subtasks.
fn count_windows(manifest: &Manifest, bytes: u64) -> Result<Vec<u64>, Invalid> {
    let mut sum = 0u128;
    let windows = manifest.files.iter().map(|file| {
        sum += u128::from(file.size.div_ceil(bytes));
        u64::try_from(sum).unwrap_or(u64::MAX)
    });
    let windows = windows.collect();
    rules::total(FieldPath::Field(&FieldPath::Root, "split"), Some(sum))?;
    Ok(windows)
}

/// A count as u64; the rules refuse every count that does not fit.
fn whole(count: u128) -> u64 {
    u64::try_from(count).expect("a validated split has at most 2^40 subtasks")
}

fn position(index: u64) -> usize {
    usize::try_from(index).expect("an index below the length of a list")
}

fn axis_len(axis: &Axis) -> u64 {
    match axis {
        Axis::Values(values) => values.len() as u64,
        Axis::Range { start, end, step } => whole(range_len(*start, *end, *step)),
    }
}

/// The number at an index of a range. The number fits i64, though `index * step` alone may not.
fn range_at(start: i64, step: i64, index: u64) -> i64 {
    let number = i128::from(start) + i128::from(step) * i128::from(index);
    i64::try_from(number).expect("a number between the start and the end of its range")
}

/// The combination at `index`, counted like the digits of a number: the last axis is the lowest.
fn point(axes: &[(String, Axis)], mut index: u64) -> Json {
    let mut point = BTreeMap::new();
    for (name, axis) in axes.iter().rev() {
        let length = axis_len(axis);
        let digit = index % length;
        index /= length;
        let value = match axis {
            Axis::Values(values) => Cow::Borrowed(values.get(position(digit))),
            Axis::Range { start, step, .. } => range_at(*start, *step, digit).to_string().into(),
        };
        point.insert(name, value);
    }
    let mut text = String::from("{");
    for (number, (name, value)) in point.into_iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        json::write_string(&mut text, name);
        text.push(':');
        text.push_str(&value);
    }
    text.push('}');
    Json::canonical(&text, FieldPath::Root).expect("the names of axes are different ones")
}
