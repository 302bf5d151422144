//! Writes and reads what blocks the jobs of a queue, for display.

use longshore_protocol::Blocked;
use redis::cmd;

use super::RedisLedger;
use super::reply::{Reply, optional_word};
use crate::{BlockedParams, Error, ReportBlockedParams};

impl RedisLedger {
    pub(super) async fn write_blocked(&self, params: &ReportBlockedParams) -> Result<(), Error> {
        let ReportBlockedParams { queue, changes, replaces } = params;
        let key = self.keys().blocked(queue);
        let mut commands = Vec::new();
        if *replaces {
            let mut clear = cmd("DEL");
            clear.arg(&key);
            commands.push(clear);
        }
        let (mut set, mut remove) = (cmd("HSET"), cmd("HDEL"));
        set.arg(&key);
        remove.arg(&key);
        let is_set = |(_, blocked): &&(_, Option<Blocked>)| blocked.is_some();
        let count = changes.iter().filter(is_set).count();
        for (scope, blocked) in changes {
            let field = scope.to_string();
            match blocked {
                Some(blocked) => {
                    let value = serde_json::to_string(blocked);
                    set.arg(field).arg(value.expect("plain data can be written as JSON"));
                }
                None => drop(remove.arg(field)),
            }
        }
        commands.extend((count > 0).then_some(set));
        commands.extend((count < changes.len()).then_some(remove));
        self.call_in_order("report_blocked", &commands).await.map(drop)
    }

    /// A value that can't be parsed (of a newer scheduler, say) counts as absent.
    pub(super) async fn read_blocked(
        &self,
        params: &BlockedParams,
    ) -> Result<Vec<Option<Blocked>>, Error> {
        const OPERATION: &str = "blocked";
        let mut get = cmd("HMGET");
        get.arg(self.keys().blocked(&params.queue));
        for scope in &params.scopes {
            get.arg(scope.to_string());
        }
        let mut found = Reply::list(OPERATION, self.send(OPERATION, &get).await?)?;
        let mut read = || {
            let value = optional_word(OPERATION, found.next()?)?;
            Ok(value.and_then(|value| serde_json::from_str(&value).ok()))
        };
        params.scopes.iter().map(|_| read()).collect()
    }
}
