//! API tokens and the audit trail.

use longshore_protocol::{Action, KeptApiToken, Timestamp};
use redis::cmd;

use super::RedisLedger;
use super::call::Call;
use super::fleet::fields;
use super::reply::{Reply, corrupt, parse, word};
use crate::Error;
use crate::op::{ActionsParams, MAX_ACTIONS, MAX_API_TOKENS};

impl RedisLedger {
    pub(super) async fn keep_api_token(&self, kept: &KeptApiToken) -> Result<bool, Error> {
        const OPERATION: &str = "add_api_token";
        let record =
            serde_json::to_string(kept).map_err(|error| corrupt(OPERATION, error.to_string()))?;
        let call = Call::new(OPERATION, [self.keys().api_tokens()])
            .arg(kept.token.id.as_str())
            .arg(record)
            .arg(MAX_API_TOKENS);
        Ok(self.call(&call).await?.word()? == "kept")
    }

    pub(super) async fn read_api_tokens(&self) -> Result<Vec<KeptApiToken>, Error> {
        const OPERATION: &str = "api_tokens";
        let mut get = cmd("HGETALL");
        get.arg(self.keys().api_tokens());
        let found = fields(OPERATION, self.send(OPERATION, &get).await?)?;
        let read = |text: &String| {
            serde_json::from_str(text).map_err(|error| corrupt(OPERATION, error.to_string()))
        };
        let mut tokens: Vec<KeptApiToken> = found.values().map(read).collect::<Result<_, _>>()?;
        tokens.sort_by(|one, other| one.token.id.cmp(&other.token.id));
        Ok(tokens)
    }

    pub(super) async fn drop_api_token(&self, id: &str) -> Result<bool, Error> {
        const OPERATION: &str = "remove_api_token";
        let mut remove = cmd("HDEL");
        remove.arg(self.keys().api_tokens()).arg(id);
        Ok(word(OPERATION, self.send(OPERATION, &remove).await?)? == "1")
    }

    pub(super) async fn keep_action(&self, action: &Action) -> Result<(), Error> {
        const OPERATION: &str = "record_action";
        // The time is the score, so that a repeat is the same member.
        let entry = Action { at: Timestamp::default(), ..action.clone() };
        let entry =
            serde_json::to_string(&entry).map_err(|error| corrupt(OPERATION, error.to_string()))?;
        let call = Call::new(OPERATION, [self.keys().actions()]).arg(entry).arg(MAX_ACTIONS);
        self.call(&call).await.map(drop)
    }

    /// Entries with the time of the cursor that stand in front of it are stepped over; Redis sorts
    /// equal scores by member, which begins with the id.
    pub(super) async fn read_actions(&self, params: &ActionsParams) -> Result<Vec<Action>, Error> {
        const OPERATION: &str = "actions";
        let ActionsParams { cursor, limit } = params;
        let highest =
            cursor.as_ref().map_or_else(|| "+inf".to_owned(), |cursor| cursor.at.to_string());
        let (mut actions, mut offset) = (Vec::new(), 0);
        while actions.len() < *limit {
            let mut range = cmd("ZREVRANGEBYSCORE");
            range.arg(self.keys().actions()).arg(&highest).arg("-inf").arg("WITHSCORES");
            range.arg("LIMIT").arg(offset).arg(*limit);
            let words = Reply::list(OPERATION, self.send(OPERATION, &range).await?)?.words()?;
            for pair in words.chunks_exact(2) {
                let mut action: Action = serde_json::from_str(&pair[0])
                    .map_err(|error| corrupt(OPERATION, error.to_string()))?;
                action.at = Timestamp::from_millis(parse::<f64>(OPERATION, &pair[1])? as u64);
                if cursor.as_ref().is_none_or(|cursor| action.cursor() < *cursor) {
                    actions.push(action);
                }
            }
            if words.len() < 2 * limit {
                break;
            }
            offset += limit;
        }
        actions.truncate(*limit);
        Ok(actions)
    }
}
