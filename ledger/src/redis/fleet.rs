//! Workers and schedulers: signs of life, what to stop, who is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use longshore_protocol::{
    NodeId, NodeInfo, NodeRecord, NodeState, SchedulerId, SchedulerRecord, Timestamp,
};
use redis::{Cmd, cmd};

use super::call::Call;
use super::hearts;
use super::jobs::{take, zadd, zrem};
use super::reply::{Reply, corrupt, word};
use super::summary::Fields;
use super::{RedisLedger, millis};
use crate::{Beat, Error, Event, Held, Stop, StopReason};

/// A worker that was never forgotten by name is forgotten after this silence.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// As long as the function `attend` keeps a silent scheduler's name.
const FORGET_SCHEDULER_AFTER: Duration = Duration::from_hours(1);

/// What may change from one beat to the next, or between two of them.
const TOLD_BY_BEATS: [&str; 10] =
    ["state", "jobs", "busy", "cpu", "rss", "seq", "beat_at", "heart", "heart_server", "death"];

/// A worker tells everything so often, whether it has changed or not: that is what keeps it from being forgotten.
const WHOLE_EVERY: Duration = Duration::from_hours(1);

/// What was told of each node, and when all of it was.
pub(super) type Told = HashMap<NodeId, (Instant, Vec<(&'static str, String)>)>;

impl RedisLedger {
    /// Two round trips: the node's own hash and its place on the list of nodes, then one question a job held and, in a cluster,
    /// the list. A worker that holds nothing is spared the second.
    pub(super) async fn beat_node(
        &self,
        info: &NodeInfo,
        seq: u64,
        held: &[Held],
    ) -> Result<Beat, Error> {
        const OPERATION: &str = "beat";
        let keys = self.keys();
        let (now, news, drain) = self.tell_of_node(info, seq).await?;

        let mut by_job: Vec<(Vec<usize>, Call)> = Vec::new();
        let mut place = HashMap::new();
        for (at, one) in held.iter().enumerate() {
            let slot = *place.entry(one.job).or_insert_with(|| {
                let call = Call::new("held", [keys.job(one.job), keys.chunks(one.job)]);
                by_job.push((Vec::new(), call));
                by_job.len() - 1
            });
            let (positions, call) = &mut by_job[slot];
            positions.push(at);
            call.push(one.chunk.0);
            call.push(one.token.to_string());
        }
        let mut commands: Vec<Cmd> = by_job.iter().map(|(_, call)| call.command()).collect();
        if self.transport().is_cluster() {
            commands.push(zadd(keys.nodes(), None, now, info.id.as_str()));
        }
        if news != "known" {
            commands.push(self.announcement(&info.id)?);
        }
        let answers = self.call_all(OPERATION, &commands).await?;

        let mut verdicts = vec![String::new(); held.len()];
        for ((positions, _), answer) in by_job.iter().zip(answers) {
            let words = Reply::list(OPERATION, answer)?.words()?;
            for (at, word) in positions.iter().zip(words) {
                verdicts[*at] = word;
            }
        }
        let stop = held
            .iter()
            .zip(verdicts)
            .filter_map(|(held, verdict)| {
                let stop = |reason| Some(Ok(Stop { held: held.clone(), reason }));
                match verdict.as_str() {
                    "ok" => None,
                    "ended" => stop(StopReason::Ended),
                    "revoked" => stop(StopReason::Revoked),
                    "paused" => stop(StopReason::Paused),
                    other => Some(Err(corrupt(OPERATION, format!("`{other}`")))),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Beat { stop, drain: drain == "drain" })
    }

    /// Writes what changed since the last time, or everything if that is not there any more.
    async fn tell_of_node(
        &self,
        info: &NodeInfo,
        seq: u64,
    ) -> Result<(u64, String, String), Error> {
        let mut fields = node_fields(info, seq)?.to_vec();
        fields.extend(self.heart_fields());
        let told = self.told().remove(&info.id);
        let mut told = told.filter(|(whole, _)| whole.elapsed() < WHOLE_EVERY);
        loop {
            let extent = if told.is_some() { "changed" } else { "whole" };
            let (whole, known) = told.take().unwrap_or_else(|| (Instant::now(), Vec::new()));
            let list = (!self.transport().is_cluster()).then(|| self.keys().nodes());
            let keys = [self.keys().node(&info.id)].into_iter().chain(list);
            let mut call =
                Call::new("beat", keys).arg(millis(FORGET_AFTER)).arg(info.id.as_str()).arg(extent);
            for (field, value) in fields.iter().filter(|field| !known.contains(field)) {
                call.push(field);
                call.push(value);
            }
            let mut reply = self.call(&call).await?;
            let (now, news, drain) = (reply.parse()?, reply.word()?, reply.word()?);
            if news != "missing" {
                self.told().insert(info.id.clone(), (whole, fields));
                return Ok((now, news, drain));
            }
        }
    }

    /// Two round trips: the list, which has the time of each one's last beat, then the hashes of those that have beaten since they
    /// were `known`; of these only what a beat may change.
    pub(super) async fn read_nodes(&self, known: &[NodeRecord]) -> Result<Vec<NodeRecord>, Error> {
        const OPERATION: &str = "nodes";
        let keys = self.keys();
        let known: HashMap<&str, &NodeRecord> =
            known.iter().map(|record| (record.info.id.as_str(), record)).collect();
        let mut list = cmd("ZRANGE");
        list.arg(keys.nodes()).arg(0).arg(-1).arg("WITHSCORES");
        let (mut records, mut asked, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        for (name, beat_at) in fields(OPERATION, self.send(OPERATION, &list).await?)? {
            let known = known.get(name.as_str()).copied();
            match known {
                Some(record) if beat_at.parse() == Ok(record.beat_at.as_millis()) => {
                    records.push(record.clone());
                    continue;
                }
                Some(_) => looks.push(look_at(&keys.node(&NodeId::new(&name)), &TOLD_BY_BEATS)),
                None => looks.push(look_at(&keys.node(&NodeId::new(&name)), &[])),
            }
            asked.push((name, known));
        }
        let answers = self.call_all(OPERATION, &looks).await?;
        let mut vanished = Vec::new();
        for ((name, known), answer) in asked.into_iter().zip(answers) {
            let fields = match known {
                None => fields(OPERATION, answer)?,
                Some(_) => values(OPERATION, &TOLD_BY_BEATS, answer)?,
            };
            if fields.is_empty() {
                vanished.push(zrem(keys.nodes(), &name));
                continue;
            }
            let fields = Fields::new(OPERATION, fields);
            records.push(match known {
                None => node_record(OPERATION, name, &fields)?,
                Some(known) => renewed(OPERATION, known.clone(), &fields)?,
            });
        }
        self.call_all(OPERATION, &vanished).await?;
        records.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        Ok(records)
    }

    pub(super) async fn drain_node(&self, node: &NodeId) -> Result<bool, Error> {
        const OPERATION: &str = "drain";
        let call = Call::new(OPERATION, [self.keys().node(node)]);
        if self.call(&call).await?.word()? != "asked" {
            return Ok(false);
        }
        self.send(OPERATION, &self.announcement(node)?).await?;
        Ok(true)
    }

    pub(super) async fn certify_death(&self, node: &NodeId, death: &str) -> Result<bool, Error> {
        const OPERATION: &str = "certify";
        let call = Call::new(OPERATION, [self.keys().node(node)]).arg(death);
        if self.call(&call).await?.word()? != "certified" {
            return Ok(false);
        }
        self.send(OPERATION, &self.announcement(node)?).await?;
        Ok(true)
    }

    pub(super) async fn forget_node(&self, node: &NodeId) -> Result<(), Error> {
        const OPERATION: &str = "forget";
        self.told().remove(node);
        let mut delete = cmd("DEL");
        delete.arg(self.keys().node(node));
        let commands = [delete, zrem(self.keys().nodes(), node.as_str()), self.announcement(node)?];
        self.call_all(OPERATION, &commands).await.map(drop)
    }

    /// What a sign of life registers of the heart.
    fn heart_fields(&self) -> [(&'static str, String); 2] {
        let heart = self.heart().clone().unwrap_or_default();
        let (connection, server) = hearts::parts(&heart);
        [("heart", connection.to_owned()), ("heart_server", server.to_owned())]
    }

    fn announcement(&self, node: &NodeId) -> Result<Cmd, Error> {
        let event = serde_json::to_string(&Event::Node { node: node.clone() })
            .map_err(|e| corrupt("events", e.to_string()))?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.keys().events()).arg(event);
        Ok(publish)
    }

    pub(super) async fn attend_as(
        &self,
        scheduler: &SchedulerId,
        within: Duration,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        const OPERATION: &str = "attend";
        let (keys, own) = (self.keys(), self.keys().scheduler(scheduler));
        let call =
            Call::new(OPERATION, [keys.schedulers()]).arg(scheduler.as_str()).arg(millis(within));
        let mut register = cmd("HSET");
        register.arg(&own);
        for (field, value) in self.heart_fields() {
            register.arg(field).arg(value);
        }
        let mut expire = cmd("PEXPIRE");
        expire.arg(own).arg(millis(FORGET_SCHEDULER_AFTER));
        let mut times = cmd("ZRANGE");
        times.arg(keys.schedulers()).arg(0).arg(-1).arg("WITHSCORES");
        let commands = [register, expire, call.command(), times];
        let answers = self.call_all(OPERATION, &commands).await?;
        let [_, _, present, times] = take(OPERATION, answers)?;
        let mut present = Reply::list(OPERATION, present)?.words()?;
        let times = fields(OPERATION, times)?;
        present.sort();
        let looks: Vec<Cmd> = present
            .iter()
            .map(|name| {
                let mut look = cmd("HGETALL");
                look.arg(keys.scheduler(&SchedulerId::new(name)));
                look
            })
            .collect();
        let hearts = self.call_all(OPERATION, &looks).await?;
        let record = |(name, answer): (String, redis::Value)| {
            // Of somebody who left in between there is no time any more.
            let beat_at = times.get(&name).map_or(Ok(0), |at| at.parse());
            let beat_at = beat_at.map_err(|_| corrupt(OPERATION, format!("time of {name}")))?;
            let heart = heart(&Fields::new(OPERATION, fields(OPERATION, answer)?));
            let beat_at = Timestamp::from_millis(beat_at);
            Ok(SchedulerRecord { id: SchedulerId::new(name), beat_at, heart })
        };
        present.into_iter().zip(hearts).map(record).collect()
    }

    pub(super) async fn withdraw_as(&self, scheduler: &SchedulerId) -> Result<(), Error> {
        let mut delete = cmd("DEL");
        delete.arg(self.keys().scheduler(scheduler));
        let leave = [delete, zrem(self.keys().schedulers(), scheduler.as_str())];
        self.call_all("withdraw", &leave).await.map(drop)
    }
}

/// The heart of a worker or a scheduler, from the fields of its hash.
fn heart(fields: &Fields) -> Option<String> {
    let heart = hearts::join(&fields.text("heart"), &fields.text("heart_server"));
    Some(heart).filter(|heart| !hearts::parts(heart).0.is_empty())
}

/// These fields of a hash; all if none are named.
fn look_at(key: &str, names: &[&str]) -> Cmd {
    let mut look = cmd(if names.is_empty() { "HGETALL" } else { "HMGET" });
    look.arg(key).arg(names);
    look
}

/// What `HMGET` answers, without the fields that are not there.
fn values(
    operation: &'static str,
    names: &[&str],
    answer: redis::Value,
) -> Result<HashMap<String, String>, Error> {
    let mut reply = Reply::list(operation, answer)?;
    let mut fields = HashMap::new();
    for name in names {
        match reply.next()? {
            redis::Value::Nil => {}
            value => drop(fields.insert((*name).to_owned(), word(operation, value)?)),
        }
    }
    Ok(fields)
}

/// `HGETALL` answers with a list under RESP2 and with a map under RESP3.
pub(super) fn fields(
    operation: &'static str,
    answer: redis::Value,
) -> Result<HashMap<String, String>, Error> {
    let list = match answer {
        redis::Value::Map(pairs) => {
            redis::Value::Array(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect())
        }
        other => other,
    };
    Reply::list(operation, list)?.fields()
}

/// Lists, jobs and labels are JSON, since names may hold any character.
fn node_fields(info: &NodeInfo, seq: u64) -> Result<[(&'static str, String); 15], Error> {
    let json = |e: serde_json::Error| corrupt("beat", e.to_string());
    let state = match info.state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
    };
    Ok([
        ("host", info.host.clone()),
        ("pid", info.pid.to_string()),
        ("version", info.version.clone()),
        ("queues", serde_json::to_string(&info.queues).map_err(json)?),
        ("tasks", serde_json::to_string(&info.tasks).map_err(json)?),
        ("uncopied", serde_json::to_string(&info.uncopied).map_err(json)?),
        ("labels", serde_json::to_string(&info.labels).map_err(json)?),
        ("jobs", serde_json::to_string(&info.jobs).map_err(json)?),
        ("slots", info.slots.to_string()),
        ("busy", info.busy.to_string()),
        ("state", state.to_owned()),
        ("started_at", info.started_at.to_string()),
        ("cpu", info.cpu.to_string()),
        ("rss", info.rss.to_string()),
        ("seq", seq.to_string()),
    ])
}

pub(super) fn node_record(
    operation: &'static str,
    name: String,
    fields: &Fields,
) -> Result<NodeRecord, Error> {
    let info = NodeInfo {
        id: NodeId::new(name),
        host: fields.text("host"),
        pid: fields.number("pid")?,
        version: fields.text("version"),
        queues: from_json(operation, fields, "queues")?,
        tasks: from_json(operation, fields, "tasks")?,
        uncopied: from_json(operation, fields, "uncopied")?,
        labels: from_json(operation, fields, "labels")?,
        slots: fields.number("slots")?,
        busy: 0,
        jobs: None,
        state: NodeState::Active,
        started_at: fields.time("started_at")?.unwrap_or_default(),
        cpu: 0.0,
        rss: 0,
    };
    let (seq, beat_at) = (0, Timestamp::default());
    renewed(operation, NodeRecord { info, seq, beat_at, heart: None, death: None }, fields)
}

/// The record with what a beat may change, of which [`TOLD_BY_BEATS`] has the names.
fn renewed(
    operation: &'static str,
    mut record: NodeRecord,
    fields: &Fields,
) -> Result<NodeRecord, Error> {
    record.info.state = match fields.text("state").as_str() {
        "active" => NodeState::Active,
        "draining" => NodeState::Draining,
        other => return Err(corrupt(operation, format!("{} is `{other}`", record.info.id))),
    };
    record.info.jobs = from_json(operation, fields, "jobs")?;
    record.info.busy = fields.number("busy")?;
    record.info.cpu = fields.number("cpu")?;
    record.info.rss = fields.number("rss")?;
    record.seq = fields.number("seq")?;
    record.beat_at = fields.time("beat_at")?.unwrap_or_default();
    record.heart = heart(fields);
    record.death = Some(fields.text("death")).filter(|death| !death.is_empty());
    Ok(record)
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
    use super::*;

    #[test]
    fn a_node_reads_back_as_it_was_written() {
        let info = NodeInfo {
            id: NodeId::new("box-1"),
            host: "box".into(),
            pid: 7,
            version: "0.1.0".into(),
            queues: vec!["default".into(), "with, comma".into()],
            tasks: vec!["noop".into(), "notify".into()],
            uncopied: vec!["notify".into()],
            labels: [("gpu".to_owned(), "true".to_owned())].into(),
            slots: 4,
            busy: 1,
            jobs: Some(["00000000-0000-4000-8000-000000000001".parse().expect("an id")].into()),
            state: NodeState::Draining,
            started_at: Timestamp::from_millis(1_700_000_000_000),
            cpu: 0.25,
            rss: 1 << 20,
        };
        let written = node_fields(&info, 9).expect("serializable");
        let map = written.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let fields = Fields::new("nodes", map);
        let record = node_record("nodes", "box-1".into(), &fields).expect("readable");
        assert_eq!(record.info, info);
        assert_eq!((record.seq, record.heart), (9, None));
    }
}
