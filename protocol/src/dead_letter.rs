//! Dead letters as programs read them: job documents that were refused, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{JobId, Json, Timestamp};

/// A message of the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Identifies the letter: the job's id if it is known, otherwise the `message_id`. Letters of
    /// the same document have the same id.
    pub id: String,
    /// The job's id, as far as the letter tells.
    pub job: Option<JobId>,
    /// The `message_id` that the document was published with.
    pub message_id: Option<String>,
    /// Why the document was refused.
    pub reason: Option<String>,
    /// When it was refused; null for letters of versions that did not record it.
    pub dead_at: Option<Timestamp>,
    /// The size of the document.
    pub bytes: u64,
}

/// What `dead list` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterPage {
    /// The letters, the oldest first, as far as they were asked for.
    pub letters: Vec<DeadLetter>,
    /// The number of letters in the queue.
    pub total: u64,
}

/// A letter with its document: what `dead show` shows.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeadLetterDetails {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The document, if it is JSON; otherwise null.
    #[schemars(with = "serde_json::Value")]
    pub document: Option<Json>,
    /// The document as text, if it is not JSON; bytes that are not UTF-8 are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What became of a letter that was to be put back or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterAnswer {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// What became of it.
    pub outcome: DeadLetterOutcome,
    /// Why it could not be put back; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterOutcome {
    /// The document is back in the queue of job documents.
    Requeued,
    /// The letter was deleted.
    Purged,
    /// The document is not known to be back; the letter stays.
    Failed,
}

/// The answer to the deletion of all letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLettersPurged {
    /// The number of letters that were in the queue.
    pub purged: u64,
}
