//! Writes and reads the verdicts on lost workers, which all schedulers share.
//!
//! Each verdict is a hash of its own, which expires, in the slot of the lists of workers; the list
//! of changes names the workers whose verdicts to read. Deliberately absent: the decision that a
//! worker is lost (the scheduler's engine).

use std::collections::HashMap;

use longshore_protocol::{LossKind, NodeId, Timestamp};
use redis::{Cmd, cmd};

use super::call::Call;
use super::fleet::fields;
use super::jobs::zrem;
use super::reply::corrupt;
use super::summary::Fields;
use super::{RedisLedger, millis};
use crate::op::LOST_KEPT;
use crate::{DeclareLostParams, Error, LossCause, LossEvidence, LossVerdict, LostNode, Topic};

impl RedisLedger {
    pub(super) async fn lose_node(&self, params: &DeclareLostParams) -> Result<LossVerdict, Error> {
        const OPERATION: &str = "declare_lost";
        let DeclareLostParams { node, evidence, cause } = params;
        self.last_beats().remove(node);
        let keys = self.keys();
        let record = keys.node(node);
        let is_cluster = self.transport().is_cluster();
        let lists = [keys.nodes(), keys.node_changes(), keys.lost_node(node)];
        let touched = lists.into_iter().chain((!is_cluster).then(|| record.clone()));
        let (word, time) = match *evidence {
            LossEvidence::Certain => ("certain", Timestamp::default()),
            LossEvidence::Absent => ("absent", Timestamp::default()),
            LossEvidence::LastBeat(at) => ("beat", at),
            LossEvidence::SilentSince(at) => ("time", at),
        };
        let call = Call::new(OPERATION, touched)
            .arg(node.as_str())
            .arg(word)
            .arg(time.as_millis())
            .arg(millis(LOST_KEPT))
            .arg(if cause.lost() == LossKind::Left { "left" } else { "died" })
            .arg(cause.how().unwrap_or_default());
        let mut reply = self.call(&call).await?;
        let verdict = reply.word()?;
        if verdict == "lives" {
            return Ok(LossVerdict::Lives);
        }
        let names = ["at", "beat_at", "lost", "how"].map(str::to_owned);
        let values = [reply.word()?, reply.word()?, reply.word()?, reply.word()?];
        let fields = Fields::new(OPERATION, names.into_iter().zip(values).collect());
        let lost = lost_node(OPERATION, node.clone(), &fields)?;
        if verdict != "lost" {
            return Ok(LossVerdict::Known(lost));
        }
        let mut commands = self.announcements(node, &[Topic::Schedulers])?;
        if is_cluster {
            let mut delete = cmd("DEL");
            delete.arg(record);
            commands.push(delete);
        }
        self.call_all(OPERATION, &commands).await?;
        Ok(LossVerdict::New(lost))
    }

    /// The verdicts on workers that are not listed, out of the `known` verdicts and the workers
    /// with `changes`.
    pub(super) async fn read_lost(
        &self,
        known: &[LostNode],
        changes: &HashMap<String, u64>,
        is_listed: impl Fn(&str) -> bool,
    ) -> Result<Vec<LostNode>, Error> {
        const OPERATION: &str = "nodes";
        let stays = |lost: &&LostNode| {
            !changes.contains_key(lost.node.as_str()) && !is_listed(lost.node.as_str())
        };
        let mut all: Vec<LostNode> = known.iter().filter(stays).cloned().collect();
        let asked: Vec<&String> = changes.keys().filter(|name| !is_listed(name)).collect();
        let look = |name: &&String| {
            let mut look = cmd("HGETALL");
            look.arg(self.keys().lost_node(&NodeId::new(name.as_str())));
            look
        };
        let looks: Vec<Cmd> = asked.iter().map(look).collect();
        let answers = self.call_all(OPERATION, &looks).await?;
        let mut forgotten = Vec::new();
        for (name, answer) in asked.into_iter().zip(answers) {
            let fields = fields(OPERATION, answer)?;
            if fields.is_empty() {
                forgotten.push(zrem(self.keys().node_changes(), name));
                continue;
            }
            let fields = Fields::new(OPERATION, fields);
            all.push(lost_node(OPERATION, NodeId::new(name.as_str()), &fields)?);
        }
        self.call_all(OPERATION, &forgotten).await?;
        all.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        Ok(all)
    }
}

fn lost_node(operation: &'static str, node: NodeId, fields: &Fields) -> Result<LostNode, Error> {
    let loss = match (fields.text("lost").as_str(), fields.text("how")) {
        ("left", _) => LossCause::Left,
        ("died", how) if how.is_empty() => LossCause::Vanished,
        ("died", how) => LossCause::Crashed(how),
        (other, _) => return Err(corrupt(operation, format!("{node} is lost as `{other}`"))),
    };
    let time = |field| fields.time(field).map(Option::unwrap_or_default);
    Ok(LostNode { node, at: time("at")?, beat_at: time("beat_at")?, loss })
}
