//! `longshore token`: creates, lists and revokes API tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use longshore_ledger::Ledger;
use longshore_producer::{ApiTokens, TokenError};
use longshore_protocol::wire::TokenAnswer;
use longshore_protocol::{Action, ActionOutcome, Role, Timestamp};
use uuid::Uuid;

use crate::failure::Failure;
use crate::output::{Output, talk, token};
use crate::services;
use crate::settings::{Settings, parse_duration};

/// Create, list and revoke the tokens by which clients of the HTTP API identify themselves
#[derive(Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a token and print its secret, which is shown this once
///
/// Example: longshore token create ci --role submitter --tenant web --expires 90d
#[derive(Args)]
struct Create {
    /// A name for people; the audit trail shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// What the token permits: viewer, submitter, operator or admin, each with what is before it
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// A tenant whose jobs the token reaches; may be given several times [default: all tenants]
    #[arg(long = "tenant", value_name = "NAME")]
    tenants: Vec<String>,
    /// How long the token is valid [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

/// List the tokens; their secrets are not kept
#[derive(Args)]
struct List {}

/// Revoke a token; servers refuse it within two seconds
#[derive(Args)]
struct Revoke {
    /// The token's id, as `longshore token list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

impl Token {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let ledger: Arc<dyn Ledger> = Arc::new(services::ledger(settings)?);
        match self.command {
            Command::Create(create) => create.perform(&ledger, output).await,
            Command::List(List {}) => list(ledger.as_ref(), output).await,
            Command::Revoke(revoke) => revoke.perform(ledger.as_ref(), output).await,
        }
    }
}

impl Create {
    async fn perform(self, ledger: &Arc<dyn Ledger>, output: &mut Output) -> Result<(), Failure> {
        let tenants: BTreeSet<String> = self.tenants.into_iter().collect();
        let tenants = (!tenants.is_empty()).then_some(tenants);
        let tokens = ApiTokens::new(Arc::clone(ledger));
        let created = tokens.create(self.name, self.role, tenants, self.expires).await;
        let new = created.map_err(|error| match error {
            TokenError::Ledger(error) => error.into(),
            error => Failure::usage(error),
        })?;
        let token = &new.token;
        record(
            ledger.as_ref(),
            "create_token",
            &format!("{} {} ({})", token.id, token.name, token.role),
        )
        .await;
        if output.is_json() {
            return output.json(&new);
        }
        output.line(&new.secret)?;
        output.flush()?;
        talk(format_args!(
            "token {} of {}; the secret above is shown this once",
            token.id, token.name
        ));
        Ok(())
    }
}

async fn list(ledger: &dyn Ledger, output: &mut Output) -> Result<(), Failure> {
    let tokens = ledger.api_tokens().await?.into_iter().map(|kept| kept.token);
    token::list(output, &tokens.collect::<Vec<_>>(), ledger.now().await?)
}

impl Revoke {
    async fn perform(self, ledger: &dyn Ledger, output: &mut Output) -> Result<(), Failure> {
        let Self { id } = self;
        if !ledger.remove_api_token(&id).await? {
            let text = format!("no such token: {id}; `longshore token list` shows them");
            return Err(Failure::not_found(text));
        }
        record(ledger, "revoke_token", &id).await;
        if output.is_json() {
            return output.json(&TokenAnswer::revoked(id));
        }
        output.line(format_args!("{id} revoked"))
    }
}

/// Records a change of the tokens in the audit trail. The change has been made by then.
async fn record(ledger: &dyn Ledger, action: &str, target: &str) {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let entry = Action {
        id: Uuid::now_v7().to_string(),
        at: Timestamp::default(),
        token: None,
        who: format!("{} (command line)", user.as_deref().unwrap_or("unknown user")),
        address: None,
        action: action.to_owned(),
        target: target.to_owned(),
        outcome: ActionOutcome::Done,
        status: None,
        request: None,
    };
    if let Err(error) = ledger.record_action(&entry).await {
        talk(format_args!("the audit trail can't be written: {error}"));
    }
}
