//! Reads the list of active jobs once a second, so that each job is found though hints get lost.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::Ledger;
use longshore_protocol::JobId;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::engine::Event;
use crate::health::Service;
use crate::tick_aligner::TickAligner;

const EVERY: Duration = Duration::from_secs(1);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    ticks: TickAligner,
    active: watch::Sender<Vec<JobId>>,
    inbox: Sender<Event>,
) {
    let health = service.health("reading the list of jobs");
    loop {
        if let Ok(jobs) = health.note(ledger.active_jobs().await) {
            active.send_replace(jobs.clone());
            let _ = inbox.send(Event::ActiveJobs(jobs)).await;
        }
        ticks.sleep(EVERY).await;
    }
}
