//! Passes the ledger's hints, and whether the broker can be reached, to the engine and the watcher.

use std::sync::Arc;

use longshore_broker::{Broker, Link};
use longshore_ledger::{Event as LedgerEvent, Ledger, Topic};
use longshore_protocol::Hint;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use crate::engine::Event;
use crate::health::{Backoff, Service};

/// Passes hints on until it is dropped. The connection on which they come is one by whose loss
/// others find this scheduler dead, so `reconnected` is notified when there is a new one.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    fleet: Arc<Notify>,
    reconnected: Arc<Notify>,
    inbox: Sender<Event>,
) {
    let health = service.health("subscribing to the ledger's hints");
    let mut backoff = Backoff::new();
    let mut hints = loop {
        match health.note(ledger.events(Topic::Schedulers).await) {
            Ok(hints) => break hints,
            Err(_) => backoff.wait().await,
        }
    };
    reconnected.notify_one();
    // There is no hint about workers that came before the subscription.
    fleet.notify_one();
    loop {
        let event = hints.next().await;
        // To register again also reads which schedulers are left.
        if matches!(event, LedgerEvent::Gap | LedgerEvent::Hint(Hint::Scheduler { .. })) {
            reconnected.notify_one();
        }
        if matches!(event, LedgerEvent::Gap | LedgerEvent::Hint(Hint::Node { .. })) {
            fleet.notify_one();
        }
        let _ = inbox.send(Event::Hint(event)).await;
    }
}

/// Passes on whether the broker can be reached, until it is dropped.
pub(crate) async fn follow_link(broker: Arc<dyn Broker>, inbox: Sender<Event>) {
    let mut link = broker.link();
    loop {
        let up = *link.borrow_and_update() == Link::Up;
        let _ = inbox.send(Event::Link { up }).await;
        if link.changed().await.is_err() {
            // The broker was closed; this scheduler will be stopped too.
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
    async fn the_list_of_workers_is_read_again_after_the_subscription() {
        let fleet = Arc::new(Notify::new());
        let (inbox, _events) = mpsc::channel(1);
        let ledger = (Arc::new(MemoryLedger::default()) as Arc<dyn Ledger>, Service::default());
        let listener = tokio::spawn(run(ledger, fleet.clone(), Arc::default(), inbox));
        let read = tokio::time::timeout(Duration::from_secs(1), fleet.notified());
        read.await.expect("the list is read at once");
        listener.abort();
    }
}
