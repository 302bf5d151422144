//! What the journal keeps: one record for each thing that a rebuilt ledger has to know.
//!
//! A record is written after the ledger holds what it tells of. Records may come twice, and late: what counts is the time
//! in them, on the ledger's clock, not their order. Deliberately absent: subtasks; what of a job was done is lost with the
//! ledger, and done again.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{Counts, JobId, JobSummary, SchedulerId, Timestamp};

/// A record longer than this travels in pieces: RabbitMQ 4.x takes no message over 16 MiB.
pub const LARGEST_RECORD: usize = 8 << 20;

/// Bytes of a piece. Written as a JSON string it may get twice as long.
const PIECE: usize = 3 << 20;

/// A place in the journal: where a record stands, and what it is called, so that another journal under the same name
/// is not taken for this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPlace {
    /// Grows from record to record, not always by one.
    pub offset: u64,
    /// The record's message id.
    pub record: String,
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalRecord {
    /// Version of the record, 1.
    #[schemars(range(min = 1, max = 1))]
    pub v: u8,
    /// What it tells.
    #[serde(flatten)]
    pub news: JournalEvent,
}

/// What a record tells. Times are Unix milliseconds on the ledger's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum JournalEvent {
    /// A job was admitted.
    Admitted {
        /// The job.
        job: JobId,
        /// When it was submitted.
        at: Timestamp,
        /// How long it is kept once it has ended, ms.
        keep_for_ms: u64,
        /// The job document, canonical JSON.
        document: String,
        /// Files and sizes as JSON, for splits over files.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<String>,
    },
    /// A job ended.
    Ended {
        /// The job.
        job: JobId,
        /// How.
        #[serde(flatten)]
        ending: Ending,
    },
    /// A job was paused.
    Paused {
        /// The job.
        job: JobId,
        /// When that was seen.
        at: Timestamp,
    },
    /// A job goes on.
    Resumed {
        /// The job.
        job: JobId,
        /// When that was seen.
        at: Timestamp,
    },
    /// A job that had ended was opened again by `retry`.
    Reopened {
        /// The job.
        job: JobId,
        /// When that was seen.
        at: Timestamp,
    },
    /// A job was deleted before its end was told of.
    Deleted {
        /// The job.
        job: JobId,
        /// When that was seen.
        at: Timestamp,
    },
    /// A part of a record that is too long for one message.
    Piece {
        /// The job that the record is about.
        job: JobId,
        /// The time in the record.
        at: Timestamp,
        /// Which piece, from 0.
        number: u32,
        /// How many there are.
        of: u32,
        /// Part of the record's text.
        text: String,
    },
    /// A scheduler looks for the journal's end. Tells nothing of jobs.
    Mark {
        /// Which one.
        by: SchedulerId,
    },
}

/// How a job ended, as far as a rebuilt ledger can tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// `succeeded`, `failed` or `cancelled`.
    pub state: JobState,
    /// When.
    pub finished_at: Timestamp,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When the first chunk was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were given up.
    pub cancelled: u64,
    /// The same of the reduce's nodes.
    #[serde(default)]
    pub reduce_done: u64,
    /// Reduce nodes that failed for good.
    #[serde(default)]
    pub reduce_failed: u64,
    /// Reduce nodes that were given up.
    #[serde(default)]
    pub reduce_cancelled: u64,
    /// How often `retry` had re-opened it.
    pub generation: u64,
    /// Attempts that ended.
    pub attempts: u64,
    /// Time that they took, ms.
    pub busy_ms: u64,
    /// Subtasks that were handed out again because their node was lost.
    pub lost: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Ending {
    /// Of a job that has ended; `None` of one that has not, or was never accepted.
    pub fn of(summary: &JobSummary) -> Option<Self> {
        let has_ended = summary.state.is_terminal() && summary.state != JobState::Rejected;
        let finished_at = summary.finished_at.filter(|_| has_ended)?;
        Some(Self {
            state: summary.state,
            finished_at,
            submitted_at: summary.submitted_at,
            started_at: summary.started_at,
            done: summary.counts.done,
            failed: summary.counts.failed,
            cancelled: summary.counts.cancelled,
            reduce_done: summary.reduce.done,
            reduce_failed: summary.reduce.failed,
            reduce_cancelled: summary.reduce.cancelled,
            generation: summary.generation,
            attempts: summary.attempts,
            busy_ms: u64::try_from(summary.busy.as_millis()).unwrap_or(u64::MAX),
            lost: summary.lost,
            error: summary.error.clone(),
        })
    }

    /// The books of the subtasks and of the reduce's nodes.
    pub fn counts(&self) -> [Counts; 2] {
        let counts = |done, failed, cancelled| {
            let total = [failed, cancelled].into_iter().fold(done, u64::saturating_add);
            Counts { total, done, failed, cancelled, ..Counts::default() }
        };
        [
            counts(self.done, self.failed, self.cancelled),
            counts(self.reduce_done, self.reduce_failed, self.reduce_cancelled),
        ]
    }
}

impl JournalRecord {
    /// The version that is written.
    pub const VERSION: u8 = 1;

    /// The messages that carry the news: one, or as many pieces as it takes.
    pub fn encode(news: &JournalEvent) -> Vec<String> {
        let whole = written(news);
        let Some((job, at)) = news.subject().filter(|_| whole.len() > LARGEST_RECORD) else {
            return vec![whole];
        };
        let texts = cut(&whole, PIECE);
        let of = u32::try_from(texts.len()).expect("a document is at most 16 MiB");
        let pieces = (0..of).zip(texts).map(|(number, text)| {
            written(&JournalEvent::Piece { job, at, number, of, text: text.to_owned() })
        });
        pieces.collect()
    }
}

impl JournalEvent {
    /// The job that it is about, and when.
    pub fn subject(&self) -> Option<(JobId, Timestamp)> {
        match self {
            Self::Admitted { job, at, .. }
            | Self::Paused { job, at }
            | Self::Resumed { job, at }
            | Self::Reopened { job, at }
            | Self::Deleted { job, at }
            | Self::Piece { job, at, .. } => Some((*job, *at)),
            Self::Ended { job, ending } => Some((*job, ending.finished_at)),
            Self::Mark { .. } => None,
        }
    }
}

/// Puts records together from messages in the journal's order.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Records of which the last piece has not come.
    begun: HashMap<(JobId, Timestamp), Vec<String>>,
}

impl Decoder {
    /// The news that the message completes; `None` for a piece that is not the last. A piece out of turn (its publisher
    /// died, or published again from the start) leaves what there was behind.
    pub fn decode(&mut self, message: &[u8]) -> Result<Option<JournalEvent>, serde_json::Error> {
        let record = read(serde_json::from_slice(message)?)?;
        let JournalEvent::Piece { job, at, number, of, text } = record else {
            return Ok(Some(record));
        };
        let pieces = self.begun.entry((job, at)).or_default();
        if number == 0 {
            pieces.clear();
        }
        if pieces.len() == number as usize {
            pieces.push(text);
        }
        if pieces.len() < of as usize {
            return Ok(None);
        }
        let whole = self.begun.remove(&(job, at)).unwrap_or_default().concat();
        read(serde_json::from_str(&whole)?).map(Some)
    }
}

/// The news of a record of the version that we know.
fn read(record: JournalRecord) -> Result<JournalEvent, serde_json::Error> {
    match record.v {
        JournalRecord::VERSION => Ok(record.news),
        other => Err(serde::de::Error::custom(format_args!("version {other}, not 1"))),
    }
}

fn written(news: &JournalEvent) -> String {
    let record = JournalRecord { v: JournalRecord::VERSION, news: news.clone() };
    serde_json::to_string(&record).expect("a record is plain data")
}

/// In parts of at most `size` bytes, between characters.
fn cut(mut text: &str, size: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (part, rest) = text.split_at(text.floor_char_boundary(size));
        parts.push(part);
        text = rest;
    }
    parts
}
