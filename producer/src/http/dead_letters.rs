//! The dead letters of a server's fleet. What each call does is said at [`crate::DeadLetters`].

use futures_util::stream::{BoxStream, StreamExt};
use longshore_protocol::wire::DeadLettersRequest;
use longshore_protocol::{
    DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterPage, DeadLettersPurged, Json,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::Request;
use super::{Server, ServerError, lines};
use crate::{DeadLetterError, LetterSelection};

/// What became of letters, one after the other.
type Answers = BoxStream<'static, Result<DeadLetterAnswer, DeadLetterError>>;

/// The dead letters of a server's fleet.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    server: Server,
}

impl DeadLetters {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) async fn count(&self) -> Result<u64, DeadLetterError> {
        Ok(self.list(1).await?.total)
    }

    pub(crate) async fn list(&self, limit: usize) -> Result<DeadLetterPage, DeadLetterError> {
        Ok(self.server.json(&Request::get(&[&"dead"]).with("limit", limit)).await?)
    }

    pub(crate) async fn find(
        &self,
        letter: &str,
    ) -> Result<Option<DeadLetterDetails>, DeadLetterError> {
        match self.server.text(&Request::get(&[&"dead", &letter])).await {
            Ok(text) => Ok(Some(details(&self.server, &text)?)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn requeue(&self, selection: LetterSelection) -> Answers {
        self.change("requeue", selection)
    }

    pub(crate) fn purge(&self, selection: LetterSelection) -> Answers {
        self.change("purge", selection)
    }

    pub(crate) async fn purge_all(&self) -> Result<u64, DeadLetterError> {
        let body = DeadLettersRequest { ids: Vec::new(), all: true };
        let request = Request::post(&[&"dead", &"purge"]).json(&body);
        let answer: DeadLettersPurged = self.server.json(&request).await?;
        Ok(answer.purged)
    }

    fn change(&self, verb: &str, selection: LetterSelection) -> Answers {
        let body = match selection {
            LetterSelection::All => DeadLettersRequest { ids: Vec::new(), all: true },
            LetterSelection::Ids(ids) => DeadLettersRequest { ids, all: false },
        };
        let request = Request::post(&[&"dead", &verb]).json(&body);
        let answers = lines::once(self.server.clone(), request);
        answers.map(|answer| answer.map_err(DeadLetterError::from)).boxed()
    }
}

/// Reads a letter with its document, whose text does not change.
fn details(server: &Server, text: &str) -> Result<DeadLetterDetails, ServerError> {
    #[derive(Deserialize)]
    struct Body {
        document: Option<Box<RawValue>>,
        text: Option<String>,
    }
    let unreadable = |error: serde_json::Error| ServerError::unreadable(server, &error);
    let letter: DeadLetter = serde_json::from_str(text).map_err(unreadable)?;
    let Body { document, text } = serde_json::from_str(text).map_err(unreadable)?;
    let document = document.map(|document| Json::verbatim(document.get()));
    let document = document.transpose();
    let document = document.map_err(|error| ServerError::unreadable(server, &error))?;
    Ok(DeadLetterDetails { letter, document, text })
}
