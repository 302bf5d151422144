//! Reads results.
//!
//! Those that are there, those of a job that still runs as they come, and the reduced value.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::stream::poll_fn;
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use longshore_ledger::ErrorsParams;
use longshore_producer::Job;
use longshore_protocol::wire::ResultView;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Outcome, json};
use crate::Shared;
use crate::call::Call;
use crate::lines::{self, Lines, line};
use crate::refusal::Refusal;

/// The lines of a followed job that wait for a client that reads slowly.
const WAITING_LINES: usize = 64;

/// The shortest time between two looks at a job whose next result is not there.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The number of errors that one look behind a missing result asks for.
const ERRORS_A_LOOK: usize = 256;

pub(crate) async fn results(call: Call) -> Outcome {
    let indices = call.params.indices()?;
    let is_followed = call.params.flag("follow")?;
    let (job, _) = call.job().await?;
    let stop = call.shared.stop.clone();
    if is_followed {
        return Ok(lines::respond_live(follow(call.shared, job, indices), stop));
    }
    let results = job.results_in(indices).map(|result| {
        let (index, value) = result?;
        Ok(result_line(index, &value))
    });
    lines::respond(results.boxed(), stop).await
}

fn result_line(index: u64, result: &RawValue) -> String {
    line(&ResultView { index: Some(index), result })
}

pub(crate) async fn value(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    let value = job.value().await?;
    Ok(json(StatusCode::OK, &ResultView { index: None, result: &value }))
}

/// The results in index order until the job has ended. An index without a result holds up those
/// behind it until it has failed for good or the job has ended.
fn follow(shared: Arc<Shared>, job: Job, indices: Range<u64>) -> Lines {
    let (sender, mut receiver) = mpsc::channel(WAITING_LINES);
    tokio::spawn(async move {
        let followed = async {
            let mut follower = Follower { shared, job, next: indices.start, end: indices.end };
            if let Err(refusal) = follower.run(&sender).await {
                // The client has gone if nothing takes it.
                let _ = sender.send(Err(refusal)).await;
            }
        };
        tokio::select! {
            () = followed => {}
            () = sender.closed() => {}
        }
    });
    poll_fn(move |context| receiver.poll_recv(context)).boxed()
}

type Sender = mpsc::Sender<Result<String, Refusal>>;

struct Follower {
    shared: Arc<Shared>,
    job: Job,
    /// The first index that was neither sent nor found to have no result.
    next: u64,
    end: u64,
}

impl Follower {
    async fn run(&mut self, sender: &Sender) -> Result<(), Refusal> {
        let progress = self.job.progress();
        pin_mut!(progress);
        while let Some(summary) = progress.try_next().await? {
            let end = self.end.min(summary.counts.total);
            if summary.state.is_terminal() {
                return self.send_rest(sender).await;
            }
            while self.next < end && self.send_next(sender, end).await? {}
            if self.next >= self.end {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Sends what there is, gaps or not.
    async fn send_rest(&mut self, sender: &Sender) -> Result<(), Refusal> {
        let results = self.job.results_in(self.next..self.end);
        pin_mut!(results);
        while let Some((index, value)) = results.try_next().await? {
            if sender.send(Ok(result_line(index, &value))).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Sends the results from `next` on, or steps over failed subtasks there. `false` if the next
    /// index is still open.
    async fn send_next(&mut self, sender: &Sender, end: u64) -> Result<bool, Refusal> {
        let before = self.next;
        // Asks for one at first: as long as that is not there, no page of others is read.
        for indices in [self.next..self.next + 1, self.next + 1..end] {
            let results = self.job.results_in(indices);
            pin_mut!(results);
            while let Some((index, value)) = results.try_next().await? {
                if index != self.next {
                    break;
                }
                if sender.send(Ok(result_line(index, &value))).await.is_err() {
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

    async fn step_over_failed(&mut self) -> Result<(), Refusal> {
        let params = ErrorsParams::new(self.next, ERRORS_A_LOOK);
        for entry in self.shared.ledger().errors(self.job.id(), &params).await? {
            if entry.index != self.next {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}
