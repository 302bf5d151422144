//! `longshore dead`: the job documents that no scheduler accepted.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use futures_util::{Stream, TryStreamExt, pin_mut};
use longshore_broker::Broker;
use longshore_producer::{
    DeadLetterAnswer, DeadLetterError, DeadLetters, LetterSelection, is_id_of,
};
use longshore_protocol::{DeadLetterOutcome, Timestamp};

use crate::failure::Failure;
use crate::output::bar::Counter;
use crate::output::{Output, dead, grouped, talk};
use crate::services::{self, CLOSE_WITHIN};
use crate::settings::Settings;

const EXAMPLES: &str = "Examples:
  longshore dead list
  longshore dead show 1
  longshore dead requeue 0197c7a0-8e7e
  longshore dead requeue --all
  longshore dead purge --yes";

/// Show the job documents that were refused, put them back, or delete them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dead {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the dead letters, the oldest first, with the reasons; they stay where they are
    List {
        /// The most letters to list
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Print whole reasons, however long
        #[arg(long)]
        wide: bool,
    },
    /// Print a letter: its reason and its document; it stays where it is
    Show {
        /// The number of the letter in a list of all letters, or its id: the job's, at least 8
        /// characters of it, or the message's
        #[arg(value_name = "N|ID")]
        letter: String,
    },
    /// Put documents back into the queue of jobs, where schedulers judge them again; repeating this
    /// after an interruption makes no second job
    Requeue {
        /// The ids of the letters, as `dead list` shows them
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// All letters that are there now
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Delete letters
    Purge {
        /// The ids of the letters, as `dead list` shows them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// Confirm that all letters are meant
        #[arg(long, conflicts_with = "ids")]
        yes: bool,
    },
}

impl Dead {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if let Verb::Purge { ids, yes: false } = &self.verb
            && ids.is_empty()
        {
            return Err(Failure::usage(
                "this would delete every dead letter; add --yes, or give the ids of some",
            ));
        }
        let (letters, rabbit) = services::dead_letters(settings).await?;
        let outcome = self.verb.perform(&letters, output).await;
        if let Some(rabbit) = rabbit {
            rabbit.close(CLOSE_WITHIN).await;
        }
        outcome
    }
}

impl Verb {
    async fn perform(self, letters: &DeadLetters, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::List { limit, wide } => {
                let page = letters.list(limit as usize).await?;
                dead::page(output, &page, now(), wide)?;
                output.flush()?;
                let more = page.total - page.letters.len() as u64;
                if more > 0 && !output.is_json() {
                    talk(format_args!("{} more; --limit shows more of them", grouped(more)));
                }
                Ok(())
            }
            Self::Show { letter } => {
                let found = letters.find(&letter).await?;
                let found = found.ok_or_else(|| no_such_letter(&[&letter]))?;
                dead::details(output, &found, now())
            }
            Self::Requeue { ids, all } => {
                let selection = match all {
                    true => LetterSelection::All,
                    false => LetterSelection::Ids(ids.clone()),
                };
                answers(output, letters.requeue(selection), &ids).await
            }
            Self::Purge { ids, .. } if ids.is_empty() => {
                dead::purged(output, letters.purge_all().await?)
            }
            Self::Purge { ids, .. } => {
                let selection = LetterSelection::Ids(ids.clone());
                answers(output, letters.purge(selection), &ids).await
            }
        }
    }
}

/// Prints what becomes of letters; fails if one stays that should not, or an id is of none.
async fn answers(
    output: &mut Output,
    answers: impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>>,
    ids: &[String],
) -> Result<(), Failure> {
    pin_mut!(answers);
    let counter = Counter::new("letters");
    let mut missing: Vec<&String> = ids.iter().collect();
    let mut stay = 0;
    let mut outcome: Result<(), Failure> = Ok(());
    loop {
        match answers.try_next().await {
            Ok(Some(answer)) => {
                counter.add();
                missing.retain(|id| !is_id_of(id, &answer.letter));
                stay += u64::from(answer.outcome == DeadLetterOutcome::Failed);
                dead::answer(output, &answer)?;
            }
            Ok(None) => break,
            Err(error) => {
                outcome = Err(error.into());
                break;
            }
        }
    }
    counter.clear();
    output.flush()?;
    outcome?;
    if stay > 0 {
        let text = format!("{stay} letters stay; try again, which makes no second job");
        return Err(Failure::other(text));
    }
    if missing.is_empty() { Ok(()) } else { Err(no_such_letter(&missing)) }
}

fn no_such_letter(ids: &[&String]) -> Failure {
    let ids: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
    Failure::not_found(format!("no such dead letter: {}", ids.join(", ")))
}

/// Letters are dated by the clock of the scheduler that refused them.
#[expect(clippy::disallowed_methods, reason = "RabbitMQ has no clock to ask")]
fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
