//! Runs the blocking subtasks of a chunk on one thread, and commits their outcomes meanwhile.
//!
//! The thread does not wait between two subtasks. Handing each subtask of ten milliseconds to its
//! thread and back would cost two wake-ups, and an idle core between them. Deliberately absent:
//! suspect chunks and reduce nodes, whose subtasks run one by one (`attempt`).

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::Outcome;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::attempt::{must_have_stopped, timed_out};
use crate::batch::Batch;
use crate::chunk::Chunk;
use crate::pipeline::Pipeline;
use crate::task::{BlockingTask, OutcomeReceiver, no_thread, run_on_a_thread};

/// The subtask that runs on the thread, and since when; `None` between two subtasks, where the
/// thread may wait until its outcomes are taken.
type Current = Arc<Mutex<Option<(u64, Instant)>>>;

/// Marks a subtask as the one that runs, until it ends, also by a panic.
struct Running<'a>(&'a Current);

impl<'a> Running<'a> {
    fn begin(current: &'a Current, index: u64) -> Self {
        *current.lock() = Some((index, Instant::now()));
        Self(current)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// A thread that runs subtasks of a chunk, seen from outside.
struct BlockingRun {
    current: Current,
    /// Cancels the subtask that runs, and lets none begin.
    stop: CancellationToken,
    /// How long a subtask may take.
    limit: Option<Duration>,
    /// How long a cancelled subtask may go on.
    stop_grace: Duration,
}

/// Why a run has to stop before its end.
#[derive(Clone, Copy)]
enum StopCause {
    /// The lease of the chunk says so.
    Lease,
    /// The time of this subtask is up.
    Timeout(u64),
}

impl BlockingRun {
    /// Waits until the run has to stop.
    async fn must_stop(&self, chunk: &Chunk<'_>) -> StopCause {
        tokio::select! {
            biased;
            () = chunk.lease.cancel().cancelled() => StopCause::Lease,
            index = self.time_is_up() => StopCause::Timeout(index),
        }
    }

    async fn time_is_up(&self) -> u64 {
        let Some(limit) = self.limit else { return std::future::pending().await };
        loop {
            let running = *self.current.lock();
            let Some((index, begun)) = running else {
                // A subtask that begins now has this long, too.
                tokio::time::sleep(limit).await;
                continue;
            };
            sleep_until(begun + limit).await;
            if *self.current.lock() == running {
                return index;
            }
        }
    }
}

impl Pipeline {
    /// Runs the rest of a chunk on one thread, until it is done or must not go on. Does nothing for
    /// a chunk whose subtasks run one by one.
    pub(crate) async fn run_blocking(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        let Some(task) = chunk.blocking_task() else { return };
        while batch.next() < chunk.grant.to && chunk.lease.goes_on() {
            match self.start_run(chunk, batch.next(), task) {
                Ok((run, outcomes)) => self.follow(chunk, batch, &run, outcomes).await,
                Err(error) => self.settle(chunk, batch, no_thread(&error), Duration::ZERO),
            }
        }
    }

    fn start_run(
        &self,
        chunk: &Chunk<'_>,
        from: u64,
        task: &BlockingTask,
    ) -> std::io::Result<(BlockingRun, OutcomeReceiver)> {
        let (task, plan) = (Arc::clone(task), chunk.plan.clone());
        let (current, stop) = (Current::default(), CancellationToken::new());
        let context = self.context(chunk, from, stop.clone());
        let at = Arc::clone(&current);
        let run = move |index| {
            let _running = Running::begin(&at, index);
            task(Context { index, ..context.clone() }, plan.input(index))
        };
        let (goes_on, stopped) = (chunk.lease.goes_on_token(), stop.clone());
        let may_begin = move || goes_on.holds() && !stopped.is_cancelled();
        let outcomes = run_on_a_thread(from..chunk.grant.to, may_begin, run)?;
        let (limit, stop_grace) = (chunk.timeout(), chunk.handler.stop_grace());
        Ok((BlockingRun { current, stop, limit, stop_grace }, outcomes))
    }

    /// Takes the outcomes from the thread, to its end or until it has to stop.
    async fn follow(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        run: &BlockingRun,
        outcomes: OutcomeReceiver,
    ) {
        loop {
            let due = batch.due_at();
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let cause = tokio::select! {
                biased;
                timed = outcomes.recv(due.map(Instant::into_std)) => match timed {
                    Some(timed) => {
                        self.settle(chunk, batch, timed.outcome, timed.took);
                        if !batch.is_due() || batch.next() == chunk.grant.to {
                            continue;
                        }
                        self.commit_beside(chunk, batch, run).await
                    }
                    None => return,
                },
                () = is_due => {
                    while let Some(timed) = outcomes.try_recv() {
                        self.settle(chunk, batch, timed.outcome, timed.took);
                    }
                    self.commit_beside(chunk, batch, run).await
                }
                cause = run.must_stop(chunk) => Some(cause),
            };
            if let Some(cause) = cause {
                run.stop.cancel();
                return self.stop_run(chunk, batch, run, outcomes, cause).await;
            }
        }
    }

    /// Commits while the thread goes on; tells if the run has to stop. The subtask that runs is
    /// cancelled at once then, however long the commit takes.
    async fn commit_beside(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        run: &BlockingRun,
    ) -> Option<StopCause> {
        let mut commit = std::pin::pin!(self.commit(chunk, batch));
        let cause = tokio::select! {
            biased;
            () = &mut commit => return None,
            cause = run.must_stop(chunk) => cause,
        };
        run.stop.cancel();
        commit.await;
        Some(cause)
    }

    /// Takes the outcomes of the subtasks that had ended before the thread was stopped. The subtask
    /// that was stopped by the lease counts too if it succeeds all the same; one whose time was up
    /// has failed, whatever its outcome. A thread that ignores its stop is left behind.
    async fn stop_run(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        run: &BlockingRun,
        outcomes: OutcomeReceiver,
        cause: StopCause,
    ) {
        let current = match cause {
            StopCause::Lease => run.current.lock().map(|(index, _)| index),
            StopCause::Timeout(index) => Some(index),
        };
        let until = Instant::now() + run.stop_grace;
        let mut kill = std::pin::pin!(must_have_stopped(self, chunk.lease));
        while current.is_none_or(|index| batch.next() <= index) {
            let timed = tokio::select! {
                biased;
                timed = outcomes.recv(None) => timed,
                () = sleep_until(until) => None,
                () = &mut kill => None,
            };
            let is_current = Some(batch.next()) == current;
            match (cause, timed) {
                (StopCause::Timeout(_), _) if is_current => {
                    let limit = run.limit.unwrap_or_default();
                    self.settle(chunk, batch, timed_out(limit), limit);
                }
                (_, Some(timed)) if !is_current || matches!(timed.outcome, Outcome::Success(_)) => {
                    self.settle(chunk, batch, timed.outcome, timed.took);
                }
                _ => return,
            }
        }
    }

    fn settle(&self, chunk: &Chunk<'_>, batch: &mut Batch, outcome: Outcome, took: Duration) {
        batch.push(chunk.classifier.classify(outcome, self.environment.random()), took);
    }
}
