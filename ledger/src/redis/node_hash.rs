//! Converts what a worker says of itself to the fields of its hash, and back.
//!
//! Deliberately absent: when it is written and read (see `fleet`).

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{LivenessTerms, NodeId, NodeInfo, NodeRecord, NodeState, Timestamp};

use super::reply::corrupt;
use super::summary::Fields;
use super::{connection_watch, millis};
use crate::Error;

/// The connections that a worker or a scheduler registered, from the fields of its hash.
pub(super) fn connections_of(fields: &Fields) -> Option<String> {
    let [connections, server] = ["connections", "connections_server"].map(|name| fields.text(name));
    let registered = connection_watch::join(&connections, &server);
    Some(registered).filter(|registered| !connection_watch::parts(registered).0.is_empty())
}

/// Lists, jobs and labels are JSON, since names may hold any character.
pub(super) fn node_fields(info: &NodeInfo) -> Result<[(&'static str, String); 19], Error> {
    let json = |e: serde_json::Error| corrupt("beat", e.to_string());
    let in_ms = |time: Option<Duration>| time.map(millis).unwrap_or_default().to_string();
    Ok([
        ("host", info.host.clone()),
        ("pid", info.pid.to_string()),
        ("version", info.version.clone()),
        ("queues", serde_json::to_string(&info.queues).map_err(json)?),
        ("tasks", serde_json::to_string(&info.tasks).map_err(json)?),
        ("disabled", serde_json::to_string(&info.disabled).map_err(json)?),
        ("records", serde_json::to_string(&info.records).map_err(json)?),
        ("non_speculative", serde_json::to_string(&info.non_speculative).map_err(json)?),
        ("heartbeat_ms", in_ms(info.terms.heartbeat)),
        ("dead_after_ms", in_ms(info.terms.dead_after)),
        ("exclusive", serde_json::to_string(&info.terms.exclusive).map_err(json)?),
        ("labels", serde_json::to_string(&info.labels).map_err(json)?),
        ("jobs", serde_json::to_string(&info.jobs).map_err(json)?),
        ("slots", info.slots.to_string()),
        ("busy", info.busy.to_string()),
        ("state", info.state.as_str().to_owned()),
        ("started_at", info.started_at.to_string()),
        ("cpu", info.cpu.to_string()),
        ("rss", info.rss.to_string()),
    ])
}

/// What of a node does not change, with what does still to be filled in.
pub(super) fn node_info(
    operation: &'static str,
    name: String,
    fields: &Fields,
) -> Result<NodeInfo, Error> {
    let term = |field| {
        let millis = fields.number(field)?;
        Ok((millis > 0).then(|| Duration::from_millis(millis)))
    };
    Ok(NodeInfo {
        host: fields.text("host"),
        pid: fields.number("pid")?,
        version: fields.text("version"),
        queues: from_json(operation, fields, "queues")?,
        non_speculative: from_json(operation, fields, "non_speculative")?,
        terms: LivenessTerms {
            heartbeat: term("heartbeat_ms")?,
            dead_after: term("dead_after_ms")?,
            exclusive: from_json(operation, fields, "exclusive")?,
        },
        labels: from_json(operation, fields, "labels")?,
        slots: fields.number("slots")?,
        started_at: fields.time("started_at")?.unwrap_or_default(),
        ..NodeInfo::new(NodeId::new(name))
    })
}

/// The record with the fields that a heartbeat may change.
pub(super) fn node_record(
    operation: &'static str,
    mut info: NodeInfo,
    beat_at: Timestamp,
    fields: &Fields,
) -> Result<NodeRecord, Error> {
    let state = fields.text("state");
    let known = NodeState::ALL.into_iter().find(|known| known.as_str() == state);
    info.state = known.ok_or_else(|| corrupt(operation, format!("{} is `{state}`", info.id)))?;
    info.tasks = from_json(operation, fields, "tasks")?;
    info.disabled = from_json(operation, fields, "disabled")?;
    info.records = from_json(operation, fields, "records")?;
    info.jobs = from_json(operation, fields, "jobs")?;
    info.busy = fields.number("busy")?;
    info.cpu = fields.number("cpu")?;
    info.rss = fields.number("rss")?;
    let death = Some(fields.text("death")).filter(|death| !death.is_empty());
    let isolated = from_json(operation, fields, "isolated")?;
    let round_trip = Duration::from_millis(fields.number("round_trip")?);
    let (info, connections) = (Arc::new(info), connections_of(fields));
    Ok(NodeRecord { connections, round_trip, death, isolated, ..NodeRecord::new(info, beat_at) })
}

fn from_json<T: serde::de::DeserializeOwned + Default>(
    operation: &'static str,
    fields: &Fields,
    field: &str,
) -> Result<T, Error> {
    match fields.text(field).as_str() {
        "" => Ok(T::default()),
        text => serde_json::from_str(text).map_err(|e| corrupt(operation, format!("{field}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use longshore_protocol::DisabledTask;

    use super::*;

    #[test]
    fn a_node_reads_back_as_it_was_written() {
        let info = NodeInfo {
            host: "box".into(),
            pid: 7,
            version: "0.1.0".into(),
            queues: vec!["default".into(), "with, comma".into()],
            tasks: vec!["noop".into(), "notify".into()],
            disabled: vec![DisabledTask {
                task: "convert".into(),
                reason: "no program `convert` on this machine".into(),
                since: Timestamp::from_millis(1_700_000_000_500),
            }],
            non_speculative: vec!["notify".into()],
            terms: LivenessTerms {
                heartbeat: Some(Duration::from_secs(10)),
                dead_after: None,
                exclusive: vec!["notify".into()],
            },
            labels: [("gpu".to_owned(), "true".to_owned())].into(),
            slots: 4,
            busy: 1,
            jobs: Some(["00000000-0000-4000-8000-000000000001".parse().expect("an id")].into()),
            state: NodeState::Draining,
            started_at: Timestamp::from_millis(1_700_000_000_000),
            cpu: 0.25,
            rss: 1 << 20,
            ..NodeInfo::new(NodeId::new("box-1"))
        };
        let written = node_fields(&info).expect("serializable");
        let map = written.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let fields = Fields::new("nodes", map);
        let unchanging = node_info("nodes", "box-1".into(), &fields).expect("readable");
        let beat_at = Timestamp::from_millis(9);
        let record = node_record("nodes", unchanging, beat_at, &fields).expect("readable");
        assert_eq!(record, NodeRecord::new(Arc::new(info), beat_at));
    }
}
