//! Runs Rust functions of the application as tasks: input and result typed by serde.

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longshore_protocol::{Input, Outcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::finite::first_not_finite;
use super::threads::run_one_on_a_thread;
use super::{BlockingTask, Handler, permanent, retryable};
use crate::error::TaskErrorKind;
use crate::{Context, TaskError};

/// The input of a reduce task: results of other subtasks, in index order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs<T> {
    /// At least one.
    pub inputs: Vec<T>,
}

/// A future that ignores its cancellation is dropped after this time, so that a cancel takes effect
/// within a second.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// A Rust function as a handler.
pub(crate) enum RustTask {
    /// An async function.
    Asynchronous(Box<dyn Fn(Context, Input) -> BoxFuture<'static, Outcome> + Send + Sync>),
    /// A function that blocks its thread.
    Blocking(BlockingTask),
}

/// A handler of an async function.
pub(crate) fn asynchronous<F, T, Fut, O, E>(task: F) -> RustTask
where
    F: Fn(Context, T) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
    O: Serialize,
    E: Display + 'static,
{
    let run = move |ctx: Context, input: Input| match decode(input) {
        Ok(input) => task(ctx, input).map(|result| encode(&result)).boxed(),
        Err(outcome) => std::future::ready(outcome).boxed(),
    };
    RustTask::Asynchronous(Box::new(run))
}

/// A handler of a function that blocks its thread. If the function ignores its cancellation, the
/// thread runs it to the end (nothing can stop it), and the result is dropped.
pub(crate) fn blocking<F, T, O, E>(task: F) -> RustTask
where
    F: Fn(Context, T) -> Result<O, E> + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Display + 'static,
{
    RustTask::Blocking(Arc::new(move |ctx, input| match decode(input) {
        Ok(input) => encode(&task(ctx, input)),
        Err(outcome) => outcome,
    }))
}

#[async_trait]
impl Handler for RustTask {
    fn blocking(&self) -> Option<&BlockingTask> {
        match self {
            Self::Blocking(task) => Some(task),
            Self::Asynchronous(_) => None,
        }
    }

    async fn run(&self, ctx: Context, input: Input) -> Outcome {
        match self {
            Self::Asynchronous(run) => run(ctx, input).await,
            Self::Blocking(task) => {
                let task = Arc::clone(task);
                run_one_on_a_thread(move || task(ctx, input)).await
            }
        }
    }

    fn stop_grace(&self) -> Duration {
        STOP_GRACE
    }
}

fn decode<T: DeserializeOwned>(input: Input) -> Result<T, Outcome> {
    // From the text, so that a type with room for a large number gets it exactly.
    let read = match input {
        Input::Item(value) | Input::Point(value) => value.read(),
        other => {
            let text = serde_json::to_string(&other)
                .map_err(|error| permanent(format!("input can't be written as JSON: {error}")))?;
            serde_json::from_str(&text)
        }
    };
    read.map_err(|error| permanent(format!("the task can't read this input: {error}")))
}

fn encode<O: Serialize, E: Display + 'static>(result: &Result<O, E>) -> Outcome {
    match result {
        Ok(value) => match serde_json::to_string(value) {
            // A `null` may be a number that is not finite. Few results have one, so few are checked
            // twice.
            Ok(json) if json.contains("null") => match first_not_finite(value) {
                Some(number) => retryable(format!(
                    "the result holds {number}, which JSON has no word for; return an error, an \
                     `Option` or a text where that can happen"
                )),
                None => Outcome::Success(json),
            },
            Ok(json) => Outcome::Success(json),
            Err(error) => permanent(format!("the result can't be written as JSON: {error}")),
        },
        Err(error) => {
            let kind = (error as &dyn Any).downcast_ref::<TaskError>().map(|error| error.kind);
            // The alternate form prints the causes too, where the application's error type has one.
            let text = format!("{error:#}");
            match kind {
                Some(TaskErrorKind::Permanent) => permanent(text),
                Some(TaskErrorKind::NotNow) => Outcome::NotNow { reason: text, after: None },
                Some(TaskErrorKind::Retryable) | None => retryable(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{context, failure, success};
    use super::*;
    use crate::TaskResult;

    async fn run(task: RustTask, input: Input) -> Outcome {
        task.run(context(&json!({"scale": 10})), input).await
    }

    #[tokio::test]
    async fn a_task_gets_its_input_typed_and_its_output_becomes_the_result() {
        #[derive(Deserialize)]
        struct Params {
            scale: i64,
        }
        let task = asynchronous(|ctx: Context, n: i64| async move {
            TaskResult::Ok(n * ctx.params::<Params>()?.scale)
        });
        assert_eq!(run(task, Input::Number(4)).await, success(40));
    }

    #[tokio::test]
    async fn numbers_are_as_large_as_the_type_has_room_for() {
        let task = blocking(|_, n: u128| Ok::<_, String>(n));
        let large = "340282366920938463463374607431768211455";
        let input = Input::Item(longshore_protocol::Json::parse(large).expect("a number"));
        assert_eq!(run(task, input).await, Outcome::Success(large.into()));
    }

    #[tokio::test]
    async fn a_number_that_is_not_finite_is_a_failed_attempt_and_no_null() {
        let task = blocking(|_, n: f64| Ok::<_, String>(vec![1.0 / n, n]));
        let (error, retry) = failure(run(task, Input::Number(0)).await);
        assert!(
            error.starts_with("the result holds Infinity, which JSON has no word for"),
            "{error}"
        );
        assert!(retry, "as with a command that prints it");
        let none = blocking(|_, _: i64| Ok::<_, String>([None, Some(1.5)]));
        assert_eq!(run(none, Input::Number(1)).await, Outcome::Success("[null,1.5]".into()));
    }

    #[tokio::test]
    async fn a_reduce_task_gets_the_inputs() {
        let task = asynchronous(|_, all: Inputs<u64>| async move {
            Ok::<_, String>(all.inputs.iter().sum::<u64>())
        });
        let input = Input::Combine { inputs: vec![json!(1).into(), json!(2).into()] };
        assert_eq!(run(task, input).await, success(3));
    }

    #[tokio::test]
    async fn input_of_another_shape_fails_for_good() {
        let task = blocking(|_, n: u8| Ok::<_, String>(n));
        let (error, retry) = failure(run(task, Input::Number(-1)).await);
        assert!(error.starts_with("the task can't read this input: "), "{error}");
        assert!(!retry);
    }

    #[tokio::test]
    async fn errors_are_retried_unless_they_are_permanent() {
        let plain = blocking(|_, _: i64| Err::<(), _>("plain"));
        assert_eq!(run(plain, Input::Number(1)).await, retryable("plain"));
        let permanent_one = blocking(|_, _: i64| Err::<(), _>(TaskError::permanent("no use")));
        assert_eq!(run(permanent_one, Input::Number(1)).await, permanent("no use"));
        let later = asynchronous(|_, _: i64| async { Err::<(), _>(TaskError::not_now("full")) });
        let expected = Outcome::NotNow { reason: "full".into(), after: None };
        assert_eq!(run(later, Input::Number(1)).await, expected);
    }

    #[tokio::test]
    async fn a_panic_on_the_blocking_thread_is_a_failed_attempt() {
        let task = blocking(|_, n: i64| if n == 1 { panic!("one") } else { Ok::<_, String>(n) });
        assert_eq!(run(task, Input::Number(1)).await, retryable("the handler panicked: one"));
    }
}
