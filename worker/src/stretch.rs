//! Subtasks that compute, one after the other on one thread. The thread waits for nobody between
//! two of them; what it has settled is judged and committed here meanwhile.
//!
//! A subtask of ten milliseconds that is handed to its thread and back costs two wake-ups, and a
//! core that stands still between them. Deliberately absent: suspects and reduce nodes, which go
//! one by one (`attempt`).

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::Outcome;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::attempt::cut;
use crate::batch::Batch;
use crate::pipeline::{Chunk, Pipeline};
use crate::task::{Computing, Series, no_thread};

/// What the thread runs now, and since when; `None` between two subtasks, where it may wait for its
/// outcomes to be taken.
type Place = Arc<Mutex<Option<(u64, Instant)>>>;

/// Marks a subtask as the one that runs, until it ends, however it ends.
struct Running<'a>(&'a Place);

impl<'a> Running<'a> {
    fn begin(place: &'a Place, index: u64) -> Self {
        *place.lock() = Some((index, Instant::now()));
        Self(place)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// A thread under way, as far as it can be watched from outside.
struct Stretch {
    place: Place,
    /// Cancels the subtask that runs, and lets none begin.
    stop: CancellationToken,
    /// How long a subtask may take.
    limit: Option<Duration>,
    /// How long a cancelled one may take to wind up.
    wind_up: Duration,
}

/// Why it has to stop before its end.
#[derive(Clone, Copy)]
enum Why {
    /// The hold says so.
    Stopped,
    /// The time of this subtask is up.
    TimeIsUp(u64),
}

impl Stretch {
    /// Waits until the thread has to stop.
    async fn trouble(&self, chunk: &Chunk<'_>) -> Why {
        tokio::select! {
            biased;
            () = chunk.hold.cancel().cancelled() => Why::Stopped,
            index = self.time_is_up() => Why::TimeIsUp(index),
        }
    }

    async fn time_is_up(&self) -> u64 {
        let Some(limit) = self.limit else { return std::future::pending().await };
        loop {
            let running = *self.place.lock();
            let Some((index, begun)) = running else {
                // What begins now has so long, too.
                tokio::time::sleep(limit).await;
                continue;
            };
            sleep_until(begun + limit).await;
            if *self.place.lock() == running {
                return index;
            }
        }
    }
}

impl Pipeline {
    /// Runs what is left of a chunk, until it is done or must not go on.
    pub(crate) async fn compute(&self, chunk: &Chunk<'_>, batch: &mut Batch, task: &Computing) {
        while batch.next() < chunk.grant.to && chunk.hold.goes_on() {
            match self.begin(chunk, batch.next(), task) {
                Ok((stretch, series)) => self.follow(chunk, batch, &stretch, series).await,
                Err(error) => self.settle(chunk, batch, no_thread(&error), Duration::ZERO),
            }
        }
    }

    fn begin(
        &self,
        chunk: &Chunk<'_>,
        from: u64,
        task: &Computing,
    ) -> std::io::Result<(Stretch, Series)> {
        let (task, plan) = (Arc::clone(task), chunk.plan.clone());
        let place = Place::default();
        let stop = CancellationToken::new();
        let ctx = Context {
            job: chunk.hold.held.job,
            index: from,
            attempt: chunk.grant.attempt,
            node: self.node.clone(),
            plan: plan.clone(),
            cancel: stop.clone(),
            stopping: self.closing.clone(),
            max_result: chunk.judge.max_result,
        };
        let at = Arc::clone(&place);
        let run = move |index| {
            let _running = Running::begin(&at, index);
            task(Context { index, ..ctx.clone() }, plan.input(index))
        };
        let (goes_on, stopped) = (chunk.hold.goes_on_token(), stop.clone());
        let may_begin = move || goes_on.holds() && !stopped.is_cancelled();
        let series = Series::start(from..chunk.grant.to, may_begin, run)?;
        let limits = [chunk.plan.document().timeout, chunk.handler.timeout()];
        let wind_up = chunk.handler.wind_up();
        let limit = limits.into_iter().flatten().min();
        Ok((Stretch { place, stop, limit, wind_up }, series))
    }

    /// Takes in what the thread settles, to its end or until it has to stop.
    async fn follow(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        stretch: &Stretch,
        series: Series,
    ) {
        loop {
            let due = batch.due_at();
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let why = tokio::select! {
                biased;
                computed = series.next(due.map(Instant::into_std)) => match computed {
                    Some(computed) => {
                        self.settle(chunk, batch, computed.outcome, computed.took);
                        if !batch.is_due() || batch.next() == chunk.grant.to {
                            continue;
                        }
                        self.commit_beside(chunk, batch, stretch).await
                    }
                    None => return,
                },
                () = is_due => {
                    while let Some(computed) = series.ready() {
                        self.settle(chunk, batch, computed.outcome, computed.took);
                    }
                    self.commit_beside(chunk, batch, stretch).await
                }
                why = stretch.trouble(chunk) => Some(why),
            };
            if let Some(why) = why {
                stretch.stop.cancel();
                return self.wind_up(chunk, batch, stretch, series, why).await;
            }
        }
    }

    /// Commits while the thread goes on; tells if it has to stop. Then the subtask that runs hears
    /// of it at once, however long the commit takes.
    async fn commit_beside(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        stretch: &Stretch,
    ) -> Option<Why> {
        let mut commit = std::pin::pin!(self.commit(chunk, batch));
        let why = tokio::select! {
            biased;
            () = &mut commit => return None,
            why = stretch.trouble(chunk) => why,
        };
        stretch.stop.cancel();
        commit.await;
        Some(why)
    }

    /// What had ended before the thread was stopped counts. So does the subtask that was stopped by
    /// the hold, if it was as good as done; one whose time was up has failed, whatever it says now.
    /// A thread that pays no heed is left behind.
    async fn wind_up(
        &self,
        chunk: &Chunk<'_>,
        batch: &mut Batch,
        stretch: &Stretch,
        series: Series,
        why: Why,
    ) {
        let current = match why {
            Why::Stopped => stretch.place.lock().map(|(index, _)| index),
            Why::TimeIsUp(index) => Some(index),
        };
        let until = Instant::now() + stretch.wind_up;
        let mut cut = std::pin::pin!(cut(self, chunk.hold));
        while current.is_none_or(|index| batch.next() <= index) {
            let computed = tokio::select! {
                biased;
                computed = series.next(None) => computed,
                () = sleep_until(until) => None,
                () = &mut cut => None,
            };
            let is_current = Some(batch.next()) == current;
            match (why, computed) {
                (Why::TimeIsUp(_), _) if is_current => {
                    let limit = stretch.limit.unwrap_or_default();
                    let error = format!("timed out after {}", humantime::format_duration(limit));
                    let outcome = Outcome::Failure { error, retry: true };
                    self.settle(chunk, batch, outcome, limit);
                }
                (_, Some(computed))
                    if !is_current || matches!(computed.outcome, Outcome::Success(_)) =>
                {
                    self.settle(chunk, batch, computed.outcome, computed.took);
                }
                _ => return,
            }
        }
    }

    fn settle(&self, chunk: &Chunk<'_>, batch: &mut Batch, outcome: Outcome, took: Duration) {
        batch.push(chunk.judge.judge(outcome, self.machine.share()), took);
    }
}
