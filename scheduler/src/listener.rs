//! Follows the ledger's hints and the broker's link.

use std::sync::Arc;

use longshore_broker::{Broker, Link};
use longshore_ledger::{Event as Hint, Ledger, Topic};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use crate::engine::Event;
use crate::health::{Backoff, Service};

/// Passes hints on until it is dropped. The connection on which they come is this scheduler's heart: `heart` learns when there is
/// a new one.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    fleet: Arc<Notify>,
    heart: Arc<Notify>,
    inbox: Sender<Event>,
) {
    let health = service.health("following the ledger's hints");
    let mut backoff = Backoff::new();
    let mut hints = loop {
        match health.note(ledger.events(Topic::Schedulers).await) {
            Ok(hints) => break hints,
            Err(_) => backoff.wait().await,
        }
    };
    heart.notify_one();
    // Of workers that came before we listened no hint tells.
    fleet.notify_one();
    loop {
        let hint = hints.next().await;
        // Signing in anew brings the list of those who are left.
        if matches!(hint, Hint::Gap | Hint::Scheduler { .. }) {
            heart.notify_one();
        }
        if matches!(hint, Hint::Node { .. } | Hint::Gap) {
            fleet.notify_one();
        }
        let _ = inbox.send(Event::Hint(hint)).await;
    }
}

/// Tells whether the broker can be reached until it is dropped.
pub(crate) async fn follow_link(broker: Arc<dyn Broker>, inbox: Sender<Event>) {
    let mut link = broker.link();
    loop {
        let up = *link.borrow_and_update() == Link::Up;
        let _ = inbox.send(Event::Link { up }).await;
        if link.changed().await.is_err() {
            // The broker is gone for good: whoever closed it will stop us too.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore_ledger::memory::MemoryLedger;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_fleet_is_read_again_once_somebody_listens() {
        let fleet = Arc::new(Notify::new());
        let (inbox, _events) = mpsc::channel(1);
        let ledger = (Arc::new(MemoryLedger::default()) as Arc<dyn Ledger>, Service::default());
        let listener = tokio::spawn(run(ledger, fleet.clone(), Arc::default(), inbox));
        let read = tokio::time::timeout(Duration::from_secs(1), fleet.notified());
        read.await.expect("who came before is not waited for");
        listener.abort();
    }
}
