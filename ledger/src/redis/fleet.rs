//! Workers and schedulers: signs of life, what to stop, who is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_protocol::{NodeId, NodeInfo, NodeRecord, SchedulerId, SchedulerRecord, Timestamp};
use redis::{Cmd, cmd};

use super::call::Call;
use super::hearts;
use super::jobs::{publish, take, zadd, zrem};
use super::node_hash::{heart, node_fields, node_info, node_record};
use super::reply::{Reply, corrupt, word};
use super::summary::Fields;
use super::{RedisLedger, millis};
use crate::{
    Beat, BeatParams, Error, Event, IsolateParams, NodeSnapshot, RecordCrashParams,
    RegisterSchedulerParams, Stop, StopReason, Topic,
};

/// A worker that was never forgotten by name is forgotten after this silence.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// As long as the function `attend` keeps a silent scheduler's name.
const FORGET_SCHEDULER_AFTER: Duration = Duration::from_hours(1);

/// What may change from one beat to the next, or between two of them.
const TOLD_BY_BEATS: [&str; 13] = [
    "state",
    "jobs",
    "busy",
    "cpu",
    "rss",
    "heart",
    "heart_server",
    "round_trip",
    "death",
    "tasks",
    "disabled",
    "records",
    "isolated",
];

/// What changes with nearly each beat, and nobody needs to act on.
const GAUGES: [&str; 2] = ["cpu", "rss"];

/// A worker tells everything so often, whether it has changed or not: that is what keeps it from being forgotten.
const WHOLE_EVERY: Duration = Duration::from_hours(1);

/// The ledger's time is asked for so often: in between our clock tells how much of it has passed, to a millisecond.
const ASK_TIME_EVERY: Duration = Duration::from_secs(10);

/// What was told of a node.
pub(super) struct Told {
    whole: Instant,
    fields: Vec<(&'static str, String)>,
    /// The ledger's time, as the function last told it, and when that was.
    time: (u64, Instant),
}

impl Told {
    /// Whether the ledger still has it, when these fields are to be told. A heart that is a new one has lost its server, which may have lost something too.
    fn is_there(&self, fields: &[(&'static str, String)]) -> bool {
        let is_heart = |field: &&(&'static str, String)| field.0.starts_with("heart");
        let same_heart = fields.iter().filter(is_heart).all(|field| self.fields.contains(field));
        same_heart && self.whole.elapsed() < WHOLE_EVERY
    }

    /// The ledger's time now, if that is known well enough.
    fn now(&self) -> Option<u64> {
        let (then, heard) = self.time;
        let since = heard.elapsed();
        (since < ASK_TIME_EVERY).then(|| then + millis(since))
    }
}

/// What came back of a beat.
struct Answer {
    now: u64,
    is_news: bool,
    /// Whether others should read it at once.
    is_event: bool,
    drain: bool,
}

impl RedisLedger {
    /// Two round trips: the node's own hash and its place on the lists of nodes, then one question a job held and, in a cluster, the lists. A worker that holds nothing is spared the second.
    pub(super) async fn beat_node(&self, params: &BeatParams) -> Result<Beat, Error> {
        const OPERATION: &str = "beat";
        let BeatParams { info, held } = params;
        let keys = self.keys();
        let answer = tokio::join!(self.tell_of_node(info), self.keep_time(OPERATION)).0?;

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
        let stamp = self.stamp().await;
        let mut commands: Vec<Cmd> = by_job.iter().map(|(_, call)| call.command(&stamp)).collect();
        if self.transport().is_cluster() {
            // Being on the list outweighs a verdict, so the list comes first.
            commands.push(zadd(keys.nodes(), None, answer.now, info.id.as_str()));
            commands.extend(answer.is_news.then(|| self.news(&info.id)));
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

    /// Writes what changed since the last time, or everything if that is not there any more, or may not be.
    async fn tell_of_node(&self, info: &NodeInfo) -> Result<Answer, Error> {
        let mut fields = node_fields(info)?.to_vec();
        fields.extend(self.heart_fields().await);
        let told = self.told().remove(&info.id);
        let mut told = told.filter(|told| told.is_there(&fields));
        if let Some(same) = told.take_if(|told| told.fields == fields) {
            if let Some(answer) = self.sign_of_life(info, &same).await? {
                self.told().insert(info.id.clone(), same);
                return Ok(answer);
            }
            told = Some(same);
        }
        loop {
            let (whole, known) = match told.take() {
                Some(Told { whole, fields, .. }) => (Some(whole), fields),
                None => (None, Vec::new()),
            };
            let changed: Vec<_> = fields.iter().filter(|field| !known.contains(field)).collect();
            let extent = match whole {
                None => "whole",
                Some(_) if changed.iter().all(|(field, _)| GAUGES.contains(field)) => "nothing",
                Some(_) => "news",
            };
            let keys = self.keys();
            let here = !self.transport().is_cluster();
            let lists = here.then(|| [keys.nodes(), keys.node_news(), keys.lost_node(&info.id)]);
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
                let told = Told { whole: whole.unwrap_or(heard), fields, time: (now, heard) };
                self.told().insert(info.id.clone(), told);
                let (is_news, is_event) = (extent != "nothing", what != "known");
                return Ok(Answer { now, is_news, is_event, drain: drain == "drain" });
            }
        }
    }

    /// The beat of a node that has nothing to tell: two plain commands take Redis half as long as the function. `None` if it is not there as we know it, or its time can't be told.
    async fn sign_of_life(&self, info: &NodeInfo, told: &Told) -> Result<Option<Answer>, Error> {
        const OPERATION: &str = "beat";
        const ASKED: [&str; 2] = ["state", "drain"];
        let Some(now) = told.now().filter(|_| !self.transport().is_cluster()) else {
            return Ok(None);
        };
        let keys = self.keys();
        let mut sign = cmd("ZADD");
        // Gives 1 if the node is on the list and its time moves on.
        sign.arg(keys.nodes()).arg(&["XX", "GT", "CH"]).arg(now).arg(info.id.as_str());
        let look = look_at(&keys.node(&info.id), &ASKED);
        let commands = [sign, look];
        let asked = Instant::now();
        let answers = self.call_all(OPERATION, &commands).await?;
        self.round_trips().note(asked.elapsed());
        let [moved, found] = take(OPERATION, answers)?;
        let found = values(OPERATION, &ASKED, found)?;
        let is_there = found.contains_key("state") && word(OPERATION, moved)? == "1";
        let drain = found.contains_key("drain");
        Ok(is_there.then_some(Answer { now, is_news: false, is_event: false, drain }))
    }

    /// Two round trips: the list with the time of each one's last beat, and who has news; then what is not known of these.
    pub(super) async fn read_nodes(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        const OPERATION: &str = "nodes";
        let keys = self.keys();
        let mut news = cmd("ZRANGEBYSCORE");
        news.arg(keys.node_news())
            .arg(format!("({}", known.revision))
            .arg("+inf")
            .arg("WITHSCORES");
        let mut list = cmd("ZRANGE");
        list.arg(keys.nodes()).arg(0).arg(-1).arg("WITHSCORES");
        // Who gets on the list between the two is not known, and read whole.
        let [news, list] = take(OPERATION, self.call_all(OPERATION, &[news, list]).await?)?;
        let news: HashMap<String, u64> = scores(OPERATION, news)?.into_iter().collect();
        let revision = news.values().copied().max().unwrap_or(known.revision);

        let known_lost = Arc::clone(&known.lost);
        let known: HashMap<&str, &NodeRecord> =
            known.nodes.iter().map(|record| (record.info.id.as_str(), record)).collect();
        let (mut nodes, mut asked, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        let list = scores(OPERATION, list)?;
        let listed: HashSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        for (name, beat_at) in &list {
            let (name, beat_at) = (name.clone(), Timestamp::from_millis(*beat_at));
            let known = known.get(name.as_str()).copied();
            if let Some(record) = known.filter(|_| !news.contains_key(&name)) {
                nodes.push(NodeRecord { beat_at, ..record.clone() });
                continue;
            }
            let names: &[&str] = if known.is_some() { &TOLD_BY_BEATS } else { &[] };
            looks.push(look_at(&keys.node(&NodeId::new(&name)), names));
            asked.push((name, beat_at, known));
        }
        let lost = self.read_lost(&known_lost, &news, |name| listed.contains(name)).await?;
        let answers = self.call_all(OPERATION, &looks).await?;
        let mut vanished = Vec::new();
        for ((name, beat_at, known), answer) in asked.into_iter().zip(answers) {
            let fields = match known {
                None => fields(OPERATION, answer)?,
                Some(_) => values(OPERATION, &TOLD_BY_BEATS, answer)?,
            };
            if fields.is_empty() {
                vanished.extend(self.strike(&name));
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
        let mut commands = vec![self.news(node)];
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
        if self.call(&call).await?.word()? != "noted" {
            return Ok(false);
        }
        let mut commands = vec![self.news(node)];
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
        if self.call(&call).await?.word()? != "certified" {
            return Ok(false);
        }
        let mut commands = vec![self.news(node)];
        commands.extend(self.announcements(node, &[Topic::Schedulers])?);
        self.call_all(OPERATION, &commands).await?;
        Ok(true)
    }

    fn strike(&self, node: &str) -> [Cmd; 2] {
        [self.keys().nodes(), self.keys().node_news()].map(|list| zrem(list, node))
    }

    fn news(&self, node: &NodeId) -> Cmd {
        Call::new("news", [self.keys().node_news()]).arg(node.as_str()).command("now:")
    }

    /// What a sign of life registers: the connections that end with this process, and how far away
    /// it is. The one of the hints notices its own end at once; without it none is registered.
    async fn heart_fields(&self) -> [(&'static str, String); 3] {
        let heart = self.heart().clone().unwrap_or_default();
        let (hints, server) = hearts::parts(&heart);
        let mut connections = hints.to_owned();
        if !connections.is_empty()
            && let Some(own) = self.transport().name().await
        {
            connections = format!("{connections},{own}");
        }
        let round_trip = millis(self.round_trips().told()).to_string();
        [("heart", connections), ("heart_server", server.to_owned()), ("round_trip", round_trip)]
    }

    /// Tells whoever wants to hear everything, and these.
    pub(super) fn announcements(
        &self,
        node: &NodeId,
        audiences: &[Topic],
    ) -> Result<Vec<Cmd>, Error> {
        self.hints(&Event::Node { node: node.clone() }, audiences)
    }

    fn hints(&self, hint: &Event, audiences: &[Topic]) -> Result<Vec<Cmd>, Error> {
        let keys = self.keys();
        let hint = serde_json::to_string(hint).map_err(|e| corrupt("events", e.to_string()))?;
        let own = audiences.iter().map(|audience| keys.events_for(*audience));
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
        for (field, value) in self.heart_fields().await {
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
        let hearts = self.call_all(OPERATION, &looks).await?;
        let record = |(name, answer): (String, redis::Value)| {
            let beat_at = times.get(&name).map_or(Ok(0), |at| at.parse());
            let beat_at = beat_at.map_err(|_| corrupt(OPERATION, format!("time of {name}")))?;
            let fields = Fields::new(OPERATION, fields(OPERATION, answer)?);
            let round_trip = Duration::from_millis(fields.number("round_trip")?);
            let (id, beat_at) = (SchedulerId::new(name), Timestamp::from_millis(beat_at));
            Ok(SchedulerRecord { id, beat_at, heart: heart(&fields), round_trip })
        };
        present.into_iter().zip(hearts).map(record).collect()
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
            Ok(SchedulerRecord { id, beat_at, heart: None, round_trip: Duration::ZERO })
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
        // The others sign in anew, and see who is left.
        let gone = Event::Scheduler { scheduler: scheduler.clone() };
        leave.extend(self.hints(&gone, &[Topic::Schedulers])?);
        self.call_all("deregister_scheduler", &leave).await.map(drop)
    }
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
