//! Prints the list of workers, as a table or as JSON.

use longshore_protocol::JobId;
use longshore_protocol::wire::NodeView;
use longshore_protocol::{DisabledTask, NodeRecord, Timestamp};

use super::Output;
use super::job::seconds;
use super::table::{age, fitted, table};
use crate::failure::Failure;

/// Prints a row for each worker. `now` is the ledger's time.
pub(crate) fn list(
    output: &mut Output,
    nodes: &[NodeRecord],
    now: Timestamp,
    is_wide: bool,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&nodes.iter().map(NodeView::from).collect::<Vec<_>>());
    }
    output.text(&if is_wide { wide(nodes, now) } else { narrow(nodes, now) })?;
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

/// What is needed to see how the workers are, in 80 columns.
fn narrow(nodes: &[NodeRecord], now: Timestamp) -> String {
    let header = ["NODE", "STATE", "BUSY", "SLOTS", "AGE", "BEAT", "QUEUES", "LABELS"];
    let ids: Vec<&str> = nodes.iter().map(|node| node.info.id.as_str()).collect();
    let cells = |node: &NodeRecord| {
        let info = &node.info;
        vec![
            short(info.id.as_str(), &ids).to_owned(),
            info.state.as_str().to_owned(),
            info.busy.to_string(),
            info.slots.to_string(),
            age(now.since(info.started_at)),
            seconds(now.since(node.beat_at)),
            info.queues.join(","),
            labels(node),
        ]
    };
    let rows: Vec<Vec<String>> = nodes.iter().map(cells).collect();
    fitted(&header, &rows, &["QUEUES", "LABELS"])
}

/// Everything, however wide.
fn wide(nodes: &[NodeRecord], now: Timestamp) -> String {
    let header =
        ["NODE", "STATE", "BUSY", "SLOTS", "CPU", "MEMORY", "AGE", "BEAT", "QUEUES", "LABELS"];
    let cells = |node: &NodeRecord| {
        let info = &node.info;
        vec![
            info.id.to_string(),
            info.state.as_str().to_owned(),
            info.busy.to_string(),
            info.slots.to_string(),
            format!("{:.0}%", info.cpu * 100.0),
            format!("{} MiB", info.rss >> 20),
            age(now.since(info.started_at)),
            seconds(now.since(node.beat_at)),
            info.queues.join(","),
            labels(node),
        ]
    };
    table(&header, &nodes.iter().map(cells).collect::<Vec<_>>())
}

fn labels(node: &NodeRecord) -> String {
    let labels = node.info.labels.iter().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

/// The host's name and as much of the UUID behind it as no other worker has, 8 characters at least.
fn short<'a>(id: &'a str, all: &[&str]) -> &'a str {
    const UUID: usize = 36;
    const SHOWN: usize = 8;
    let start = id.len().saturating_sub(UUID);
    if id.get(start..).is_none_or(|uuid| uuid.parse::<JobId>().is_err()) {
        return id;
    }
    let same = |other: &str| id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let others = all.iter().filter(|other| **other != id);
    let length = others.map(|other| same(other) + 1).max().unwrap_or(0);
    let length = length.max(start + SHOWN).min(id.len());
    id.get(..length).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_by_its_host_and_the_beginning_of_its_uuid() {
        let [first, second] = [
            "quay-0197c7a0-8e7e-7cc0-8d3b-3f1c9a0b7d55",
            "quay-0197c7a0-8f00-7cc0-8d3b-3f1c9a0b7d55",
        ];
        assert_eq!(short(first, &[first]), "quay-0197c7a0");
        assert_eq!(short(first, &[first, "quay-1197c7a0", "pier"]), "quay-0197c7a0");
        assert_eq!(short(first, &[first, second]), "quay-0197c7a0-8e");
        assert_eq!(short("box-1", &["box-1", first]), "box-1", "a name without a UUID");
    }
}
