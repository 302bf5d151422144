//! Asks many times a second whose heart is severed: a worker or a scheduler that was killed is found within a fraction of a second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Ledger, Process, ProcessConnections};
use longshore_protocol::{JobId, NodeRecord, SchedulerRecord};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::engine::Event;
use crate::health::Service;
use crate::rounds::Rounds;

/// Between two questions, and so much more for each process: ten thousand of them are asked for once a second.
const EVERY: Duration = Duration::from_millis(100);
const EACH: Duration = Duration::from_micros(100);

/// While there is no job: nobody can have died of anything that has to go on elsewhere.
const IDLE: Duration = Duration::from_millis(200);

/// While somebody's is severed: it may be replaced in a moment, or its process is dead.
const CLOSELY: Duration = Duration::from_millis(20);

/// After a question that was refused. Silence tells who is dead in the meantime.
const AGAIN: Duration = Duration::from_secs(1);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    rounds: Rounds,
    nodes: watch::Receiver<Arc<Vec<NodeRecord>>>,
    peers: watch::Receiver<Vec<SchedulerRecord>>,
    active: watch::Receiver<Vec<JobId>>,
    inbox: Sender<Event>,
) {
    let health = service.health("asking whose heart is severed");
    let mut hearts = ledger.connection_watch();
    let mut was_severed = false;
    loop {
        let mut registered: Vec<ProcessConnections> =
            nodes.borrow().iter().map(ProcessConnections::from).collect();
        registered.extend(peers.borrow().iter().map(ProcessConnections::from));
        let pause = match health.note(hearts.disconnected(&registered).await) {
            Ok(severed) => {
                // That nobody's is severed is news only after somebody's was.
                let is_severed = !severed.is_empty();
                if is_severed || was_severed {
                    let _ = inbox.send(event(severed)).await;
                }
                was_severed = is_severed;
                let every = if active.borrow().is_empty() { IDLE } else { EVERY };
                let usual = every + EACH * u32::try_from(registered.len()).unwrap_or(u32::MAX);
                if is_severed { usual.min(CLOSELY) } else { usual }
            }
            Err(_) => AGAIN,
        };
        rounds.rest(pause).await;
    }
}

fn event(severed: Vec<Process>) -> Event {
    let (mut workers, mut schedulers) = (BTreeSet::new(), BTreeSet::new());
    for process in severed {
        match process {
            Process::Worker(id) => drop(workers.insert(id)),
            Process::Scheduler(id) => drop(schedulers.insert(id)),
        }
    }
    Event::Severed { workers, schedulers }
}
