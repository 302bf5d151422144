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
use crate::rounds::Rounds;

/// Between two reads, and so much more for each worker, up to less than half a heartbeat. A silence is noticed up to one of these
/// after it began, and found long enough up to another one later; both, and all that follows, have a second.
const EVERY: Duration = Duration::from_millis(200);
const EACH: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(400);

/// While there is no job, nobody can hold anything.
const IDLE: Duration = LONGEST;

/// So often each one's record is read, whether it has news or not, in case that those got lost with a server.
const WHOLE_EVERY: Duration = Duration::from_secs(30);

/// After a read that failed. Nobody is judged by it, so there is no haste.
const AGAIN: Duration = Duration::from_millis(500);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    rounds: Rounds,
    changed: Arc<Notify>,
    active: watch::Receiver<Vec<JobId>>,
    nodes: watch::Sender<Arc<Vec<NodeRecord>>>,
    inbox: Sender<Event>,
) {
    let health = service.health("reading the list of workers");
    let (mut known, mut read_whole) = (NodeSnapshot::default(), Instant::now());
    loop {
        if read_whole.elapsed() >= WHOLE_EVERY {
            (known, read_whole) = (NodeSnapshot::default(), Instant::now());
        }
        let pause = match health.note(ledger.nodes_since(&known).await) {
            Ok(roster) => {
                known = roster;
                count(&known.nodes);
                let each =
                    EACH.saturating_mul(u32::try_from(known.nodes.len()).unwrap_or(u32::MAX));
                nodes.send_replace(Arc::clone(&known.nodes));
                let _ = inbox.send(Event::Nodes(known.clone())).await;
                if active.borrow().is_empty() { IDLE } else { LONGEST.min(EVERY + each) }
            }
            Err(_) => {
                known = NodeSnapshot::default();
                AGAIN
            }
        };
        rounds.rest_or(pause, &changed).await;
    }
}

fn count(nodes: &[NodeRecord]) {
    for (state, name) in [(NodeState::Active, "active"), (NodeState::Draining, "draining")] {
        let count = nodes.iter().filter(|node| node.info.state == state).count();
        gauge!(NODES, "state" => name).set(count as f64);
    }
}
