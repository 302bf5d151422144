//! One subscription to the ledger's hints, shared by everybody who waits in this process.
//!
//! ```text
//! ledger.events() ──▶ one task ──▶ broadcast ──▶ each waiting job
//! ```
//!
//! Hints make waiting quick; polling makes it certain. So nothing here can fail: a hint that is lost costs half a
//! second. Who follows from before a job was submitted has heard all that became of it, unless there was a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_ledger::{Ended, Event, Ledger, Topic};
use longshore_protocol::JobId;
use longshore_protocol::state::JobState;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tracing::debug;

/// How many hints may wait for a slow reader; past that it takes everything for changed, and looks.
const BACKLOG: usize = 256;

/// The wait between two tries to subscribe while the ledger is away.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Hints {
    sender: broadcast::Sender<Event>,
    /// Hints come.
    followed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Hints {
    /// Starts to follow. Needs a tokio runtime.
    pub(crate) fn follow(ledger: Arc<dyn Ledger>) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let followed = Arc::default();
        let task = tokio::spawn(pump(ledger, sender.clone(), Arc::clone(&followed)));
        Self { sender, followed, task }
    }

    pub(crate) fn of(&self, job: JobId) -> JobHints {
        let has_heard_all = self.followed.load(Ordering::Acquire);
        JobHints { job, receiver: self.sender.subscribe(), has_heard_all }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    ledger: Arc<dyn Ledger>,
    sender: broadcast::Sender<Event>,
    followed: Arc<AtomicBool>,
) {
    let mut events = loop {
        match ledger.events(Topic::Clients).await {
            Ok(events) => break events,
            Err(error) => debug!(%error, "no hints for now"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    followed.store(true, Ordering::Release);
    loop {
        // Nobody may be listening right now; that is no error.
        let _ = sender.send(events.next().await);
    }
}

/// What a hint said.
pub(crate) enum Heard {
    /// Nothing in time, or that hints were missed.
    Nothing,
    /// The job is this now.
    State(JobState),
    /// How the job ended.
    End(Arc<Ended>),
}

/// The hints about one job.
pub(crate) struct JobHints {
    job: JobId,
    receiver: broadcast::Receiver<Event>,
    has_heard_all: bool,
}

impl JobHints {
    /// Whether all that was hinted since this was made was heard, and was not that the job ended.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.has_heard_all
    }

    /// Waits until the job may be something else, at most `longest`.
    pub(crate) async fn changed(&mut self, longest: Duration) -> Heard {
        self.next(longest, |_| true).await
    }

    /// Waits until the job may have ended, at most `longest`.
    pub(crate) async fn ended(&mut self, longest: Duration) -> Heard {
        self.next(longest, JobState::is_terminal).await
    }

    /// The next hint about the job, if it says a state that is wanted.
    async fn next(&mut self, longest: Duration, is_wanted: impl Fn(JobState) -> bool) -> Heard {
        let hint = async {
            loop {
                match self.receiver.recv().await {
                    Ok(Event::Job { job, state }) if job == self.job && is_wanted(state) => {
                        return Heard::State(state);
                    }
                    Ok(Event::Ended(ended)) if ended.summary.id == self.job => {
                        return Heard::End(ended);
                    }
                    Ok(Event::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.has_heard_all = false;
                        return Heard::Nothing;
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // Out of time means: look yourself.
        let heard = tokio::time::timeout(longest, hint).await.unwrap_or(Heard::Nothing);
        let has_ended = match &heard {
            Heard::State(state) => state.is_terminal(),
            Heard::End(_) => true,
            Heard::Nothing => false,
        };
        self.has_heard_all &= !has_ended;
        heard
    }
}
