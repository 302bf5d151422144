//! The records of the journal, from which a lost ledger is rebuilt, and their cut into pieces.
//!
//! There is one for each event of a job that the rebuilt ledger has to know. A record is written
//! after the ledger has recorded the event. Records may come twice, and late: the time in a record,
//! on the ledger's clock, decides, not the order of records. Deliberately absent: subtasks. A
//! rebuilt ledger does not know which subtasks were done, and runs all of them again.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::JobState;
use crate::{Counts, JobId, JobSummary, SchedulerId, Timestamp};

/// Bytes above which a record is sent in pieces: RabbitMQ 4.x accepts no message over 16 MiB.
pub const LARGEST_RECORD: usize = 8 << 20;

/// Bytes of a piece. As a JSON string the piece may be twice as long.
const PIECE: usize = 3 << 20;

/// A position in the journal: the offset of a record, and the record's id, by which another journal
/// under the same name is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPosition {
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
    /// The event.
    #[serde(flatten)]
    pub event: JournalEvent,
}

/// An event of a job, as the journal records it. Times are Unix milliseconds on the ledger's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum JournalEvent {
    /// A job was admitted.
    Admitted {
        /// The job.
        job: JobId,
        /// When it was submitted.
        at: Timestamp,
        /// How long the job is kept after its end, ms.
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
        /// The job's end state and numbers.
        #[serde(flatten)]
        ending: JournalEnding,
    },
    /// A job was paused.
    Paused {
        /// The job.
        job: JobId,
        /// When a scheduler saw the change.
        at: Timestamp,
    },
    /// A job was resumed.
    Resumed {
        /// The job.
        job: JobId,
        /// When a scheduler saw the change.
        at: Timestamp,
    },
    /// An ended job was re-opened by `retry`.
    Reopened {
        /// The job.
        job: JobId,
        /// When a scheduler saw the change.
        at: Timestamp,
    },
    /// A job was deleted before its end was recorded.
    Deleted {
        /// The job.
        job: JobId,
        /// When a scheduler saw the change.
        at: Timestamp,
    },
    /// A part of a record that is too long for one message.
    Piece {
        /// The job of the whole record.
        job: JobId,
        /// The time in the whole record.
        at: Timestamp,
        /// The number of the piece, from 0.
        number: u32,
        /// The number of pieces.
        of: u32,
        /// This part of the record's text.
        text: String,
    },
    /// Written by a scheduler to find the journal's end. Says nothing about jobs.
    Mark {
        /// The scheduler.
        by: SchedulerId,
    },
}

/// The end of a job, as the journal records it: the state and the numbers that a rebuilt ledger
/// shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JournalEnding {
    /// `succeeded`, `failed` or `cancelled`.
    pub state: JobState,
    /// When the job ended.
    pub finished_at: Timestamp,
    /// When the job was submitted.
    pub submitted_at: Timestamp,
    /// When the first chunk was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Subtasks that succeeded.
    pub done: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that were cancelled.
    pub cancelled: u64,
    /// Reduce nodes that succeeded.
    #[serde(default)]
    pub reduce_done: u64,
    /// Reduce nodes that failed for good.
    #[serde(default)]
    pub reduce_failed: u64,
    /// Reduce nodes that were cancelled.
    #[serde(default)]
    pub reduce_cancelled: u64,
    /// How often `retry` had re-opened the job.
    pub generation: u64,
    /// Attempts that ended.
    pub attempts: u64,
    /// Time that those attempts took, summed over slots, ms.
    pub busy_ms: u64,
    /// Subtasks that were queued again because their node was lost.
    pub lost: u64,
    /// Why the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JournalEnding {
    /// The end of a job; `None` if the job has not ended, or was never accepted.
    pub fn of(summary: &JobSummary) -> Option<Self> {
        let has_ended = summary.state.is_terminal() && summary.state.was_accepted();
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

    /// The counts of the subtasks and of the reduce nodes.
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

    /// The messages that carry the event: one, or one for each piece of a long record.
    pub fn encode(event: &JournalEvent) -> Vec<String> {
        let whole = record_text(event);
        let Some((job, at)) = event.subject().filter(|_| whole.len() > LARGEST_RECORD) else {
            return vec![whole];
        };
        let texts = cut(&whole, PIECE);
        let of = u32::try_from(texts.len()).expect("a document is at most 16 MiB");
        let pieces = (0..of).zip(texts).map(|(number, text)| {
            record_text(&JournalEvent::Piece { job, at, number, of, text: text.to_owned() })
        });
        pieces.collect()
    }
}

impl JournalEvent {
    /// The job of the event, and the event's time.
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

/// Builds events from messages that come in the journal's order.
#[derive(Debug, Default)]
pub struct JournalDecoder {
    /// The pieces so far of records whose last piece has not come.
    incomplete: HashMap<(JobId, Timestamp), Vec<String>>,
}

impl JournalDecoder {
    /// The event that the message completes; `None` for a piece that is not the last. A piece 0
    /// starts its record anew (its publisher published again from the start); any other piece out
    /// of turn is ignored.
    pub fn decode(&mut self, message: &[u8]) -> Result<Option<JournalEvent>, serde_json::Error> {
        let record = read(serde_json::from_slice(message)?)?;
        let JournalEvent::Piece { job, at, number, of, text } = record else {
            return Ok(Some(record));
        };
        let pieces = self.incomplete.entry((job, at)).or_default();
        if number == 0 {
            pieces.clear();
        }
        if pieces.len() == number as usize {
            pieces.push(text);
        }
        if pieces.len() < of as usize {
            return Ok(None);
        }
        let whole = self.incomplete.remove(&(job, at)).unwrap_or_default().concat();
        read(serde_json::from_str(&whole)?).map(Some)
    }
}

/// The event of a record, if the record has the version that this build knows.
fn read(record: JournalRecord) -> Result<JournalEvent, serde_json::Error> {
    match record.v {
        JournalRecord::VERSION => Ok(record.event),
        other => Err(serde::de::Error::custom(format_args!("version {other}, not 1"))),
    }
}

fn record_text(event: &JournalEvent) -> String {
    let record = JournalRecord { v: JournalRecord::VERSION, event: event.clone() };
    serde_json::to_string(&record).expect("a record is plain data")
}

/// Cuts a text into parts of at most `size` bytes, between characters.
fn cut(mut text: &str, size: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (part, rest) = text.split_at(text.floor_char_boundary(size));
        parts.push(part);
        text = rest;
    }
    parts
}
