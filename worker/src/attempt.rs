//! One attempt at one subtask: resolve its input, run its handler under a time-out, stop it when it
//! must stop.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longshore_protocol::{Input, Outcome};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::batch::Batch;
use crate::commits::Commits;
use crate::heart::wind_up_of_exclusive;
use crate::holdings::Hold;
use crate::input::{NoInput, resolve};
use crate::pipeline::{Chunk, Pipeline};
use crate::task::{Handler, panic_text, unreadable};

/// The wait before the ledger is asked for results again.
const AGAIN: Duration = Duration::from_millis(250);

/// How an attempt ended.
pub(crate) enum Ended {
    /// It has an outcome that counts.
    Outcome(Outcome),
    /// It was stopped; whatever it did does not count.
    Stopped,
    /// It could not begin, for no fault of its own.
    Stuck(String),
    /// It could not be started on this machine.
    NotStarted(String),
}

/// Runs the next subtask of a batch. While it runs, what is settled before it is committed in time.
pub(crate) async fn attempt(
    pipeline: &Pipeline,
    chunk: &Chunk<'_>,
    batch: &mut Batch,
    commits: &mut Commits<'_>,
) -> Ended {
    let handler = chunk.handler;
    if let Some(instantly) = handler.instantly() {
        let params = &chunk.plan.document().params;
        return Ended::Outcome(instantly(params, chunk.grant.attempt));
    }
    let attempt = Box::pin(resolve_and_run(pipeline, chunk, handler, batch.next()));
    tokio::select! {
        biased;
        ended = attempt => ended,
        () = commits.keep_up(batch) => Ended::Stopped,
    }
}

async fn resolve_and_run(
    pipeline: &Pipeline,
    chunk: &Chunk<'_>,
    handler: &dyn Handler,
    index: u64,
) -> Ended {
    let job = chunk.hold.held.job;
    let (ledger, store) = (pipeline.ledger.as_ref(), pipeline.machine.results());
    let input = loop {
        let resolved = resolve(ledger, store, job, &chunk.plan, index);
        match resolved.await {
            Ok(input) => break input,
            Err(NoInput::Failed(outcome)) => return Ended::Outcome(outcome),
            Err(NoInput::NotNow(reason)) => return Ended::Stuck(reason),
            // In an outage of the ledger the results are waited for.
            Err(NoInput::Away) => tokio::select! {
                biased;
                () = chunk.hold.cancel().cancelled() => return Ended::Stopped,
                () = tokio::time::sleep(AGAIN) => {}
            },
        }
    };
    let ctx = Context {
        job,
        index,
        attempt: chunk.grant.attempt,
        node: pipeline.node.clone(),
        plan: chunk.plan.clone(),
        cancel: CancellationToken::new(),
        stopping: pipeline.closing.clone(),
        max_result: chunk.judge.max_result,
    };
    let limits = [chunk.plan.document().timeout, handler.timeout()];
    let limit = limits.into_iter().flatten().min();
    let leash = Leash { stop: chunk.hold.cancel(), cut: Box::pin(cut(pipeline, chunk.hold)) };
    let file = (index < chunk.plan.total()).then(|| chunk.plan.unchanged_file(index)).flatten();
    let Some(file) = file else {
        return run(handler, ctx, input, limit, leash).await;
    };
    if let Err(error) = longshore_storage::check(file).await {
        return Ended::Outcome(unreadable(&error));
    }
    let ended = run(handler, ctx, input, limit, leash).await;
    if !matches!(ended, Ended::Outcome(Outcome::Success(_))) {
        return ended;
    }
    // It may have changed while it was read. What is gone was read to its end, or the task removed
    // its own input.
    match longshore_storage::check(file).await {
        Err(error @ longshore_storage::Error::Changed { .. }) => Ended::Outcome(unreadable(&error)),
        _ => ended,
    }
}

/// Waits until an attempt at an exclusive task must have stopped: the chunk may run elsewhere soon.
pub(crate) async fn cut(pipeline: &Pipeline, hold: &Hold) {
    if !hold.is_exclusive() {
        return std::future::pending().await;
    }
    hold.abandoned().cancelled().await;
    tokio::time::sleep(wind_up_of_exclusive(pipeline.config.dead_after)).await;
}

/// What ends an attempt before its time.
struct Leash<'a> {
    /// Then it is to stop, and may wind up.
    stop: &'a CancellationToken,
    /// Then it is dropped at once.
    cut: BoxFuture<'a, ()>,
}

/// Runs a handler until it ends, its time is up, or the leash says so; then it may wind up, and is
/// dropped.
async fn run(
    handler: &dyn Handler,
    ctx: Context,
    input: Input,
    timeout: Option<Duration>,
    Leash { stop, cut }: Leash<'_>,
) -> Ended {
    let (cancel, stopping) = (ctx.cancel.clone(), ctx.stopping.clone());
    let mut work = AssertUnwindSafe(handler.run(ctx, input)).catch_unwind();
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
            Ok(Outcome::NotStarted { reason }) => Ended::NotStarted(reason),
            // Whatever stops us stops our programs as well, where it stops a whole unit or
            // terminal.
            Ok(Outcome::Failure { .. }) if handler.is_program() && stopping.is_cancelled() => {
                Ended::Stopped
            }
            Ok(outcome) => Ended::Outcome(outcome),
            Err(panic) => {
                let error = panic_text(panic.as_ref());
                Ended::Outcome(Outcome::Failure { error, retry: true })
            }
        },
        () = time_is_up => false,
    };
    cancel.cancel();
    let wound_up = tokio::select! {
        biased;
        ended = work => Some(ended),
        () = tokio::time::sleep(handler.wind_up()) => None,
        () = cut => None,
    };
    match (stopped, wound_up, timeout) {
        // It was as good as done: that counts, if there is still somebody to count it.
        (true, Some(Ok(success @ Outcome::Success(_))), _) => Ended::Outcome(success),
        (false, _, Some(timeout)) => Ended::Outcome(Outcome::Failure {
            error: format!("timed out after {}", humantime::format_duration(timeout)),
            retry: true,
        }),
        _ => Ended::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::TaskResult;
    use crate::task::asynchronous;
    use crate::task::fixtures::{context, failure, success};

    #[track_caller]
    fn outcome(ended: Ended) -> Outcome {
        match ended {
            Ended::Outcome(outcome) => outcome,
            Ended::Stopped => panic!("it was stopped"),
            Ended::Stuck(reason) | Ended::NotStarted(reason) => panic!("it was stuck: {reason}"),
        }
    }

    fn leash(stop: &CancellationToken) -> Leash<'_> {
        Leash { stop, cut: Box::pin(std::future::pending()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_times_out() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let limit = Some(Duration::from_secs(5));
        let stop = CancellationToken::new();
        let ended =
            run(&forever, context(&json!(null)), Input::Number(1), limit, leash(&stop)).await;
        assert_eq!(failure(outcome(ended)), ("timed out after 5s".into(), true));
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_attempt() {
        let panics = asynchronous(|_, n: i64| async move {
            if n == 1 { panic!("hook slipped") } else { TaskResult::Ok(()) }
        });
        let stop = CancellationToken::new();
        let ended = run(&panics, context(&json!(null)), Input::Number(1), None, leash(&stop)).await;
        assert_eq!(failure(outcome(ended)), ("the handler panicked: hook slipped".into(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_attempt_that_pays_no_heed_is_dropped_within_a_second() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let stop = CancellationToken::new();
        stop.cancel();
        let begun = tokio::time::Instant::now();
        let ended =
            run(&forever, context(&json!(null)), Input::Number(1), None, leash(&stop)).await;
        assert!(matches!(ended, Ended::Stopped));
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_cut_has_no_time_to_wind_up() {
        let forever = asynchronous(|_, _: i64| std::future::pending::<TaskResult<()>>());
        let stop = CancellationToken::new();
        stop.cancel();
        let cut = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
        let leash = Leash { stop: &stop, cut };
        let begun = tokio::time::Instant::now();
        let ended = run(&forever, context(&json!(null)), Input::Number(1), None, leash).await;
        assert!(matches!(ended, Ended::Stopped));
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_attempt_hears_of_it_and_its_success_still_counts() {
        let heeds = asynchronous(|ctx: Context, _: i64| async move {
            ctx.cancelled().await;
            TaskResult::Ok(ctx.is_cancelled())
        });
        let stop = CancellationToken::new();
        stop.cancel();
        let ended = run(&heeds, context(&json!(null)), Input::Number(1), None, leash(&stop)).await;
        assert_eq!(outcome(ended), success(true));
    }
}
