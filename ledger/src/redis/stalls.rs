//! Writes and reads stalls: why workers can't go on with their chunks of a job, for display.

use longshore_protocol::{JobId, NodeId, Stall, Timestamp};
use redis::{Value, cmd};

use super::RedisLedger;
use super::millis;
use super::reply::{Reply, corrupt, parse};
use crate::{Error, Ledger, ReportStallParams, STALL_KEPT};

impl RedisLedger {
    pub(super) async fn write_stall(
        &self,
        job: JobId,
        params: &ReportStallParams,
    ) -> Result<(), Error> {
        const OPERATION: &str = "report_stall";
        let ReportStallParams { node, reason } = params;
        let key = self.keys().stalls(job);
        let Some(reason) = reason else {
            let mut remove = cmd("HDEL");
            remove.arg(&key).arg(node.as_str());
            return self.send(OPERATION, &remove).await.map(drop);
        };
        let at = self.now().await?.as_millis();
        let mut set = cmd("HSET");
        set.arg(&key).arg(node.as_str()).arg(format!("{at} {reason}"));
        let mut expire = cmd("PEXPIRE");
        expire.arg(&key).arg(millis(STALL_KEPT));
        self.call_all(OPERATION, &[set, expire]).await.map(drop)
    }

    pub(super) async fn read_stalls(&self, job: JobId) -> Result<Vec<Stall>, Error> {
        const OPERATION: &str = "stalls";
        let mut get = cmd("HGETALL");
        get.arg(self.keys().stalls(job));
        let found = match self.send(OPERATION, &get).await? {
            // The answer under RESP3.
            Value::Map(pairs) => {
                pairs.into_iter().flat_map(|(field, value)| [field, value]).collect()
            }
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let fields = Reply::list(OPERATION, Value::Array(found))?.fields()?;
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now().await?;
        let mut stalls = Vec::new();
        for (node, text) in fields {
            let (at, reason) = text.split_once(' ').ok_or_else(|| corrupt(OPERATION, &text))?;
            let at = Timestamp::from_millis(parse(OPERATION, at)?);
            if now.since(at) < STALL_KEPT {
                stalls.push(Stall { node: NodeId::new(node), at, reason: reason.to_owned() });
            }
        }
        stalls.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(stalls)
    }
}
