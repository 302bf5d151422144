//! One attempt at one subtask: gets its input, runs its handler under a timeout, and stops it.
//!
//! It stops the handler when the time is up, or when a signal says so.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longshore_protocol::{Input, LineWindow, Outcome};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::chunk::Chunk;
use crate::heartbeat::exclusive_stop_grace;
use crate::held_chunks::ChunkLease;
use crate::input::{NoInput, resolve};
use crate::pipeline::Pipeline;
use crate::task::{Handler, panic_text, unreadable};

/// The pause before the ledger is asked for results again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Why a handler gave no outcome that counts.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The attempt was stopped; what it did does not count.
    Stopped,
    /// The input can't be resolved; this is the outcome of the subtask.
    Unresolvable(Outcome),
    /// The attempt can't begin now, for a reason that is not the subtask's.
    Blocked(String),
    /// The attempt can't be started on this host.
    NotStarted(String),
}

impl Pipeline {
    /// The input of a subtask or of a reduce node.
    pub(crate) async fn resolve(
        &self,
        chunk: &Chunk<'_>,
        index: u64,
    ) -> Result<Input, Interruption> {
        let job = chunk.lease.held.job;
        let (ledger, store) = (self.ledger.as_ref(), self.environment.results());
        loop {
            match resolve(ledger, store, job, &chunk.plan, index).await {
                Ok(input) => return Ok(input),
                Err(NoInput::Failed(outcome)) => return Err(Interruption::Unresolvable(outcome)),
                Err(NoInput::NotNow(reason)) => return Err(Interruption::Blocked(reason)),
                // In an outage of the ledger the attempt waits for the results.
                Err(NoInput::Away) => tokio::select! {
                    biased;
                    () = chunk.lease.cancel().cancelled() => return Err(Interruption::Stopped),
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                },
            }
        }
    }

    /// Runs the handler of a subtask for as long as it may take. An input file must be one that
    /// jobs may touch, and unchanged since the job was submitted, before and after.
    pub(crate) async fn run_under_timeout(
        &self,
        chunk: &Chunk<'_>,
        index: u64,
        input: Input,
    ) -> Result<Outcome, Interruption> {
        if let Input::File(file) | Input::Window(LineWindow { file, .. }) = &input
            && let Err(error) = self.config.allow_roots.check(file).await
        {
            return Ok(unreadable(&error));
        }
        let context = self.context(chunk, index, CancellationToken::new());
        let kill = Box::pin(must_have_stopped(self, chunk.lease));
        let stop = StopSignals { cancel: chunk.lease.cancel(), kill };
        let file = (index < chunk.plan.total()).then(|| chunk.plan.unchanged_file(index)).flatten();
        let Some(file) = file else {
            return run(chunk.handler, context, input, chunk.timeout(), stop).await;
        };
        if let Err(error) = longshore_storage::check(file).await {
            return Ok(unreadable(&error));
        }
        let ended = run(chunk.handler, context, input, chunk.timeout(), stop).await;
        if !matches!(ended, Ok(Outcome::Success(_))) {
            return ended;
        }
        // The file may have changed while it was read. A file that is gone was read to its end, or
        // the task removed its own input.
        match longshore_storage::check(file).await {
            Err(error @ longshore_storage::Error::Changed { .. }) => Ok(unreadable(&error)),
            _ => ended,
        }
    }

    /// What a handler knows of an attempt that ends when `cancel` is cancelled.
    pub(crate) fn context(
        &self,
        chunk: &Chunk<'_>,
        index: u64,
        cancel: CancellationToken,
    ) -> Context {
        Context {
            job: chunk.lease.held.job,
            index,
            attempt: chunk.grant.attempt,
            node: self.node.clone(),
            plan: chunk.plan.clone(),
            cancel,
            stopping: self.closing.clone(),
            max_result: chunk.classifier.max_result,
        }
    }
}

/// Waits until an attempt at an exclusive task must have stopped: the chunk may run elsewhere soon.
/// Never ends for other tasks.
pub(crate) async fn must_have_stopped(pipeline: &Pipeline, lease: &ChunkLease) {
    if !lease.is_exclusive() {
        return std::future::pending().await;
    }
    lease.abandoned().cancelled().await;
    tokio::time::sleep(exclusive_stop_grace(pipeline.config.dead_after)).await;
}

/// What ends an attempt before its time.
struct StopSignals<'a> {
    /// Cancelled when the attempt is to stop, with the grace of its handler.
    cancel: &'a CancellationToken,
    /// Ends when the attempt is dropped at once.
    kill: BoxFuture<'a, ()>,
}

/// Runs a handler until it ends, its time is up, or a signal stops it. A handler that is stopped
/// gets its grace, and is dropped then.
async fn run(
    handler: &dyn Handler,
    context: Context,
    input: Input,
    timeout: Option<Duration>,
    StopSignals { cancel: stop, kill }: StopSignals<'_>,
) -> Result<Outcome, Interruption> {
    let (cancel, stopping) = (context.cancel.clone(), context.stopping.clone());
    let mut work = AssertUnwindSafe(handler.run(context, input)).catch_unwind();
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let stopped = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        ended = &mut work => return match ended {
            Ok(Outcome::NotStarted { reason }) => Err(Interruption::NotStarted(reason)),
            // A signal to the whole unit or terminal stops the worker and its programs alike.
            Ok(Outcome::Failure { .. }) if handler.is_program() && stopping.is_cancelled() => {
                Err(Interruption::Stopped)
            }
            Ok(outcome) => Ok(outcome),
            Err(panic) => {
                Ok(Outcome::Failure { error: panic_text(panic.as_ref()), retry: true })
            }
        },
        () = time_is_up => false,
    };
    cancel.cancel();
    let late = tokio::select! {
        biased;
        ended = work => Some(ended),
        () = tokio::time::sleep(handler.stop_grace()) => None,
        () = kill => None,
    };
    match (stopped, late, timeout) {
        // The subtask was nearly done when it was stopped: its success counts if it can still be
        // committed.
        (true, Some(Ok(success @ Outcome::Success(_))), _) => Ok(success),
        (false, _, Some(timeout)) => Ok(timed_out(timeout)),
        _ => Err(Interruption::Stopped),
    }
}

/// The outcome of an attempt that took longer than `limit`.
pub(crate) fn timed_out(limit: Duration) -> Outcome {
    let error = format!("timed out after {}", humantime::format_duration(limit));
    Outcome::Failure { error, retry: true }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::TaskResult;
    use crate::task::asynchronous;
    use crate::task::fixtures::{context, failure, success};

    /// Runs a handler with the input 1 and no file.
    async fn run_one(
        handler: &dyn Handler,
        timeout: Option<Duration>,
        stop: StopSignals<'_>,
    ) -> Result<Outcome, Interruption> {
        run(handler, context(&json!(null)), Input::Number(1), timeout, stop).await
    }

    fn signals(cancel: &CancellationToken) -> StopSignals<'_> {
        StopSignals { cancel, kill: Box::pin(std::future::pending()) }
    }

    fn cancelled() -> CancellationToken {
        let cancel = CancellationToken::new();
        cancel.cancel();
        cancel
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_times_out() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let (limit, cancel) = (Some(Duration::from_secs(5)), CancellationToken::new());
        let ended = run_one(&forever, limit, signals(&cancel)).await;
        let outcome = ended.expect("a timeout is an outcome");
        assert_eq!(failure(outcome), ("timed out after 5s".into(), true));
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_attempt() {
        let panics = asynchronous(|_, n: i64| async move {
            if n == 1 { panic!("hook slipped") } else { TaskResult::Ok(()) }
        });
        let ended = run_one(&panics, None, signals(&CancellationToken::new())).await;
        let outcome = ended.expect("a panic is an outcome");
        assert_eq!(failure(outcome), ("the handler panicked: hook slipped".into(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_ignores_its_stop_is_dropped_within_a_second() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let begun = Instant::now();
        let ended = run_one(&forever, None, signals(&cancelled())).await;
        assert!(matches!(ended, Err(Interruption::Stopped)), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_killed_gets_no_grace() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let kill = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
        let begun = Instant::now();
        let ended = run_one(&forever, None, StopSignals { cancel: &cancelled(), kill }).await;
        assert!(matches!(ended, Err(Interruption::Stopped)), "{ended:?}");
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_attempt_is_told_and_its_success_still_counts() {
        let stops = asynchronous(|ctx: Context, _: i64| async move {
            ctx.cancelled().await;
            TaskResult::Ok(ctx.is_cancelled())
        });
        let ended = run_one(&stops, None, signals(&cancelled())).await;
        assert_eq!(ended.expect("a success counts"), success(true));
    }
}
