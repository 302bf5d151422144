//! Errors of a subtask, with what to do about it, of building a worker, and of running it.

use std::fmt;

/// Why a subtask did not succeed, and what to do about it.
///
/// Any `std::error::Error` becomes a retryable one by `?`. Like `anyhow::Error` it is no `Error`
/// itself, which makes that conversion possible.
#[derive(Debug)]
pub struct TaskError {
    pub(crate) kind: TaskErrorKind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskErrorKind {
    Retryable,
    Permanent,
    NotNow,
}

/// The return type of a task.
pub type TaskResult<T> = Result<T, TaskError>;

impl TaskError {
    /// The attempt failed; another one may succeed.
    pub fn retryable(text: impl fmt::Display) -> Self {
        Self { kind: TaskErrorKind::Retryable, text: format!("{text:#}") }
    }

    /// The subtask failed, and trying again can't help.
    pub fn permanent(text: impl fmt::Display) -> Self {
        Self { kind: TaskErrorKind::Permanent, text: format!("{text:#}") }
    }

    /// Not now: the subtask runs again later without using up an attempt, at most 100 times.
    pub fn not_now(reason: impl fmt::Display) -> Self {
        Self { kind: TaskErrorKind::NotNow, text: format!("{reason:#}") }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { kind: TaskErrorKind::Retryable, text }
    }
}

/// Why a worker can't be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Two tasks of one name.
    #[error("task `{0}` is defined twice")]
    DuplicateTask(String),
    /// A task without a name.
    #[error("a task needs a name")]
    UnnamedTask,
    /// A configured task with invalid settings.
    #[error("task.{task}: {reason}")]
    BadTask {
        /// Its name.
        task: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A name that no job can use.
    #[error(transparent)]
    BadName(longshore_protocol::Invalid),
    /// A setting out of its range.
    #[error("{setting}: {reason}")]
    BadSetting {
        /// Its name.
        setting: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

/// Why a worker stopped without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The application's setup failed; nothing was claimed.
    #[error("setup failed: {0}")]
    Setup(String),
    /// The broker was closed under the worker.
    #[error("the broker was closed")]
    BrokerClosed,
    /// The operating system refused the heartbeat thread.
    #[error("can't start the heartbeat thread: {0}")]
    Heartbeat(#[from] std::io::Error),
    /// The operating system refused to deliver signals.
    #[error("can't listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The operating system refused to start the program again, or to deliver signals.
    #[error("can't supervise the worker: {0}")]
    Supervisor(#[source] std::io::Error),
    /// The worker has commands, and nothing that ends their processes with it.
    #[error(
        "the worker has commands, and their processes could outlive it: \
         call `longshore_worker::init()` first in `main`"
    )]
    Unprepared,
    /// A second signal came while the worker drained; its chunks run on other workers once it
    /// counts as dead.
    #[error("interrupted before the drain was over")]
    Interrupted,
    /// The broker can't be used.
    #[error(transparent)]
    Broker(#[from] longshore_broker::Error),
    /// The ledger can't be used.
    #[error(transparent)]
    Ledger(#[from] longshore_ledger::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_error_becomes_retryable_and_keeps_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::fmt::Error);

        let error = TaskError::from(Outer(std::fmt::Error));
        assert_eq!(error.kind, TaskErrorKind::Retryable);
        assert_eq!(error.to_string(), format!("outer: {}", std::fmt::Error));
    }
}
