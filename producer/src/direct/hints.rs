//! One subscription to the ledger's hints, shared by all callers that wait for a job.
//!
//! ```text
//! ledger.events() ──▶ one task ──▶ broadcast ──▶ each waiting job
//! ```
//!
//! Hints make waiting fast; polling makes it reliable. Therefore nothing here can fail: a lost hint
//! costs half a second. A caller that follows from before a job was submitted receives every hint
//! about the job, unless there was a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_ledger::{Ended, Event, Ledger, Topic};
use longshore_protocol::state::JobState;
use longshore_protocol::{Hint, JobId};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tracing::debug;

/// Most hints that wait for a slow reader. A reader that falls further behind polls.
const BACKLOG: usize = 256;

/// The wait between two attempts to subscribe while the ledger is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The hints about all jobs.
pub(crate) struct Hints {
    sender: broadcast::Sender<Event>,
    /// The ledger's hints are being received.
    subscribed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Hints {
    /// Subscribes in the background. Needs a tokio runtime.
    pub(crate) fn follow(ledger: Arc<dyn Ledger>) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let subscribed = Arc::default();
        let task = tokio::spawn(forward(ledger, sender.clone(), Arc::clone(&subscribed)));
        Self { sender, subscribed, task }
    }

    pub(crate) fn of(&self, job: JobId) -> JobHints {
        let is_complete = self.subscribed.load(Ordering::Acquire);
        JobHints { job, receiver: self.sender.subscribe(), is_complete }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    ledger: Arc<dyn Ledger>,
    sender: broadcast::Sender<Event>,
    subscribed: Arc<AtomicBool>,
) {
    let mut events = loop {
        match ledger.events(Topic::Clients).await {
            Ok(events) => break events,
            Err(error) => debug!(%error, "can't subscribe to hints; trying again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    };
    subscribed.store(true, Ordering::Release);
    loop {
        // An error means that no job is being waited for right now.
        let _ = sender.send(events.next().await);
    }
}

/// The outcome of waiting for a hint.
pub(crate) enum Notification {
    /// No hint in time, or hints were missed.
    Nothing,
    /// The state that the job is in.
    State(JobState),
    /// The end of the job.
    End(Arc<Ended>),
}

/// The hints about one job.
pub(crate) struct JobHints {
    job: JobId,
    receiver: broadcast::Receiver<Event>,
    is_complete: bool,
}

impl JobHints {
    /// Whether every hint since this was created was received, and none of them was the job's end.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Waits until the job may have changed its state, for at most `longest`.
    pub(crate) async fn changed(&mut self, longest: Duration) -> Notification {
        self.next(longest, |_| true).await
    }

    /// Waits until the job may have ended, for at most `longest`.
    pub(crate) async fn ended(&mut self, longest: Duration) -> Notification {
        self.next(longest, JobState::is_terminal).await
    }

    /// The next hint about the job with a state that is wanted.
    async fn next(
        &mut self,
        longest: Duration,
        is_wanted: impl Fn(JobState) -> bool,
    ) -> Notification {
        let hint = async {
            loop {
                match self.receiver.recv().await {
                    Ok(Event::Hint(Hint::Job { job, state }))
                        if job == self.job && is_wanted(state) =>
                    {
                        return Notification::State(state);
                    }
                    Ok(Event::Ended(ended)) if ended.summary.id == self.job => {
                        return Notification::End(ended);
                    }
                    Ok(Event::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.is_complete = false;
                        return Notification::Nothing;
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // After a time-out the caller polls.
        let hint = tokio::time::timeout(longest, hint).await;
        let notification = hint.unwrap_or(Notification::Nothing);
        let has_ended = match &notification {
            Notification::State(state) => state.is_terminal(),
            Notification::End(_) => true,
            Notification::Nothing => false,
        };
        self.is_complete &= !has_ended;
        notification
    }
}
