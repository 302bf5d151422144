//! API tokens and the audit trail of a memory ledger.

use std::collections::BTreeMap;

use longshore_protocol::{Action, ActionCursor, KeptApiToken, Timestamp};

use crate::op::{ActionsParams, MAX_ACTIONS, MAX_API_TOKENS};

/// The API tokens by id, and the entries of the audit trail.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    tokens: BTreeMap<String, KeptApiToken>,
    actions: BTreeMap<ActionCursor, Action>,
}

impl Access {
    pub(super) fn add(&mut self, kept: &KeptApiToken) -> bool {
        let id = &kept.token.id;
        let has_room = self.tokens.contains_key(id) || self.tokens.len() < MAX_API_TOKENS;
        if has_room {
            self.tokens.insert(id.clone(), kept.clone());
        }
        has_room
    }

    pub(super) fn tokens(&self) -> Vec<KeptApiToken> {
        self.tokens.values().cloned().collect()
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.tokens.remove(id).is_some()
    }

    pub(super) fn record(&mut self, action: &Action, now: Timestamp) {
        if self.actions.values().any(|known| known.id == action.id) {
            return;
        }
        let action = Action { at: now, ..action.clone() };
        self.actions.insert(action.cursor(), action);
        if self.actions.len() > MAX_ACTIONS {
            self.actions.pop_first();
        }
    }

    pub(super) fn actions(&self, params: &ActionsParams) -> Vec<Action> {
        let behind = match &params.cursor {
            Some(cursor) => self.actions.range(..cursor),
            None => self.actions.range(..),
        };
        behind.rev().take(params.limit).map(|(_, action)| action.clone()).collect()
    }
}
