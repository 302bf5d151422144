//! Prints the list of workers, as a table or as JSON.

use longshore_protocol::wire::NodeView;
use longshore_protocol::{DisabledTask, NodeRecord, NodeState, Timestamp};

use super::Output;
use super::job::seconds;
use super::table::table;
use crate::failure::Failure;

/// Prints a row for each worker. `now` is the ledger's time.
pub(crate) fn list(
    output: &mut Output,
    nodes: &[NodeRecord],
    now: Timestamp,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&nodes.iter().map(NodeView::from).collect::<Vec<_>>());
    }
    let header = ["NODE", "STATE", "BUSY", "SLOTS", "CPU", "MEMORY", "BEAT", "QUEUES", "LABELS"];
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let info = &node.info;
            let labels = info.labels.iter().map(|(name, value)| format!("{name}={value}"));
            vec![
                info.id.to_string(),
                match info.state {
                    NodeState::Active => "active".to_owned(),
                    NodeState::Draining => "draining".to_owned(),
                },
                info.busy.to_string(),
                info.slots.to_string(),
                format!("{:.0}%", info.cpu * 100.0),
                format!("{} MiB", info.rss >> 20),
                format!("{} ago", seconds(now.since(node.beat_at))),
                info.queues.join(","),
                labels.collect::<Vec<_>>().join(","),
            ]
        })
        .collect();
    output.text(&table(&header, &rows))?;
    for node in nodes {
        for DisabledTask { task, reason, .. } in &node.info.disabled {
            output.line(format_args!("{} does not run task `{task}`: {reason}", node.info.id))?;
        }
        for isolation in &node.isolated {
            let again = match isolation.until.since(now) {
                wait if wait.is_zero() => "it is tried again now and then".to_owned(),
                wait => format!("it is tried again in {}", seconds(wait)),
            };
            let (id, task, evidence) = (&node.info.id, &isolation.task, isolation.evidence());
            output.line(format_args!(
                "{id} is out of rotation for task `{task}`: {evidence}; {again}"
            ))?;
        }
    }
    Ok(())
}
