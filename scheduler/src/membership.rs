//! Registers this scheduler twice a second, and reads the other schedulers and the ledger's time.
//!
//! It also registers whenever it has reconnected.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Error, Ledger, RegisterSchedulerParams};
use longshore_protocol::{SchedulerId, SchedulerRecord, Timestamp};
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::engine::Event;
use crate::health::Service;
use crate::tick_aligner::TickAligner;

/// The time within which all others know a new scheduler, and know again that one is alive which
/// was taken for dead.
const EVERY: Duration = Duration::from_millis(500);

/// A scheduler that has not registered for this long is gone: others take over its queues. Several
/// times `EVERY`, so that some late registrations move no queue. One that was killed is found
/// sooner (see `connection_watch`); this is for those that froze or were cut off.
const WITHIN: Duration = Duration::from_secs(3);

/// An answer that took longer says too little about what time it is now.
const FRESH: Duration = Duration::from_millis(250);

/// Works until it is dropped. `reconnected` says that this scheduler has new connections.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    ticks: TickAligner,
    me: SchedulerId,
    reconnected: Arc<Notify>,
    peers: watch::Sender<Vec<SchedulerRecord>>,
    inbox: Sender<Event>,
) {
    let health = service.health("registering with the ledger");
    loop {
        if let Ok((registered, clock)) = health.note(register(ledger.as_ref(), &me).await) {
            if let Some(clock) = clock {
                let _ = inbox.send(Event::Clock(clock)).await;
            }
            let before = peers.send_replace(registered.clone());
            log_silent(ledger.as_ref(), &before, &registered).await;
            let _ = inbox.send(Event::Peers(registered)).await;
        }
        ticks.sleep_or(EVERY, &reconnected).await;
    }
}

/// Logs once each scheduler that has not registered for [`WITHIN`] and has not deregistered: it is
/// frozen or cut off.
async fn log_silent(ledger: &dyn Ledger, before: &[SchedulerRecord], now: &[SchedulerRecord]) {
    let is_in =
        |list: &[SchedulerRecord], id: &SchedulerId| list.iter().any(|record| record.id == *id);
    if before.iter().all(|record| is_in(now, &record.id)) {
        return;
    }
    let listed = ledger.schedulers().await.unwrap_or_default();
    for SchedulerRecord { id, .. } in before.iter().filter(|record| !is_in(now, &record.id)) {
        if is_in(&listed, id) {
            let what = "scheduler silent; other schedulers feed its queues";
            warn!(scheduler = %id, silent_for = ?WITHIN, "{what}");
        }
    }
}

async fn register(
    ledger: &dyn Ledger,
    me: &SchedulerId,
) -> Result<(Vec<SchedulerRecord>, Option<Timestamp>), Error> {
    let peers =
        ledger.register_scheduler(&RegisterSchedulerParams::new(me.clone(), WITHIN)).await?;
    let asked = tokio::time::Instant::now();
    let answer = ledger.now().await?;
    let took = asked.elapsed();
    Ok((peers, (took < FRESH).then(|| answer.plus(took / 2))))
}
