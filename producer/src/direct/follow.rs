//! Streams the results of a job that still runs, in index order.
//!
//! An index without a result holds up those behind it until it has failed for good or the job has
//! ended.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, poll_fn};
use futures_util::{FutureExt, TryStreamExt, pin_mut};
use longshore_ledger::ErrorsParams;
use longshore_protocol::JobSummary;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::job::{Job, Poller};
use crate::Error;

/// The results that wait for a slow reader.
const WAITING: usize = 64;

/// The shortest time between two looks at a job whose next result is not there.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The number of errors that one look behind a missing result asks for.
const ERRORS_A_LOOK: usize = 256;

type Item = Result<(u64, Box<RawValue>), Error>;

/// The results with these indices until the job has ended.
pub(super) fn stream(job: Job, indices: Range<u64>) -> BoxStream<'static, Item> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let followed = async move {
        let mut follower = Follower { job, next: indices.start, end: indices.end };
        if let Err(error) = follower.run(&sender).await {
            // The reader has gone if nothing takes it.
            let _ = sender.send(Err(error)).await;
        }
    };
    let mut followed: Option<BoxFuture<'static, ()>> = Some(followed.boxed());
    let results = poll_fn(move |context| {
        if followed.as_mut().is_some_and(|work| work.poll_unpin(context).is_ready()) {
            followed = None;
        }
        receiver.poll_recv(context)
    });
    results.boxed()
}

struct Follower {
    job: Job,
    /// The first index that was neither sent nor found to have no result.
    next: u64,
    end: u64,
}

impl Follower {
    async fn run(&mut self, sender: &mpsc::Sender<Item>) -> Result<(), Error> {
        let (mut hints, mut poller) = (self.job.hints(), Poller::of(&self.job));
        loop {
            if let Some(summary) = poller.poll().await? {
                let end = self.end.min(summary.counts.total);
                if summary.state.is_terminal() {
                    return self.send_rest(sender, &summary).await;
                }
                while self.next < end && self.send_next(sender, end).await? {}
                if self.next >= self.end {
                    return Ok(());
                }
            }
            // The end of the job ends the pause.
            hints.ended(LOOK_AGAIN).await;
        }
    }

    /// Sends what there is, gaps or not.
    async fn send_rest(
        &mut self,
        sender: &mpsc::Sender<Item>,
        summary: &JobSummary,
    ) -> Result<(), Error> {
        let results = self.job.results_of(summary, self.next..self.end, None).await?;
        pin_mut!(results);
        while let Some(result) = results.try_next().await? {
            if sender.send(Ok(result)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Sends the results from `next` on, or steps over failed subtasks there. `false` if the next
    /// index is still open.
    async fn send_next(&mut self, sender: &mpsc::Sender<Item>, end: u64) -> Result<bool, Error> {
        let before = self.next;
        // Asks for one at first: as long as that is not there, no page of others is read.
        for indices in [self.next..self.next + 1, self.next + 1..end] {
            let results = self.job.results_in(indices);
            pin_mut!(results);
            while let Some((index, value)) = results.try_next().await? {
                if index != self.next {
                    break;
                }
                if sender.send(Ok((index, value))).await.is_err() {
                    return Ok(false);
                }
                self.next += 1;
            }
            if self.next == before {
                break;
            }
        }
        self.step_over_failed().await?;
        Ok(self.next > before)
    }

    async fn step_over_failed(&mut self) -> Result<(), Error> {
        let params = ErrorsParams::new(self.next, ERRORS_A_LOOK);
        for entry in self.job.ledger().errors(self.job.id(), &params).await? {
            if entry.index != self.next {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}
