//! The dead letters, as a client sees them: job documents that no scheduler accepted.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use longshore_broker::{Broker, PublishError};
use longshore_protocol::{
    DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterPage, ErrorKind, JobId, JobIdPrefix,
};

use crate::{ServerError, Way, direct, either, http};

/// Why dead letters could not be read, put back or deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// RabbitMQ can't be used.
    #[error(transparent)]
    Broker(#[from] longshore_broker::Error),
    /// A letter was looked at too often to be put back, and could not be copied.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The server can't be used, or refused.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl DeadLetterError {
    /// The kind of failure, for programs.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) => error.kind(),
            Self::Publish(error) => error.kind(),
            Self::Server(error) => error.kind(),
        }
    }
}

/// Which letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterSelection {
    /// All that are in the queue when the work begins.
    All,
    /// Those with one of these ids: the job's id, the beginning of it, or the `message_id`.
    Ids(Vec<String>),
}

impl LetterSelection {
    pub(crate) fn selects(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.iter().any(|id| is_id_of(id, letter)),
        }
    }
}

/// Whether a text that a person wrote is an id of the letter.
pub fn is_id_of(text: &str, letter: &DeadLetter) -> bool {
    let is_prefix = |job: JobId| text.parse::<JobIdPrefix>().is_ok_and(|prefix| prefix.is_of(job));
    letter.message_id.as_deref() == Some(text) || letter.job.is_some_and(is_prefix)
}

/// What became of letters, one after the other.
type Answers = BoxStream<'static, Result<DeadLetterAnswer, DeadLetterError>>;

/// Reads the dead letters, puts their documents back or deletes them. Other programs may do the
/// same at the same time: no letter is shown to two of them at once.
///
/// ```no_run
/// # async fn example(client: longshore_producer::Client) -> Result<(), Box<dyn std::error::Error>> {
/// for letter in client.dead_letters().list(50).await?.letters {
///     println!("{}: {}", letter.id, letter.reason.unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    pub(crate) way: Way<direct::dead_letters::DeadLetters, http::dead_letters::DeadLetters>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// The dead letters of this broker.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self { way: Way::Direct(direct::dead_letters::DeadLetters::new(broker)) }
    }

    /// The number of letters that wait.
    pub async fn count(&self) -> Result<u64, DeadLetterError> {
        either!(&self.way, letters => letters.count().await)
    }

    /// The oldest letters, at most `limit`, and how many there are. The letters stay in the queue.
    pub async fn list(&self, limit: usize) -> Result<DeadLetterPage, DeadLetterError> {
        either!(&self.way, letters => letters.list(limit).await)
    }

    /// The letter that a person means by its place in the queue, from 1, or by an id: the job's,
    /// the beginning of it, or the `message_id`. With its document; the letter stays in the queue.
    pub async fn find(&self, letter: &str) -> Result<Option<DeadLetterDetails>, DeadLetterError> {
        either!(&self.way, letters => letters.find(letter).await)
    }

    /// Puts the documents of these letters back into the queue of job documents, where schedulers
    /// judge them again, and gives an answer a letter. A document that is refused again becomes a
    /// dead letter again; such letters are not put back a second time by the same call.
    ///
    /// The work goes on while the stream is read. Dropping it loses nothing.
    pub fn requeue(&self, selection: LetterSelection) -> Answers {
        either!(&self.way, letters => letters.requeue(selection).boxed())
    }

    /// Deletes these letters, and gives an answer a letter.
    pub fn purge(&self, selection: LetterSelection) -> Answers {
        either!(&self.way, letters => letters.purge(selection).boxed())
    }

    /// Deletes all letters that wait, in one call; gives how many there were.
    pub async fn purge_all(&self) -> Result<u64, DeadLetterError> {
        either!(&self.way, letters => letters.purge_all().await)
    }
}
