//! Signs this scheduler in, twice a second and whenever its heart is a new one, and brings the records of its peers and the
//! ledger's time.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Error, Ledger, RegisterSchedulerParams};
use longshore_protocol::{SchedulerId, SchedulerRecord, Timestamp};
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::engine::Event;
use crate::health::Service;
use crate::rounds::Rounds;

/// So soon a new scheduler is known to all, and one that was taken for dead is known to live.
const EVERY: Duration = Duration::from_millis(500);

/// A scheduler that has not signed in for so long is gone: its queues fall to others. Several beats, so that some that are late
/// move nothing. Who was killed is found out sooner (see `hearts`); this is for those that froze or were cut off.
const WITHIN: Duration = Duration::from_secs(3);

/// An answer that took longer says too little about what time it is now.
const FRESH: Duration = Duration::from_millis(250);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    rounds: Rounds,
    me: SchedulerId,
    heart_changed: Arc<Notify>,
    peers: watch::Sender<Vec<SchedulerRecord>>,
    inbox: Sender<Event>,
) {
    let health = service.health("signing in with the ledger");
    loop {
        if let Ok((signed_in, clock)) = health.note(sign_in(ledger.as_ref(), &me).await) {
            if let Some(clock) = clock {
                let _ = inbox.send(Event::Clock(clock)).await;
            }
            let before = peers.send_replace(signed_in.clone());
            tell_silent(ledger.as_ref(), &before, &signed_in).await;
            let _ = inbox.send(Event::Peers(signed_in)).await;
        }
        rounds.rest_or(EVERY, &heart_changed).await;
    }
}

/// Tells once of each peer that has not signed in for [`WITHIN`] and has not withdrawn: it is frozen or cut off.
async fn tell_silent(ledger: &dyn Ledger, before: &[SchedulerRecord], now: &[SchedulerRecord]) {
    let is_in =
        |list: &[SchedulerRecord], id: &SchedulerId| list.iter().any(|record| record.id == *id);
    if before.iter().all(|record| is_in(now, &record.id)) {
        return;
    }
    let listed = ledger.schedulers().await.unwrap_or_default();
    for SchedulerRecord { id, .. } in before.iter().filter(|record| !is_in(now, &record.id)) {
        if is_in(&listed, id) {
            warn!(scheduler = %id, silent_for = ?WITHIN, "scheduler silent; other schedulers feed its queues");
        }
    }
}

async fn sign_in(
    ledger: &dyn Ledger,
    me: &SchedulerId,
) -> Result<(Vec<SchedulerRecord>, Option<Timestamp>), Error> {
    let peers =
        ledger.register_scheduler(&RegisterSchedulerParams::new(me.clone(), WITHIN)).await?;
    let asked = tokio::time::Instant::now();
    let told = ledger.now().await?;
    let took = asked.elapsed();
    Ok((peers, (took < FRESH).then(|| told.plus(took / 2))))
}
