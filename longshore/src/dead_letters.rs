//! Dead letters in the public API: job documents that no scheduler accepted, with the reasons.

use std::time::SystemTime;

use futures_util::FutureExt;
use longshore_producer as producer;
use longshore_protocol as protocol;
use longshore_protocol::{DeadLetterOutcome, JobId};

use crate::Error;
use crate::job::system_time;
pub use crate::stream::DeadLetterAnswers;

/// Reads the dead letters, puts their documents back or deletes them. Cheap to clone.
///
/// ```no_run
/// # async fn example(client: longshore::Client) -> Result<(), longshore::Error> {
/// let letters = client.dead_letters();
/// for letter in letters.list(50).await?.letters {
///     println!("{}: {}", letter.id, letter.reason.unwrap_or_default());
/// }
/// // After the cause is gone:
/// let mut answers = letters.requeue_all();
/// while let Some(answer) = answers.next().await {
///     println!("{:?}", answer?.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    inner: producer::DeadLetters,
}

/// A job document that no scheduler accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Identifies the letter: the job's id if it is known, otherwise the `message_id`.
    pub id: String,
    /// The job's id, as far as the letter tells.
    pub job: Option<JobId>,
    /// Why the document was refused.
    pub reason: Option<String>,
    /// When it was refused.
    pub refused_at: Option<SystemTime>,
    /// The size of the document.
    pub bytes: u64,
}

/// The oldest dead letters, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterPage {
    /// The letters, the oldest first.
    pub letters: Vec<DeadLetter>,
    /// The number of letters that wait.
    pub total: u64,
}

/// What became of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterAnswer {
    /// The letter.
    pub letter: DeadLetter,
    /// What became of it.
    pub outcome: DeadLetterOutcome,
    /// Why it could not be put back.
    pub error: Option<String>,
}

impl DeadLetters {
    pub(crate) fn new(inner: producer::DeadLetters) -> Self {
        Self { inner }
    }

    /// The oldest letters, at most `limit`. They stay where they are.
    pub async fn list(&self, limit: usize) -> Result<DeadLetterPage, Error> {
        let page = self.inner.list(limit).boxed().await?;
        let letters = page.letters.into_iter().map(DeadLetter::from).collect();
        Ok(DeadLetterPage { letters, total: page.total })
    }

    /// Puts the documents of the letters with these ids back, where schedulers judge them again.
    /// The work goes on while the stream is read.
    pub fn requeue(&self, ids: impl IntoIterator<Item = impl Into<String>>) -> DeadLetterAnswers {
        DeadLetterAnswers::new(self.inner.requeue(some(ids)))
    }

    /// [`Self::requeue`] of all letters that are there now.
    pub fn requeue_all(&self) -> DeadLetterAnswers {
        DeadLetterAnswers::new(self.inner.requeue(producer::LetterSelection::All))
    }

    /// Deletes the letters with these ids. The work goes on while the stream is read.
    pub fn purge(&self, ids: impl IntoIterator<Item = impl Into<String>>) -> DeadLetterAnswers {
        DeadLetterAnswers::new(self.inner.purge(some(ids)))
    }

    /// Deletes all letters; gives how many there were.
    pub async fn purge_all(&self) -> Result<u64, Error> {
        Ok(self.inner.purge_all().boxed().await?)
    }
}

fn some(ids: impl IntoIterator<Item = impl Into<String>>) -> producer::LetterSelection {
    producer::LetterSelection::Ids(ids.into_iter().map(Into::into).collect())
}

impl From<protocol::DeadLetter> for DeadLetter {
    fn from(letter: protocol::DeadLetter) -> Self {
        let protocol::DeadLetter { id, job, reason, dead_at, bytes, .. } = letter;
        Self { id, job, reason, refused_at: dead_at.map(system_time), bytes }
    }
}

impl From<protocol::DeadLetterAnswer> for DeadLetterAnswer {
    fn from(answer: protocol::DeadLetterAnswer) -> Self {
        let protocol::DeadLetterAnswer { letter, outcome, error } = answer;
        Self { letter: letter.into(), outcome, error }
    }
}
