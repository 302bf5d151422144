//! Reads the job document of a verb from a file, standard input or flags, and validates it.
//!
//! It also tells which names a job leaves out that its globs match.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use longshore_producer::Job;
use longshore_protocol::document::{MAX_DOCUMENT_BYTES, Split};
use longshore_protocol::{Items, JobDocument, JobId, Json};
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;
use crate::output::talk;

/// The file of a document, or flags in place of a document.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobArguments {
    /// The job document; `-` is standard input
    #[arg(value_name = "JOB.json", required_unless_present = "task", conflicts_with = "task")]
    file: Option<PathBuf>,
    /// The job's id, a UUID; submitting the same id twice creates one job
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    #[command(flatten)]
    quick: QuickForm,
}

/// Flags that describe a job without a file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In place of a document")]
struct QuickForm {
    /// The task to run
    #[arg(long, value_name = "TASK", requires = "split")]
    task: Option<String>,
    /// One subtask for each value; a value that is not JSON is a string
    #[arg(long, value_name = "VALUE", num_args = 1.., group = "split", requires = "task", allow_negative_numbers = true)]
    items: Option<Vec<String>>,
    /// One subtask for each number, as in 0..1000 or 0..1000..5
    #[arg(
        long,
        value_name = "A..B[..STEP]",
        group = "split",
        requires = "task",
        allow_hyphen_values = true
    )]
    range: Option<String>,
    /// One subtask for each byte window of these files, with the lines that start in it
    #[arg(long, value_name = "GLOB", num_args = 1.., group = "split", requires = "task")]
    lines: Option<Vec<String>>,
    /// One subtask for each of these files
    #[arg(long, value_name = "GLOB", num_args = 1.., group = "split", requires = "task")]
    files: Option<Vec<String>>,
    /// The size of a window, with --lines [default: 1MiB]
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["items", "range", "files"], requires = "task")]
    bytes: Option<String>,
    /// The params of every subtask
    #[arg(long, value_name = "JSON", requires = "task", allow_hyphen_values = true)]
    params: Option<String>,
    /// Combine the results with this task
    #[arg(long, value_name = "TASK", requires = "task")]
    reduce: Option<String>,
    /// The queue, whose workers run the job [default: default]
    #[arg(long, value_name = "NAME", requires = "task")]
    queue: Option<String>,
    /// The priority, from 0 (last) to 9 (first) [default: 5]
    #[arg(long, value_name = "N", requires = "task", allow_negative_numbers = true)]
    priority: Option<i64>,
    /// A name for people; lists show it
    #[arg(long, value_name = "NAME", requires = "task")]
    name: Option<String>,
    /// A label by which lists can be filtered; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "task", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// Parses `KEY=VALUE`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl JobArguments {
    /// The source of the document, for error messages.
    pub(crate) fn source(&self) -> String {
        match &self.file {
            Some(file) if file == Path::new("-") => "<stdin>".into(),
            Some(file) => file.display().to_string(),
            None => "flags".into(),
        }
    }

    /// Reads and validates the document.
    pub(crate) fn document(&self) -> Result<JobDocument, Failure> {
        let mut document = self.without_id()?;
        let Some(text) = &self.id else { return Ok(document) };
        let id: JobId = text.parse().ok().filter(|id| *id != JobId::NIL).ok_or_else(|| {
            Failure::usage(format!(
                "--id: `{text}`; write a UUID like 01890a5d-ac96-774b-bcce-b302099a8057, or leave it out"
            ))
        })?;
        if let Some(other) = document.id.filter(|other| *other != id) {
            return Err(Failure::usage(format!(
                "--id: `{id}`, but the document has the id {other}"
            )));
        }
        document.id = Some(id);
        Ok(document)
    }

    fn without_id(&self) -> Result<JobDocument, Failure> {
        let source = self.source();
        match (&self.file, &self.quick.task) {
            (Some(file), _) if file == Path::new("-") => {
                parse(&read_bounded(std::io::stdin().lock()).map_err(Failure::other)?, &source)
            }
            (Some(file), _) => from_file(file),
            (None, Some(task)) => parse(self.quick.document(task)?.as_bytes(), &source),
            (None, None) => unreachable!("clap asks for a file or a task"),
        }
    }
}

/// Reads and validates the document in a file.
pub(crate) fn from_file(path: &Path) -> Result<JobDocument, Failure> {
    let bytes = std::fs::File::open(path)
        .and_then(read_bounded)
        .map_err(|error| Failure::unreadable(path, &error))?;
    parse(&bytes, &path.display().to_string())
}

/// Parses and validates a document; errors name the source.
pub(crate) fn parse(bytes: &[u8], source: &str) -> Result<JobDocument, Failure> {
    JobDocument::parse(bytes).map_err(|error| Failure::invalid(source, error))
}

/// Reads at most one byte more than a document may have, which is enough to refuse it.
fn read_bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl QuickForm {
    /// The document as text; JSON in the flags stays as it is written.
    fn document(&self, task: &str) -> Result<String, Failure> {
        let mut document = BTreeMap::new();
        document.insert("task", Json::from(json!(task)));
        document.insert("split", self.split()?);
        if let Some(text) = &self.params {
            let params = Json::parse(text)
                .map_err(|error| Failure::usage(format!("--params: {}", error.found)))?;
            document.insert("params", params);
        }
        if let Some(task) = &self.reduce {
            document.insert("reduce", json!({ "task": task }).into());
        }
        if let Some(queue) = &self.queue {
            document.insert("queue", json!(queue).into());
        }
        if let Some(priority) = self.priority {
            document.insert("priority", json!(priority).into());
        }
        if let Some(name) = &self.name {
            document.insert("name", json!(name).into());
        }
        if !self.labels.is_empty() {
            let labels: BTreeMap<&String, &String> =
                self.labels.iter().map(|(key, value)| (key, value)).collect();
            document.insert("labels", json!(labels).into());
        }
        serde_json::to_string(&document).map_err(Failure::other)
    }

    fn split(&self) -> Result<Json, Failure> {
        if let Some(items) = &self.items {
            #[derive(Serialize)]
            struct ByItems {
                by: &'static str,
                items: Items,
            }
            let items = items.iter().map(|item| value(item)).collect();
            return Json::of(&ByItems { by: "items", items }).map_err(Failure::other);
        }
        if let Some(text) = &self.range {
            let (start, end, step) = range(text)?;
            return Ok(json!({"by": "range", "start": start, "end": end, "step": step}).into());
        }
        if let Some(files) = &self.files {
            return Ok(json!({"by": "files", "files": globs_of(files)}).into());
        }
        let lines = self.lines.as_deref().unwrap_or_default();
        let bytes = self.bytes.as_deref().unwrap_or("1MiB");
        Ok(json!({"by": "lines", "files": globs_of(lines), "bytes": bytes}).into())
    }
}

/// Converts arguments to globs. The name of an existing file means that file, because a shell may
/// have expanded a glob; anything else is a glob.
fn globs_of(globs: &[String]) -> Vec<String> {
    globs
        .iter()
        .map(|glob| longshore_storage::named(glob).unwrap_or_else(|| glob.clone()))
        .collect()
}

/// Reports the files that the document's globs match and the job leaves out.
pub(crate) async fn tell_left_out(job: &Job, document: &JobDocument, name: &str) {
    if !matches!(document.split, Split::Files { .. } | Split::Lines { .. }) {
        return;
    }
    // The caller, which waits for the job, reports a ledger that does not answer.
    let Ok(summary) = job.summary().await else { return };
    if !summary.left_out.is_empty() {
        talk(format_args!("{name}{}; the job leaves them out", summary.left_out));
    }
}

/// Parses JSON; other text is a string, so that words need no quotes.
fn value(text: &str) -> Json {
    Json::parse(text).unwrap_or_else(|_| json!(text).into())
}

fn range(text: &str) -> Result<(i64, i64, i64), Failure> {
    let wrong = || {
        Failure::usage(format!(
            "--range: `{text}` is no range; write START..END or START..END..STEP, like 0..1000"
        ))
    };
    let numbers: Option<Vec<i64>> = text.split("..").map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([start, end]) => Ok((*start, *end, 1)),
        Some([start, end, step]) => Ok((*start, *end, *step)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_or_three_whole_numbers() {
        assert_eq!(range("0..10").unwrap(), (0, 10, 1));
        assert_eq!(range("-5..5..2").unwrap(), (-5, 5, 2));
        for bad in ["", "5", "a..b", "0..", "0..=9", "1..2..3..4", "0-9"] {
            let error = range(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--range: `{bad}` is no range; ")), "{error}");
        }
    }

    #[test]
    fn items_are_json_or_else_words() {
        for (text, read) in [
            ("3", "3"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1.50", "1.50"),
            ("\"3\"", "\"3\""),
            ("[1, 2]", "[1,2]"),
            ("plain words", "\"plain words\""),
            ("", "\"\""),
        ] {
            assert_eq!(value(text).get(), read);
        }
    }
}
