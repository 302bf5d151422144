//! Signs this scheduler in, once a second, and brings the names of its peers and the ledger's time.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Error, Ledger};
use longshore_protocol::{SchedulerId, Timestamp};
use tokio::sync::mpsc::Sender;
use tokio::time::MissedTickBehavior;

use crate::engine::Event;
use crate::health::Health;

const EVERY: Duration = Duration::from_secs(1);

/// A scheduler that has not signed in for so long is gone: its queues fall to others. Three beats,
/// so that one that is late moves nothing.
const WITHIN: Duration = Duration::from_secs(3);

/// An answer that took longer says too little about what time it is now.
const FRESH: Duration = Duration::from_millis(250);

/// Works until it is dropped.
pub(crate) async fn run(ledger: Arc<dyn Ledger>, me: SchedulerId, inbox: Sender<Event>) {
    let health = Health::new("signing in with the ledger");
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok((peers, clock)) = health.note(sign_in(ledger.as_ref(), &me).await) {
            if let Some(clock) = clock {
                let _ = inbox.send(Event::Clock(clock)).await;
            }
            let _ = inbox.send(Event::Peers(peers)).await;
        }
    }
}

async fn sign_in(
    ledger: &dyn Ledger,
    me: &SchedulerId,
) -> Result<(Vec<SchedulerId>, Option<Timestamp>), Error> {
    let peers = ledger.attend(me, WITHIN).await?;
    let asked = tokio::time::Instant::now();
    let told = ledger.now().await?;
    let took = asked.elapsed();
    Ok((peers, (took < FRESH).then(|| told.plus(took / 2))))
}
