//! Asks the ledger several times a second which processes have lost all their connections.
//!
//! So a worker or a scheduler that was killed is found within a fraction of a second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{Ledger, Process, ProcessConnections};
use longshore_protocol::{JobId, NodeRecord, SchedulerRecord};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::engine::Event;
use crate::health::Service;
use crate::tick_aligner::TickAligner;

/// The pause between two checks: `EVERY`, and `EACH` for each process. Ten thousand of them are
/// checked about once a second.
const EVERY: Duration = Duration::from_millis(100);
const EACH: Duration = Duration::from_micros(100);

/// In place of `EVERY` while there is no job, so that no death leaves work undone.
const IDLE: Duration = Duration::from_millis(200);

/// The longest pause while the connections of a process are gone: the process may replace them in a
/// moment, or be dead.
const WHILE_LOST: Duration = Duration::from_millis(20);

/// The pause after a check that failed. Meanwhile silence shows which processes are dead.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Works until it is dropped.
pub(crate) async fn run(
    (ledger, service): (Arc<dyn Ledger>, Service),
    ticks: TickAligner,
    nodes: watch::Receiver<Arc<Vec<NodeRecord>>>,
    peers: watch::Receiver<Vec<SchedulerRecord>>,
    active: watch::Receiver<Vec<JobId>>,
    inbox: Sender<Event>,
) {
    let health = service.health("checking the connections of workers and schedulers");
    let mut watch = ledger.connection_watch();
    let mut had_lost = false;
    loop {
        let mut registered: Vec<ProcessConnections> =
            nodes.borrow().iter().map(ProcessConnections::from).collect();
        registered.extend(peers.borrow().iter().map(ProcessConnections::from));
        let pause = match health.note(watch.disconnected(&registered).await) {
            Ok(lost) => {
                // The engine has to know that all connections are there only after some were gone.
                let has_lost = !lost.is_empty();
                if has_lost || had_lost {
                    let _ = inbox.send(event(lost)).await;
                }
                had_lost = has_lost;
                let every = if active.borrow().is_empty() { IDLE } else { EVERY };
                let pause = every + EACH * u32::try_from(registered.len()).unwrap_or(u32::MAX);
                if has_lost { pause.min(WHILE_LOST) } else { pause }
            }
            Err(_) => AFTER_FAILURE,
        };
        ticks.sleep(pause).await;
    }
}

fn event(lost: Vec<Process>) -> Event {
    let (mut workers, mut schedulers) = (BTreeSet::new(), BTreeSet::new());
    for process in lost {
        match process {
            Process::Worker(id) => drop(workers.insert(id)),
            Process::Scheduler(id) => drop(schedulers.insert(id)),
        }
    }
    Event::ConnectionsLost { workers, schedulers }
}
