//! The trait of all handlers of tasks, their lookup by name, and how output becomes a result.
//!
//! A handler turns one input into one outcome. Deliberately absent: timeouts, size limits, retries
//! and commits; the pipeline has those, the same for every kind.

mod addresses;
mod builtin;
mod combine;
mod command;
mod finite;
mod http;
mod outcome_buffer;
mod pool;
mod process;
mod rust;
mod serve;
mod spec;
mod threads;
mod wordcount;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Input, Json, Outcome, Subtask, json};
use serde::Deserialize;

use crate::Context;
pub use addresses::HttpAddresses;
pub use builtin::BuiltinTasks;
pub(crate) use outcome_buffer::OutcomeReceiver;
pub(crate) use pool::Pool;
pub use rust::Inputs;
pub(crate) use rust::{asynchronous, blocking};
#[cfg(feature = "fuzzing")]
pub(crate) use serve::parse as served_answer;
pub use spec::TaskSpec;
pub(crate) use threads::{no_thread, run_on_a_thread};

/// A function that computes an outcome at once from `params` and the number of the attempt, without
/// the input.
pub(crate) type Instantly = fn(&Json, u32) -> Outcome;

/// A task that blocks its thread until it has an outcome.
pub(crate) type BlockingTask = Arc<dyn Fn(Context, Input) -> Outcome + Send + Sync>;

/// Runs attempts of one task.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    /// The function of a task that needs neither its input nor any time. It runs without a future
    /// of its own, so that ten thousand subtasks take milliseconds.
    fn instantly(&self) -> Option<Instantly> {
        None
    }

    /// The function of a task that blocks its thread, so that subtasks can run one after another on
    /// one thread.
    fn blocking(&self) -> Option<&BlockingTask> {
        None
    }

    /// Runs one attempt. When `ctx` is cancelled it should end soon; a failure does not count then.
    async fn run(&self, ctx: Context, input: Input) -> Outcome;

    /// Why no attempt can be started on this host, as far as that can be told without one.
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// How long a cancelled attempt may go on before its future is dropped.
    fn stop_grace(&self) -> Duration {
        Duration::ZERO
    }

    /// The task's own time limit, beside the job's.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether a program runs the task. A signal to the whole unit or terminal stops programs and
    /// worker alike: attempts that fail then are released.
    fn is_program(&self) -> bool {
        false
    }

    /// Called once when the worker leaves.
    async fn teardown(&self) {}
}

/// The tasks of a worker by name.
pub(crate) struct Handlers {
    by_name: HashMap<String, Arc<dyn Handler>>,
}

impl Handlers {
    /// The built-in tasks that are offered, hidden by those of `own` that have the same name.
    pub(crate) fn new(builtin: &BuiltinTasks, own: HashMap<String, Arc<dyn Handler>>) -> Self {
        let mut by_name = builtin.offered();
        by_name.extend(own);
        Self { by_name }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&dyn Handler> {
        self.by_name.get(name).map(AsRef::as_ref)
    }

    /// Whether any task starts programs.
    pub(crate) fn have_programs(&self) -> bool {
        self.by_name.values().any(|handler| handler.is_program())
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_name.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(crate) async fn teardown(&self) {
        for handler in self.by_name.values() {
            handler.teardown().await;
        }
    }
}

/// The error text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is no text");
    format!("the handler panicked: {text}")
}

fn retryable(error: impl Into<String>) -> Outcome {
    Outcome::Failure { error: error.into(), retry: true }
}

fn permanent(error: impl Into<String>) -> Outcome {
    Outcome::Failure { error: error.into(), retry: false }
}

fn not_started(reason: impl Into<String>) -> Outcome {
    Outcome::NotStarted { reason: reason.into() }
}

/// The outcome of input that could not be read.
pub(crate) fn unreadable(error: &longshore_storage::Error) -> Outcome {
    Outcome::Failure { error: format!("input: {error}"), retry: !error.is_permanent() }
}

/// The subtask as one line of JSON, without a line end.
fn subtask_line(ctx: &Context, input: &Input) -> String {
    let subtask = Subtask {
        job: ctx.job,
        index: ctx.index,
        attempt: ctx.attempt,
        params: &ctx.plan.document().params,
        input,
    };
    serde_json::to_string(&subtask).expect("a subtask has only text for keys")
}

/// The kind of a program's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// JSON if it is valid JSON. Output that begins like JSON and is invalid is a failed attempt:
    /// it was cut off, or holds `NaN`. Any other output is text.
    #[default]
    Auto,
    /// JSON; invalid JSON is a failed attempt.
    Json,
    /// Text, also where it looks like JSON.
    Text,
}

/// Turns a program's output into the result of a subtask: compact JSON, or a JSON string of its
/// text without the one line end that programs print.
pub(crate) fn result_of_text(text: &[u8], output: Output) -> Result<String, Outcome> {
    let text = std::str::from_utf8(text)
        .map_err(|error| permanent(format!("the output is neither JSON nor UTF-8: {error}")))?;
    let is_json = match output {
        Output::Text => false,
        Output::Json => true,
        Output::Auto => json::check(text).is_ok() || is_meant_as_json(text),
    };
    if is_json {
        return json::check(text).map(|()| compact(text)).map_err(|why| {
            let start: String = text.trim_start().chars().take(60).collect();
            let hint = match output {
                Output::Auto => "; where that is meant as text, give the task `output = \"text\"`",
                Output::Json | Output::Text => "",
            };
            retryable(format!("the output {start:?} is {why}{hint}"))
        });
    }
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(serde_json::Value::from(line).to_string())
}

/// Whether invalid JSON begins like JSON, or is a number that programs print and JSON does not
/// have.
fn is_meant_as_json(text: &str) -> bool {
    const NO_NUMBERS: [&str; 6] =
        ["NaN", "-NaN", "Infinity", "-Infinity", "+Infinity", "undefined"];
    let text = text.trim_ascii();
    text.starts_with(['{', '[', '"']) || NO_NUMBERS.contains(&text)
}

/// JSON without the white space between its parts. Numbers stay as they were written: parsing them
/// as `f64` would change those of more than 53 bits.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for char in json.chars() {
        if in_string {
            out.push(char);
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if !char.is_ascii_whitespace() {
            in_string = char == '"';
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod fixtures {
    use longshore_protocol::{JobDocument, JobId, Manifest, NodeId, Plan};
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// The context of attempt 1 at subtask 7 of a job with these `params`.
    pub(crate) fn context(params: &Value) -> Context {
        let document = json!({
            "task": "t", "split": {"by": "range", "start": 0, "end": 10}, "params": params,
        });
        let document = JobDocument::parse(document.to_string().as_bytes()).expect("it is valid");
        Context {
            job: JobId::from_uuid(uuid::Uuid::from_u128(0x10)),
            index: 7,
            attempt: 1,
            node: NodeId::new("quay-1"),
            plan: Arc::new(Plan::new(document, Manifest::default()).expect("ten subtasks")),
            cancel: CancellationToken::new(),
            stopping: CancellationToken::new(),
            max_result: 1000,
        }
    }

    /// A pool of programs for a worker with this many slots.
    pub(crate) fn prepared_pool(slots: u32) -> Arc<Pool> {
        crate::shim::prepare_test();
        Pool::new(slots, crate::PassEnv::default())
    }

    pub(crate) fn success(value: impl Into<Value>) -> Outcome {
        Outcome::Success(value.into().to_string())
    }

    /// The text of a failure, and whether another attempt may help.
    #[track_caller]
    pub(crate) fn failure(outcome: Outcome) -> (String, bool) {
        match outcome {
            Outcome::Failure { error, retry } => (error, retry),
            other => panic!("expected a failure, got {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn text(output: &str, result: &str) {
        let read = result_of_text(output.as_bytes(), Output::Auto);
        assert_eq!(read, Ok(result.to_owned()), "{output:?}");
    }

    #[test]
    fn output_is_json_if_it_is_valid_and_a_string_otherwise() {
        text("{ \"a\" : [1, 2] ,\n \"b\": \"x \\\" y\" }\n", r#"{"a":[1,2],"b":"x \" y"}"#);
        text("18446744073709551616\n", "18446744073709551616");
        text("0.10\n", "0.10");
        text("two words\n", r#""two words""#);
        text("two lines\n\n", r#""two lines\n""#);
        text("", r#""""#);
        text("1 2\n", r#""1 2""#);
        text("1e400\n", "1e400");
        text("truely\n", r#""truely""#);
    }

    #[test]
    fn output_that_begins_like_json_and_is_invalid_is_a_failed_attempt() {
        for output in ["{\"x\": NaN}", "[1, 2", "\"cut o", "NaN\n", "-Infinity", "[1] [2]"] {
            let (error, retry) =
                fixtures::failure(result_of_text(output.as_bytes(), Output::Auto).unwrap_err());
            assert!(error.contains("not JSON: ") && error.contains("at line 1 column"), "{error}");
            assert!(error.ends_with("give the task `output = \"text\"`"), "{error}");
            assert!(retry);
        }
    }

    #[test]
    fn a_task_may_name_the_kind_of_its_output() {
        let read = |output: &str, means| result_of_text(output.as_bytes(), means);
        assert_eq!(read("[1, 2", Output::Text), Ok(r#""[1, 2""#.into()));
        assert_eq!(read("12\n", Output::Text), Ok(r#""12""#.into()));
        assert_eq!(read("[1, 2]\n", Output::Json), Ok("[1,2]".into()));
        for none in ["two words", "", "NaN", "[1, 2"] {
            let (error, _) = fixtures::failure(read(none, Output::Json).unwrap_err());
            assert!(error.contains("is not JSON: "), "{error}");
        }
    }

    #[test]
    fn output_that_is_not_text_is_a_failure() {
        let (error, retry) = fixtures::failure(result_of_text(b"\xff", Output::Auto).unwrap_err());
        assert!(error.starts_with("the output is neither JSON nor UTF-8"), "{error}");
        assert!(!retry);
    }

    #[test]
    fn the_error_of_a_panic_has_its_message() {
        let panic = std::panic::catch_unwind(|| panic!("number {}", 3)).unwrap_err();
        assert_eq!(panic_text(panic.as_ref()), "the handler panicked: number 3");
    }
}
