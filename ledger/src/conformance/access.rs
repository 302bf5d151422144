//! API tokens and the audit trail.

use std::sync::Arc;

use longshore_protocol::{
    Action, ActionCursor, ActionOutcome, ApiSecret, ApiToken, KeptApiToken, Role, Timestamp,
};

use crate::Ledger;
use crate::op::{ActionsParams, MAX_API_TOKENS};

cases! {
    an_api_token_is_kept_until_it_is_removed
    there_are_not_more_api_tokens_than_every_process_can_read
    the_audit_trail_is_read_by_pages_newest_first
    an_action_that_is_recorded_again_is_one_entry
}

fn token(n: u16) -> KeptApiToken {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    let digest = ApiSecret::from_bytes(bytes).digest();
    let token = ApiToken {
        id: ApiToken::id_of(&digest),
        name: format!("token \"{n}\""),
        role: Role::Operator,
        tenants: n.is_multiple_of(2).then(|| ["a".to_owned(), "b".to_owned()].into()),
        created_at: Timestamp::from_millis(1_700_000_000_000),
        expires_at: n.is_multiple_of(3).then(|| Timestamp::from_millis(1_800_000_000_000)),
    };
    KeptApiToken { digest, token }
}

fn action(n: u64) -> Action {
    Action {
        id: format!("00000000-0000-4000-8000-{n:012x}"),
        at: Timestamp::default(),
        token: n.is_multiple_of(2).then(|| "0123456789abcdef".to_owned()),
        who: "a \"name\" \u{e9}".into(),
        address: Some("127.0.0.1".into()),
        action: "pause_job".into(),
        target: format!("/v1/jobs/{n}/pause"),
        outcome: ActionOutcome::Done,
        status: Some(200),
        request: None,
    }
}

pub(super) async fn an_api_token_is_kept_until_it_is_removed(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.api_tokens().await.unwrap(), []);
    let mut kept = [token(1), token(2), token(3)];
    for token in &kept {
        assert!(ledger.add_api_token(token).await.unwrap());
        assert!(ledger.add_api_token(token).await.unwrap(), "a repeat changes nothing");
    }
    kept.sort_by(|one, other| one.token.id.cmp(&other.token.id));
    assert_eq!(ledger.api_tokens().await.unwrap(), kept);
    assert!(ledger.remove_api_token(&kept[1].token.id).await.unwrap());
    assert!(!ledger.remove_api_token(&kept[1].token.id).await.unwrap());
    assert!(!ledger.remove_api_token("").await.unwrap());
    assert_eq!(ledger.api_tokens().await.unwrap(), [kept[0].clone(), kept[2].clone()]);
}

pub(super) async fn there_are_not_more_api_tokens_than_every_process_can_read(
    ledger: Arc<dyn Ledger>,
) {
    let most = u16::try_from(MAX_API_TOKENS).unwrap();
    for n in 0..most {
        assert!(ledger.add_api_token(&token(n)).await.unwrap());
    }
    assert!(!ledger.add_api_token(&token(most)).await.unwrap());
    assert!(ledger.add_api_token(&token(0)).await.unwrap(), "a repeat takes no room");
    assert!(ledger.remove_api_token(&token(0).token.id).await.unwrap());
    assert!(ledger.add_api_token(&token(most)).await.unwrap());
    assert_eq!(ledger.api_tokens().await.unwrap().len(), MAX_API_TOKENS);
}

pub(super) async fn the_audit_trail_is_read_by_pages_newest_first(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.actions(&ActionsParams::new(9)).await.unwrap(), []);
    let before = ledger.now().await.unwrap();
    for n in 1..=7 {
        ledger.record_action(&action(n)).await.unwrap();
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let params = ActionsParams { cursor, ..ActionsParams::new(3) };
        let page = ledger.actions(&params).await.unwrap();
        assert!(page.len() <= 3, "{page:?}");
        let Some(last) = page.last() else { break };
        let text = last.cursor().to_string();
        cursor = Some(text.parse::<ActionCursor>().expect("a cursor survives as text"));
        found.extend(page);
    }
    let places: Vec<ActionCursor> = found.iter().map(Action::cursor).collect();
    assert!(places.is_sorted_by(|one, other| one > other), "{places:?}");
    assert!(found.iter().all(|action| action.at >= before), "{found:?}");
    for recorded in &mut found {
        recorded.at = Timestamp::default();
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(found, (1..=7).map(action).collect::<Vec<_>>());
}

pub(super) async fn an_action_that_is_recorded_again_is_one_entry(ledger: Arc<dyn Ledger>) {
    for n in [1, 2, 1, 2, 1] {
        ledger.record_action(&action(n)).await.unwrap();
    }
    assert_eq!(ledger.actions(&ActionsParams::new(9)).await.unwrap().len(), 2);
}
