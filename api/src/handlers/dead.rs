//! Dead letters: job documents that were refused, and what is done with them.

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use longshore_producer::{DeadLetterError, LetterSelection};
use longshore_protocol::wire::DeadLettersRequest;
use longshore_protocol::{DeadLetterAnswer, DeadLettersPurged, ErrorKind, Invalid};

use super::{Outcome, json};
use crate::call::Call;
use crate::lines::{self, Live, line};
use crate::refusal::Refusal;
use crate::router::Target;

/// The most letters of a list.
pub(crate) const MAX_LETTERS: u64 = 1_000;

/// The letters of a list unless the client asks for another number.
const LETTERS: u64 = 50;

/// The most ids of a request.
const MAX_IDS: usize = 1_000;

const ALLOWED: &str = r#"write {"ids": ["0197c7a0-8e7e"]} or {"all": true}"#;

pub(crate) async fn list(call: Call) -> Outcome {
    let limit = call.params.whole("limit", 1..=MAX_LETTERS, LETTERS)?;
    let limit = usize::try_from(limit).unwrap_or_default();
    Ok(json(StatusCode::OK, &call.shared.client.dead_letters().list(limit).await?))
}

pub(crate) async fn get(call: Call) -> Outcome {
    let id = call.params.letter();
    let found = call.shared.client.dead_letters().find(id).await?;
    match found {
        Some(letter) => Ok(json(StatusCode::OK, &letter)),
        None => {
            let detail = format_args!("no such dead letter: {id}; GET /v1/dead lists them");
            Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, detail))
        }
    }
}

pub(crate) async fn requeue(mut call: Call) -> Outcome {
    let selection = selection(&mut call).await?;
    let target = target(&selection);
    answer(&call, call.shared.client.dead_letters().requeue(selection), target).await
}

pub(crate) async fn purge(mut call: Call) -> Outcome {
    let selection = selection(&mut call).await?;
    let (letters, target) = (call.shared.client.dead_letters(), target(&selection));
    if selection == LetterSelection::All {
        let purged = DeadLettersPurged { purged: letters.purge_all().await? };
        return Ok(about(json(StatusCode::OK, &purged), target));
    }
    answer(&call, letters.purge(selection), target).await
}

async fn selection(call: &mut Call) -> Result<LetterSelection, Refusal> {
    let DeadLettersRequest { ids, all } = call.object(ALLOWED).await?;
    let wrong = |found: &str, allowed: &str| {
        let [place, found, allowed] = ["ids", found, allowed].map(str::to_owned);
        Err(Refusal::bad_body(&Invalid { place, found, allowed }))
    };
    match (ids.len(), all) {
        (0, true) => Ok(LetterSelection::All),
        (0, false) => wrong("none", "name letters, or write {\"all\": true}"),
        (_, true) => wrong("ids beside `all`", "write either of them"),
        (count, false) if count > MAX_IDS => {
            wrong("too many", &format!("name {MAX_IDS} letters at most"))
        }
        (_, false) => Ok(LetterSelection::Ids(ids)),
    }
}

async fn answer(
    call: &Call,
    answers: impl Stream<Item = Result<DeadLetterAnswer, DeadLetterError>> + Send + 'static,
    target: String,
) -> Outcome {
    let lines = answers.map(|answer| Ok(line(&answer?)));
    let mut response = lines::respond(lines.boxed(), call.shared.stop.clone()).await?;
    response.extensions_mut().insert(Live);
    Ok(about(response, target))
}

/// What the audit trail says of a change of letters.
fn target(selection: &LetterSelection) -> String {
    match selection {
        LetterSelection::All => "all dead letters".into(),
        LetterSelection::Ids(ids) if ids.len() == 1 => format!("dead letter {}", ids[0]),
        LetterSelection::Ids(ids) => format!("{} dead letters, of which {}", ids.len(), ids[0]),
    }
}

fn about(mut response: Response, target: String) -> Response {
    response.extensions_mut().insert(Target(target));
    response
}
