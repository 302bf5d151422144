//! Reads the list of workers twice a second, and at once when a hint says that it changed.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use crate::engine::Event;
use crate::health::Health;

/// Half of a heartbeat, so that a silence is measured to half a second.
const EVERY: Duration = Duration::from_millis(500);

/// A burst of hints costs at most one read in so long.
const PAUSE: Duration = Duration::from_millis(20);

/// Works until it is dropped.
pub(crate) async fn run(ledger: Arc<dyn Ledger>, changed: Arc<Notify>, inbox: Sender<Event>) {
    let health = Health::new("reading the list of workers");
    loop {
        if let Ok(nodes) = health.note(ledger.nodes().await) {
            let _ = inbox.send(Event::Nodes(nodes)).await;
        }
        tokio::time::sleep(PAUSE).await;
        let _ = tokio::time::timeout(EVERY - PAUSE, changed.notified()).await;
    }
}
