//! Heartbeats and lists of workers and schedulers, drains, isolations and records of crashes.
//!
//! A heartbeat writes only the fields of a worker that have changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_protocol::{
    Hint, NodeId, NodeInfo, NodeRecord, SchedulerId, SchedulerRecord, Timestamp,
};
use redis::{Cmd, cmd};

use super::call::Call;
use super::connection_watch;
use super::jobs::{publish, take, zadd, zrem};
use super::node_hash::{connections_of, node_fields, node_info, node_record};
use super::reply::{Reply, corrupt, word};
use super::summary::Fields;
use super::{RedisLedger, millis};
use crate::{
    Beat, BeatParams, Error, IsolateParams, NodeSnapshot, RecordCrashParams,
    RegisterSchedulerParams, Stop, StopReason, Topic,
};

/// The hash of a worker that was never removed expires this long after its last heartbeat.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// The hash of a scheduler expires after this time, as the function `register_scheduler` drops its
/// name.
const FORGET_SCHEDULER_AFTER: Duration = Duration::from_hours(1);

/// The fields of a worker that may change with a heartbeat, or between two of them.
const CHANGED_BY_BEATS: [&str; 13] = [
    "state",
    "jobs",
    "busy",
    "cpu",
    "rss",
    "connections",
    "connections_server",
    "round_trip",
    "death",
    "tasks",
    "disabled",
    "records",
    "isolated",
];

/// The fields that change with nearly every heartbeat, and on which no scheduler has to act.
const GAUGES: [&str; 2] = ["cpu", "rss"];

/// How often a worker writes all of its fields, changed or not, so that its hash does not expire.
const WHOLE_EVERY: Duration = Duration::from_hours(1);

/// How often a heartbeat reads the ledger's time. In between, the local clock measures the time
/// since then, to a millisecond.
const ASK_TIME_EVERY: Duration = Duration::from_secs(10);

/// The last heartbeat of a worker that this process sent.
pub(super) struct LastBeat {
    /// When all fields were written last.
    whole: Instant,
    /// The fields as they were written.
    fields: Vec<(&'static str, String)>,
    /// The ledger's time as the function returned it last, ms, and when it did.
    time: (u64, Instant),
}

impl LastBeat {
    /// Whether the ledger still has these fields, when the next heartbeat is to write `fields`. If
    /// the connection is a new one, the server may have been replaced by one that lost data.
    fn is_there(&self, fields: &[(&'static str, String)]) -> bool {
        let is_connection = |field: &&(&'static str, String)| field.0.starts_with("connections");
        let same_connections =
            fields.iter().filter(is_connection).all(|field| self.fields.contains(field));
        same_connections && self.whole.elapsed() < WHOLE_EVERY
    }

    /// The ledger's time now, ms; `None` if it was not read recently.
    fn now(&self) -> Option<u64> {
        let (then, heard) = self.time;
        let since = heard.elapsed();
        (since < ASK_TIME_EVERY).then(|| then + millis(since))
    }
}

/// The answer to a heartbeat.
struct Answer {
    now: u64,
    /// Whether a field changed that others read.
    has_changed: bool,
    /// Whether schedulers should read the change at once.
    is_event: bool,
    drain: bool,
}

impl RedisLedger {
    /// Takes two round trips: the worker's own hash and its entries in the lists of workers; then
    /// one call for each job of which it holds chunks and, in a cluster, the lists. Without held
    /// chunks the second one is skipped.
    pub(super) async fn beat_node(&self, params: &BeatParams) -> Result<Beat, Error> {
        const OPERATION: &str = "beat";
        let BeatParams { info, held } = params;
        let keys = self.keys();
        let answer = tokio::join!(self.write_node(info), self.keep_time(OPERATION)).0?;

        let mut by_job: Vec<(Vec<usize>, Call)> = Vec::new();
        let mut place = HashMap::new();
        for (at, one) in held.iter().enumerate() {
            let slot = *place.entry(one.job).or_insert_with(|| {
                let call = Call::new("check_held", [keys.job(one.job), keys.chunks(one.job)]);
                by_job.push((Vec::new(), call));
                by_job.len() - 1
            });
            let (positions, call) = &mut by_job[slot];
            positions.push(at);
            call.push(one.chunk.0);
            call.push(one.token.to_string());
        }
        let stamp = self.stamp().await;
        let mut commands: Vec<Cmd> = by_job.iter().map(|(_, call)| call.command(&stamp)).collect();
        if self.transport().is_cluster() {
            // A worker that is listed counts as alive whatever the verdict, so the list comes
            // first.
            commands.push(zadd(keys.nodes(), None, answer.now, info.id.as_str()));
            commands.extend(answer.has_changed.then(|| self.record_change(&info.id)));
            let mut back = cmd("DEL");
            back.arg(keys.lost_node(&info.id));
            commands.push(back);
        }
        if answer.is_event {
            commands.extend(self.announcements(&info.id, &[Topic::Schedulers])?);
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
        Ok(Beat { stop, drain: answer.drain })
    }

    /// Writes the fields that changed since the last heartbeat, or all of them if the ledger has
    /// lost those, or may have.
    async fn write_node(&self, info: &NodeInfo) -> Result<Answer, Error> {
        let mut fields = node_fields(info)?.to_vec();
        fields.extend(self.connection_fields().await);
        let last = self.last_beats().remove(&info.id);
        let mut last = last.filter(|last| last.is_there(&fields));
        if let Some(same) = last.take_if(|last| last.fields == fields) {
            if let Some(answer) = self.unchanged_beat(info, &same).await? {
                self.last_beats().insert(info.id.clone(), same);
                return Ok(answer);
            }
            last = Some(same);
        }
        loop {
            let (whole, known) = match last.take() {
                Some(LastBeat { whole, fields, .. }) => (Some(whole), fields),
                None => (None, Vec::new()),
            };
            let changed: Vec<_> = fields.iter().filter(|field| !known.contains(field)).collect();
            let extent = match whole {
                None => "whole",
                Some(_) if changed.iter().all(|(field, _)| GAUGES.contains(field)) => "quiet",
                Some(_) => "changes",
            };
            let keys = self.keys();
            let here = !self.transport().is_cluster();
            let lists = here.then(|| [keys.nodes(), keys.node_changes(), keys.lost_node(&info.id)]);
            let touched = [keys.node(&info.id)].into_iter().chain(lists.into_iter().flatten());
            let mut call = Call::new("beat", touched)
                .arg(millis(FORGET_AFTER))
                .arg(info.id.as_str())
                .arg(extent);
            for (field, value) in changed {
                call.push(field);
                call.push(value);
            }
            let asked = Instant::now();
            let mut reply = self.call(&call).await?;
            self.round_trips().note(asked.elapsed());
            let (now, what, drain) = (reply.parse()?, reply.word()?, reply.word()?);
            if what != "missing" {
                let heard = Instant::now();
                let last = LastBeat { whole: whole.unwrap_or(heard), fields, time: (now, heard) };
                self.last_beats().insert(info.id.clone(), last);
                let (has_changed, is_event) = (extent != "quiet", what != "known");
                return Ok(Answer { now, has_changed, is_event, drain: drain == "drain" });
            }
        }
    }

    /// The heartbeat of a worker whose fields are unchanged: two plain commands cost Redis half as
    /// much as the function. `None` if the ledger does not have the worker as it was written last,
    /// or if the ledger's time is not known.
    async fn unchanged_beat(
        &self,
        info: &NodeInfo,
        last: &LastBeat,
    ) -> Result<Option<Answer>, Error> {
        const OPERATION: &str = "beat";
        const ASKED: [&str; 2] = ["state", "drain"];
        let Some(now) = last.now().filter(|_| !self.transport().is_cluster()) else {
            return Ok(None);
        };
        let keys = self.keys();
        let mut renew = cmd("ZADD");
        // Returns 1 if the worker is listed and its time moves on.
        renew.arg(keys.nodes()).arg(&["XX", "GT", "CH"]).arg(now).arg(info.id.as_str());
        let look = look_at(&keys.node(&info.id), &ASKED);
        let commands = [renew, look];
        let asked = Instant::now();
        let answers = self.call_all(OPERATION, &commands).await?;
        self.round_trips().note(asked.elapsed());
        let [moved, found] = take(OPERATION, answers)?;
        let found = values(OPERATION, &ASKED, found)?;
        let is_there = found.contains_key("state") && word(OPERATION, moved)? == "1";
        let drain = found.contains_key("drain");
        Ok(is_there.then_some(Answer { now, has_changed: false, is_event: false, drain }))
    }

    /// Takes two round trips: the list with the times of the last heartbeats, and the changes since
    /// the snapshot; then the fields that changed.
    pub(super) async fn read_nodes(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        const OPERATION: &str = "nodes";
        let keys = self.keys();
        let mut changes = cmd("ZRANGEBYSCORE");
        changes
            .arg(keys.node_changes())
            .arg(format!("({}", known.revision))
            .arg("+inf")
            .arg("WITHSCORES");
        let mut list = cmd("ZRANGE");
        list.arg(keys.nodes()).arg(0).arg(-1).arg("WITHSCORES");
        // A worker that is listed between the two commands is unknown, and is read as a whole.
        let [changes, list] = take(OPERATION, self.call_all(OPERATION, &[changes, list]).await?)?;
        let changes: HashMap<String, u64> = scores(OPERATION, changes)?.into_iter().collect();
        let revision = changes.values().copied().max().unwrap_or(known.revision);

        let known_lost = Arc::clone(&known.lost);
        let known: HashMap<&str, &NodeRecord> =
            known.nodes.iter().map(|record| (record.info.id.as_str(), record)).collect();
        let (mut nodes, mut asked, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        let list = scores(OPERATION, list)?;
        let listed: HashSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        for (name, beat_at) in &list {
            let (name, beat_at) = (name.clone(), Timestamp::from_millis(*beat_at));
            let known = known.get(name.as_str()).copied();
            if let Some(record) = known.filter(|_| !changes.contains_key(&name)) {
                nodes.push(NodeRecord { beat_at, ..record.clone() });
                continue;
            }
            let names: &[&str] = if known.is_some() { &CHANGED_BY_BEATS } else { &[] };
            looks.push(look_at(&keys.node(&NodeId::new(&name)), names));
            asked.push((name, beat_at, known));
        }
        let lost = self.read_lost(&known_lost, &changes, |name| listed.contains(name)).await?;
        let answers = self.call_all(OPERATION, &looks).await?;
        let mut vanished = Vec::new();
        for ((name, beat_at, known), answer) in asked.into_iter().zip(answers) {
            let fields = match known {
                None => fields(OPERATION, answer)?,
                Some(_) => values(OPERATION, &CHANGED_BY_BEATS, answer)?,
            };
            if fields.is_empty() {
                vanished.extend(self.unlist(&name));
                continue;
            }
            let fields = Fields::new(OPERATION, fields);
            let info = match known {
                None => node_info(OPERATION, name, &fields)?,
                Some(known) => NodeInfo::clone(&known.info),
            };
            nodes.push(node_record(OPERATION, info, beat_at, &fields)?);
        }
        self.call_all(OPERATION, &vanished).await?;
        nodes.sort_unstable_by(|a, b| a.info.id.cmp(&b.info.id));
        Ok(NodeSnapshot { nodes: Arc::new(nodes), lost: Arc::new(lost), revision })
    }

    pub(super) async fn drain_node(&self, node: &NodeId) -> Result<bool, Error> {
        const OPERATION: &str = "drain";
        let call = Call::new(OPERATION, [self.keys().node(node)]);
        if self.call(&call).await?.word()? != "asked" {
            return Ok(false);
        }
        let mut commands = vec![self.record_change(node)];
        commands.extend(self.announcements(node, &[Topic::Schedulers, Topic::Workers])?);
        self.call_all(OPERATION, &commands).await?;
        Ok(true)
    }

    pub(super) async fn undrain_node(&self, node: &NodeId) -> Result<bool, Error> {
        const OPERATION: &str = "undrain";
        let call = Call::new(OPERATION, [self.keys().node(node)]);
        if self.call(&call).await?.word()? != "withdrawn" {
            return Ok(false);
        }
        let mut commands = vec![self.record_change(node)];
        commands.extend(self.announcements(node, &[Topic::Schedulers, Topic::Workers])?);
        self.call_all(OPERATION, &commands).await?;
        Ok(true)
    }

    pub(super) async fn isolate_node(&self, params: &IsolateParams) -> Result<bool, Error> {
        const OPERATION: &str = "isolate";
        let IsolateParams { node, isolated } = params;
        let list =
            serde_json::to_string(isolated).map_err(|e| corrupt(OPERATION, e.to_string()))?;
        let call = Call::new(OPERATION, [self.keys().node(node)]).arg(list);
        if self.call(&call).await?.word()? != "recorded" {
            return Ok(false);
        }
        let mut commands = vec![self.record_change(node)];
        commands.extend(self.announcements(node, &[Topic::Schedulers])?);
        self.call_all(OPERATION, &commands).await?;
        Ok(true)
    }

    pub(super) async fn record_node_crash(
        &self,
        params: &RecordCrashParams,
    ) -> Result<bool, Error> {
        const OPERATION: &str = "record_crash";
        let RecordCrashParams { node, death } = params;
        let call = Call::new(OPERATION, [self.keys().node(node)]).arg(death);
        if self.call(&call).await?.word()? != "recorded" {
            return Ok(false);
        }
        let mut commands = vec![self.record_change(node)];
        commands.extend(self.announcements(node, &[Topic::Schedulers])?);
        self.call_all(OPERATION, &commands).await?;
        Ok(true)
    }

    fn unlist(&self, node: &str) -> [Cmd; 2] {
        [self.keys().nodes(), self.keys().node_changes()].map(|list| zrem(list, node))
    }

    fn record_change(&self, node: &NodeId) -> Cmd {
        Call::new("announce_node", [self.keys().node_changes()]).arg(node.as_str()).command("now:")
    }

    /// The fields that each heartbeat registers: the connections that end with this process, and
    /// the round trip time. The connection of the hints detects its own end at once; without that
    /// one, none is registered.
    async fn connection_fields(&self) -> [(&'static str, String); 3] {
        let own = self.own_connections().clone().unwrap_or_default();
        let (hints, server) = connection_watch::parts(&own);
        let mut connections = hints.to_owned();
        if !connections.is_empty()
            && let Some(own) = self.transport().name().await
        {
            connections = format!("{connections},{own}");
        }
        let round_trip = millis(self.round_trips().report()).to_string();
        [
            ("connections", connections),
            ("connections_server", server.to_owned()),
            ("round_trip", round_trip),
        ]
    }

    /// The commands that announce a change of a worker on the channels of these topics and on the
    /// channel of all hints.
    pub(super) fn announcements(&self, node: &NodeId, topics: &[Topic]) -> Result<Vec<Cmd>, Error> {
        self.hints(&Hint::Node { node: node.clone() }, topics)
    }

    fn hints(&self, hint: &Hint, topics: &[Topic]) -> Result<Vec<Cmd>, Error> {
        let keys = self.keys();
        let hint = serde_json::to_string(hint).map_err(|e| corrupt("events", e.to_string()))?;
        let own = topics.iter().map(|topic| keys.events_for(*topic));
        let channels = std::iter::once(keys.events()).chain(own);
        Ok(channels.map(|channel| publish(channel, &hint)).collect())
    }

    pub(super) async fn register_as(
        &self,
        params: &RegisterSchedulerParams,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        const OPERATION: &str = "register_scheduler";
        let &RegisterSchedulerParams { ref scheduler, within } = params;
        let (keys, own) = (self.keys(), self.keys().scheduler(scheduler));
        let call =
            Call::new(OPERATION, [keys.schedulers()]).arg(scheduler.as_str()).arg(millis(within));
        let mut register = cmd("HSET");
        register.arg(&own);
        for (field, value) in self.connection_fields().await {
            register.arg(field).arg(value);
        }
        let mut expire = cmd("PEXPIRE");
        expire.arg(own).arg(millis(FORGET_SCHEDULER_AFTER));
        let mut times = cmd("ZRANGE");
        times.arg(keys.schedulers()).arg(0).arg(-1).arg("WITHSCORES");
        let commands = [register, expire, call.command(&self.stamp().await), times];
        let asked = Instant::now();
        let answers = self.call_all(OPERATION, &commands).await?;
        self.round_trips().note(asked.elapsed());
        self.ledger_clock().corrects();
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
        let records = self.call_all(OPERATION, &looks).await?;
        let record = |(name, answer): (String, redis::Value)| {
            let beat_at = times.get(&name).map_or(Ok(0), |at| at.parse());
            let beat_at = beat_at.map_err(|_| corrupt(OPERATION, format!("time of {name}")))?;
            let fields = Fields::new(OPERATION, fields(OPERATION, answer)?);
            let round_trip = Duration::from_millis(fields.number("round_trip")?);
            let (id, beat_at) = (SchedulerId::new(name), Timestamp::from_millis(beat_at));
            Ok(SchedulerRecord { id, beat_at, connections: connections_of(&fields), round_trip })
        };
        present.into_iter().zip(records).map(record).collect()
    }

    pub(super) async fn listed_schedulers(&self) -> Result<Vec<SchedulerRecord>, Error> {
        const OPERATION: &str = "schedulers";
        let mut times = cmd("ZRANGE");
        times.arg(self.keys().schedulers()).arg(0).arg(-1).arg("WITHSCORES");
        let times = fields(OPERATION, self.send(OPERATION, &times).await?)?;
        let record = |(name, at): (String, String)| {
            let wrong = |_| corrupt(OPERATION, format!("time of {name}"));
            let beat_at = Timestamp::from_millis(at.parse().map_err(wrong)?);
            let id = SchedulerId::new(name);
            Ok(SchedulerRecord { id, beat_at, connections: None, round_trip: Duration::ZERO })
        };
        let mut records: Vec<_> = times.into_iter().map(record).collect::<Result<_, Error>>()?;
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    pub(super) async fn deregister_as(&self, scheduler: &SchedulerId) -> Result<(), Error> {
        let mut delete = cmd("DEL");
        delete.arg(self.keys().scheduler(scheduler));
        let leave = zrem(self.keys().schedulers(), scheduler.as_str());
        let mut leave = vec![delete, leave];
        // The other schedulers register anew, and learn which schedulers are left.
        let gone = Hint::Scheduler { scheduler: scheduler.clone() };
        leave.extend(self.hints(&gone, &[Topic::Schedulers])?);
        self.call_all("deregister_scheduler", &leave).await.map(drop)
    }
}

/// Reads these fields of a hash, or all of them if none are named.
fn look_at(key: &str, names: &[&str]) -> Cmd {
    let mut look = cmd(if names.is_empty() { "HGETALL" } else { "HMGET" });
    look.arg(key).arg(names);
    look
}

/// The answer to `HMGET`, without the fields that don't exist.
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

/// The members of a sorted set with their scores.
fn scores(operation: &'static str, answer: redis::Value) -> Result<Vec<(String, u64)>, Error> {
    let pairs: Vec<(String, f64)> =
        redis::from_redis_value(answer).map_err(|e| corrupt(operation, e.to_string()))?;
    Ok(pairs.into_iter().map(|(member, score)| (member, score as u64)).collect())
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
