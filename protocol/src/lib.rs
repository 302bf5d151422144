//! The types, validation and wire formats that all crates of Longshore share.
//!
//! These are ids, the job document, splits, messages, states and outcomes.
//!
//! Pure data and pure functions. Deliberately absent: I/O, clocks, randomness and async. A function
//! that needs one of those gets the result as an argument (a [`Timestamp`], a random number, the
//! sizes of files).

mod access;
mod backoff;
mod bulk;
mod dead_letter;
pub mod document;
mod error_kind;
mod finding;
mod hint;
mod id_prefix;
mod ids;
mod journal;
pub mod json;
mod left_out;
mod listing;
mod map;
mod message;
pub mod names;
mod outcome;
mod problem;
mod reason;
mod reduce;
pub mod rendezvous;
mod result_body;
mod split;
pub mod state;
mod time;
mod view;
pub mod wire;

pub use access::{
    Action, ActionCursor, ActionOutcome, ApiSecret, ApiToken, InvalidRole, KeptApiToken, Role,
};
pub use backoff::Backoff;
pub use bulk::{BulkAction, BulkOutcome, BulkPlan, BulkResult, UnknownAction};
pub use dead_letter::{
    DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterOutcome, DeadLetterPage,
    DeadLettersPurged,
};
pub use document::{Invalid, JobDocument};
pub use error_kind::ErrorKind;
pub use finding::{Finding, Severity};
pub use hint::Hint;
pub use id_prefix::{InvalidIdPrefix, JobIdPrefix};
pub use ids::{ChunkId, Digest, Epoch, JobId, NodeId, SchedulerId, Token};
pub use journal::{
    JournalDecoder, JournalEnding, JournalEvent, JournalPosition, JournalRecord, LARGEST_RECORD,
};
pub use json::{Items, Json};
pub use left_out::LeftOut;
pub use listing::{InvalidCursor, JobCursor, JobFilter, JobPage, MAX_PAGE};
pub use map::{JobMap, MAX_CELLS, MapCell};
pub use message::{ChunkMessage, Subtask};
pub use outcome::{Outcome, OutcomeRun, RESULT_STRIDE, runs_len, split_results};
pub use problem::Problem;
pub use reason::{Blocked, BlockedScope, Reason, ReasonCode, Stall};
pub use reduce::{ReduceNode, ReduceTree};
pub use result_body::ResultBody;
pub use split::{Input, InputFile, LineWindow, MAX_FILES, Manifest, Plan};
pub use time::Timestamp;
pub use view::{
    Audit, Counts, Death, DisabledTask, ErrorEntry, Isolation, JobSummary, LivenessTerms, LossKind,
    NodeInfo, NodeRecord, NodeState, Recovery, ResultRun, ResultsPage, SchedulerRecord, TaskRecord,
};
