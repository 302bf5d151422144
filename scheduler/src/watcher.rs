//! Reads the list of workers several times a second, and at once when a hint says that it changed.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Ledger, NodeSnapshot};
use longshore_protocol::{JobId, NodeRecord, NodeState};
use metrics::gauge;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::Event;
use crate::health::Service;
use crate::metrics::NODES;
use crate::tick_aligner::TickAligner;

/// The pause between two reads: `EVERY`, and `EACH` for each worker, but at most `LONGEST`, which
/// is less than half of the usual time between heartbeats. A silence is noticed up to one pause
/// after it began, and found to be too long up to another pause later; both, and all that follows,
/// may take a second together.
const EVERY: Duration = Duration::from_millis(200);
const EACH: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(400);

/// The pause while there is no job, so that no worker can hold a chunk.
const IDLE: Duration = LONGEST;

/// After this time the records of all workers are read, not only those that changed, in case that
/// changes got lost with a server.
const ALL_EVERY: Duration = Duration::from_secs(30);

/// The pause after a read that failed. No worker is judged by it, so it can be long.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    ticks: TickAligner,
    changed: Arc<Notify>,
    active: watch::Receiver<Vec<JobId>>,
    nodes: watch::Sender<Arc<Vec<NodeRecord>>>,
    inbox: Sender<Event>,
) {
    let health = service.health("reading the list of workers");
    let (mut known, mut read_all_at) = (NodeSnapshot::default(), Instant::now());
    loop {
        if read_all_at.elapsed() >= ALL_EVERY {
            (known, read_all_at) = (NodeSnapshot::default(), Instant::now());
        }
        let pause = match health.note(ledger.nodes_since(&known).await) {
            Ok(snapshot) => {
                known = snapshot;
                count(&known.nodes);
                let each =
                    EACH.saturating_mul(u32::try_from(known.nodes.len()).unwrap_or(u32::MAX));
                nodes.send_replace(Arc::clone(&known.nodes));
                let _ = inbox.send(Event::Nodes(known.clone())).await;
                if active.borrow().is_empty() { IDLE } else { LONGEST.min(EVERY + each) }
            }
            Err(_) => {
                known = NodeSnapshot::default();
                AFTER_FAILURE
            }
        };
        ticks.sleep_or(pause, &changed).await;
    }
}

fn count(nodes: &[NodeRecord]) {
    for state in NodeState::ALL {
        let count = nodes.iter().filter(|node| node.info.state == state).count();
        gauge!(NODES, "state" => state.as_str()).set(count as f64);
    }
}
