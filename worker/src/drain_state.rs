//! Tracks whether a worker takes chunks, drains, or is drained until the drain is withdrawn.
//!
//! ```text
//!   ledger -- asked, withdrawn --> heartbeat --> DrainState -- closing --> pipeline
//!   ledger <------ state --------- heartbeat <-- DrainState <-- drained -- worker
//! ```

use longshore_protocol::NodeState;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// What the worker and its heartbeat share about draining.
#[derive(Debug)]
pub(crate) struct DrainState {
    drain: Mutex<Drain>,
    /// Whether the ledger asks for a drain.
    is_asked: watch::Sender<bool>,
    changed: Notify,
}

/// A drain: not begun, running, or over.
#[derive(Debug, Default)]
struct Drain {
    /// Cancelled when nothing new is to be claimed.
    closing: CancellationToken,
    is_drained: bool,
}

impl Default for DrainState {
    fn default() -> Self {
        let (is_asked, _) = watch::channel(false);
        Self { drain: Mutex::default(), is_asked, changed: Notify::new() }
    }
}

impl DrainState {
    /// Cancelled when nothing new is to be claimed, until [`Self::reopen`] makes a new one.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.drain.lock().closing.clone()
    }

    /// What the worker reports.
    pub(crate) fn state(&self) -> NodeState {
        let drain = self.drain.lock();
        match (drain.closing.is_cancelled(), drain.is_drained) {
            (false, _) => NodeState::Active,
            (true, false) => NodeState::Draining,
            (true, true) => NodeState::Drained,
        }
    }

    /// The answer to a heartbeat asks for a drain, or for none.
    pub(crate) fn answered(&self, is_asked: bool) {
        self.is_asked.send_replace(is_asked);
        let closing = self.closing();
        if is_asked && !closing.is_cancelled() {
            info!("asked to drain");
            closing.cancel();
        }
    }

    /// The worker holds no chunk any more.
    pub(crate) fn drained(&self) {
        self.drain.lock().is_drained = true;
        self.changed.notify_one();
    }

    /// Waits until the ledger asks for no drain.
    pub(crate) async fn withdrawn(&self) {
        let mut is_asked = self.is_asked.subscribe();
        // The sender lives as long as this.
        let _ = is_asked.wait_for(|is_asked| !is_asked).await;
    }

    /// The worker takes chunks again.
    pub(crate) fn reopen(&self) {
        *self.drain.lock() = Drain::default();
        self.changed.notify_one();
    }

    /// Waits until the worker is drained, or takes chunks again.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_is_drained_until_the_drain_is_withdrawn() {
        let drain = DrainState::default();
        drain.answered(false);
        assert_eq!(drain.state(), NodeState::Active);
        drain.answered(true);
        assert!(drain.closing().is_cancelled());
        assert_eq!(drain.state(), NodeState::Draining);
        drain.drained();
        assert_eq!(drain.state(), NodeState::Drained);
        let waits = tokio::time::timeout(std::time::Duration::ZERO, drain.withdrawn()).await;
        assert!(waits.is_err(), "the ledger asks for it still");
        drain.answered(false);
        drain.withdrawn().await;
        assert_eq!(drain.state(), NodeState::Drained, "until the worker has made itself ready");
        drain.reopen();
        assert_eq!(drain.state(), NodeState::Active);
        drain.answered(true);
        assert_eq!(drain.state(), NodeState::Draining, "again");
    }
}
