//! `longshore token`: creates, lists and revokes API tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use longshore_producer::ApiTokens;
use longshore_protocol::Role;
use longshore_protocol::wire::{NewApiToken, TokenAnswer};

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
        let tokens = services::tokens(settings).await?;
        match self.command {
            Command::Create(create) => create.perform(&tokens, output).await,
            Command::List(List {}) => {
                token::list(output, &tokens.list().await?, tokens.now().await?)
            }
            Command::Revoke(revoke) => revoke.perform(&tokens, output).await,
        }
    }
}

impl Create {
    async fn perform(self, tokens: &ApiTokens, output: &mut Output) -> Result<(), Failure> {
        let tenants: BTreeSet<String> = self.tenants.into_iter().collect();
        let tenants = (!tenants.is_empty()).then_some(tenants);
        let created = tokens.create(self.name, self.role, tenants, self.expires).await?;
        if output.is_json() {
            return output.json(&created);
        }
        let NewApiToken { secret, token } = created;
        output.line(secret)?;
        output.flush()?;
        talk(format_args!(
            "token {} of {}; the secret above is shown this once",
            token.id, token.name
        ));
        Ok(())
    }
}

impl Revoke {
    async fn perform(self, tokens: &ApiTokens, output: &mut Output) -> Result<(), Failure> {
        let Self { id } = self;
        if !tokens.revoke(&id).await? {
            let text = format!("no such token: {id}; `longshore token list` shows them");
            return Err(Failure::not_found(text));
        }
        if output.is_json() {
            return output.json(&TokenAnswer::revoked(id));
        }
        output.line(format_args!("{id} revoked"))
    }
}
