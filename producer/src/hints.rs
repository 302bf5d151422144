//! One subscription to the ledger's hints, shared by everybody who waits in this process.
//!
//! ```text
//! ledger.events() ──▶ one task ──▶ broadcast ──▶ each waiting job
//! ```
//!
//! Hints make waiting quick; polling makes it certain. So nothing here can fail: a hint that is lost costs half a
//! second.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Event, Ledger};
use longshore_protocol::JobId;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tracing::debug;

/// How many hints may wait for a slow reader; past that it takes everything for changed, and looks.
const BACKLOG: usize = 256;

/// The wait between two tries to subscribe while the ledger is away.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Hints {
    sender: broadcast::Sender<Event>,
    task: JoinHandle<()>,
}

impl Hints {
    /// Starts to follow. Needs a tokio runtime.
    pub(crate) fn follow(ledger: Arc<dyn Ledger>) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let task = tokio::spawn(pump(ledger, sender.clone()));
        Self { sender, task }
    }

    pub(crate) fn of(&self, job: JobId) -> JobHints {
        JobHints { job, receiver: self.sender.subscribe() }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(ledger: Arc<dyn Ledger>, sender: broadcast::Sender<Event>) {
    let mut events = loop {
        match ledger.events().await {
            Ok(events) => break events,
            Err(error) => debug!(%error, "no hints for now"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    loop {
        // Nobody may be listening right now; that is no error.
        let _ = sender.send(events.next().await);
    }
}

/// The hints about one job.
pub(crate) struct JobHints {
    job: JobId,
    receiver: broadcast::Receiver<Event>,
}

impl JobHints {
    /// Waits until the job's state may have changed, at most `longest`.
    pub(crate) async fn changed(&mut self, longest: Duration) {
        let job = self.job;
        self.until(
            longest,
            |event| matches!(event, Event::Job { job: about, .. } if *about == job),
        )
        .await;
    }

    /// Waits until the job may have ended, at most `longest`; tells whether a hint says so.
    pub(crate) async fn ended(&mut self, longest: Duration) -> bool {
        let job = self.job;
        self.until(longest, |event| {
            matches!(event, Event::Job { job: about, state } if *about == job && state.is_terminal())
        })
        .await
    }

    /// Waits until the job's counts may have changed, at most `longest`.
    pub(crate) async fn moved(&mut self, longest: Duration) {
        let job = self.job;
        self.until(longest, |event| {
            matches!(event, Event::Job { job: about, .. } | Event::Room { job: about } if *about == job)
        })
        .await;
    }

    /// Tells whether a hint came that concerns us, or may have been missed.
    async fn until(&mut self, longest: Duration, concerns: impl Fn(&Event) -> bool) -> bool {
        let hint = async {
            loop {
                match self.receiver.recv().await {
                    Ok(Event::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Ok(event) if concerns(&event) => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // Out of time means: look yourself.
        tokio::time::timeout(longest, hint).await.is_ok()
    }
}
