//! Prints API tokens, as a table or as JSON.

use longshore_protocol::{ApiToken, Timestamp};

use super::Output;
use super::job::seconds;
use super::table::table;
use crate::failure::Failure;

/// Prints a row for each token. `now` is the ledger's time.
pub(crate) fn list(
    output: &mut Output,
    tokens: &[ApiToken],
    now: Timestamp,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&tokens);
    }
    let row = |token: &ApiToken| {
        let tenants = token.tenants.as_ref().map(|names| names.iter().cloned().collect::<Vec<_>>());
        vec![
            token.id.clone(),
            token.name.clone(),
            token.role.to_string(),
            tenants.map_or_else(|| "all".to_owned(), |names| names.join(",")),
            format!("{} ago", seconds(now.since(token.created_at))),
            match token.expires_at {
                None => "never".to_owned(),
                Some(at) if at <= now => "expired".to_owned(),
                Some(at) => format!("in {}", seconds(at.since(now))),
            },
        ]
    };
    let header = ["TOKEN", "NAME", "ROLE", "TENANTS", "CREATED", "EXPIRES"];
    output.text(&table(&header, &tokens.iter().map(row).collect::<Vec<_>>()))
}
