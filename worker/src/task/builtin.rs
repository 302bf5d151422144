//! The built-in tasks by name, and which a worker offers; defines `noop`, `fail` and `sleep`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Input, Invalid, Json, Outcome};
use serde::de::DeserializeOwned;

use super::combine::{Combine, concat, merge_counts, sum};
use super::wordcount::Wordcount;
use super::{Handler, Instantly, permanent, retryable};
use crate::Context;

/// Which of the built-in tasks a worker offers. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuiltinTasks(Option<BTreeSet<String>>);

impl BuiltinTasks {
    /// None of them.
    pub fn none() -> Self {
        Self(Some(BTreeSet::new()))
    }

    /// Those of these names.
    ///
    /// # Errors
    /// For a name that no built-in task has.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, Invalid> {
        let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        let all = all();
        if let Some(unknown) = names.iter().find(|name| !all.contains_key(*name)) {
            let known: BTreeSet<&str> = all.keys().map(String::as_str).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Invalid {
                place: "builtin_tasks".into(),
                found: format!("no task `{unknown}`"),
                allowed: format!("use true, false, or names out of {known}"),
            });
        }
        Ok(Self(Some(names)))
    }

    /// The tasks that are offered, by name.
    pub(super) fn offered(&self) -> HashMap<String, Arc<dyn Handler>> {
        let mut tasks = all();
        tasks.retain(|name, _| self.0.as_ref().is_none_or(|names| names.contains(name)));
        tasks
    }
}

/// All built-in tasks by name.
fn all() -> HashMap<String, Arc<dyn Handler>> {
    let tasks: [(&str, Arc<dyn Handler>); 7] = [
        ("noop", Arc::new(Instant(noop))),
        ("fail", Arc::new(Instant(fail))),
        ("sleep", Arc::new(Sleep)),
        ("wordcount", Arc::new(Wordcount)),
        ("merge_counts", Arc::new(Combine(merge_counts))),
        ("sum", Arc::new(Combine(sum))),
        ("concat", Arc::new(Combine(concat))),
    ];
    tasks.into_iter().map(|(name, task)| (name.to_owned(), task)).collect()
}

struct Instant(Instantly);

#[async_trait]
impl Handler for Instant {
    fn instantly(&self) -> Option<Instantly> {
        Some(self.0)
    }

    async fn run(&self, ctx: Context, _input: Input) -> Outcome {
        (self.0)(&ctx.plan.document().params, ctx.attempt)
    }
}

/// Does nothing; its result is `null`.
fn noop(_params: &Json, _attempt: u32) -> Outcome {
    Outcome::Success("null".into())
}

/// Fails, for tests and demonstrations. `params` may hold `error` (the text), `retry` (whether to
/// try again, true unless given) and `times` (how many attempts fail before one succeeds).
fn fail(params: &Json, attempt: u32) -> Outcome {
    let times: Option<u64> = param(params, "times");
    if times.is_some_and(|times| u64::from(attempt) > times) {
        return Outcome::Success("null".into());
    }
    let error = param(params, "error").unwrap_or_else(|| "failed as asked".to_owned());
    match param(params, "retry") {
        Some(false) => permanent(error),
        _ => retryable(error),
    }
}

/// A member of `params`, if there is one of this type.
fn param<T: DeserializeOwned>(params: &Json, name: &str) -> Option<T> {
    serde_json::from_str(params.pointer(&format!("/{name}"))?).ok()
}

/// Waits `params.ms` milliseconds, or as many as its input says; its result is that number.
struct Sleep;

/// The longest sleep; a longer one is a mistake in the unit.
const LONGEST_SLEEP_MS: u64 = 7 * 24 * 3_600_000;

#[async_trait]
impl Handler for Sleep {
    async fn run(&self, ctx: Context, input: Input) -> Outcome {
        let given = param(&ctx.plan.document().params, "ms");
        let ms = given.or_else(|| match &input {
            Input::Item(value) => value.read().ok(),
            Input::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        });
        match ms {
            Some(ms @ ..=LONGEST_SLEEP_MS) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Outcome::Success(ms.to_string())
            }
            _ => permanent(format!(
                "sleep needs `params.ms`, or an input, of 0 to {LONGEST_SLEEP_MS} milliseconds"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{context, failure, success};
    use super::*;

    async fn run(task: &str, params: Value, input: Input) -> Outcome {
        all()[task].run(context(&params), input).await
    }

    #[tokio::test]
    async fn noop_returns_null() {
        assert_eq!(run("noop", json!(null), Input::Number(1)).await, success(Value::Null));
    }

    #[test]
    fn fail_fails_as_often_as_it_is_told() {
        assert_eq!(fail(&json!(null).into(), 99), retryable("failed as asked"));
        assert_eq!(fail(&json!({"error": "rain", "retry": false}).into(), 1), permanent("rain"));
        assert_eq!(fail(&json!({"times": 2}).into(), 2), retryable("failed as asked"));
        assert_eq!(fail(&json!({"times": 2}).into(), 3), success(Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_takes_its_time_from_params_first() {
        let begun = tokio::time::Instant::now();
        assert_eq!(run("sleep", json!({"ms": 5000}), Input::Number(1)).await, success(5000));
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert_eq!(run("sleep", json!(null), Input::Number(70)).await, success(70));
        assert_eq!(begun.elapsed(), Duration::from_millis(5070));
    }

    #[tokio::test]
    async fn sleep_without_a_time_says_what_it_needs() {
        let (error, retry) = failure(run("sleep", json!({}), Input::Number(-5)).await);
        assert!(error.starts_with("sleep needs `params.ms`"), "{error}");
        assert!(!retry);
    }
}
