//! The words of Longshore: ids, the job document, splits, messages, states and outcomes.
//!
//! Pure data and pure functions. Deliberately absent: I/O, clocks, randomness and async. Whatever
//! needs one of those gets its result handed in (a [`Timestamp`], a random number, the sizes of
//! files).

pub mod document;
mod finding;
mod ids;
mod journal;
pub mod json;
mod left_out;
mod message;
pub mod names;
mod outcome;
mod reason;
mod reduce;
mod split;
pub mod state;
mod time;
mod view;

pub use document::{Invalid, JobDocument};
pub use finding::{Finding, Severity};
pub use ids::{ChunkId, Digest, Epoch, JobId, NodeId, SchedulerId, Token};
pub use journal::{Decoder, Ending, JournalEvent, JournalPlace, JournalRecord, LARGEST_RECORD};
pub use json::{Items, Json};
pub use left_out::LeftOut;
pub use message::{ChunkMessage, Subtask};
pub use outcome::{Outcome, RESULT_STRIDE, Run, runs_len, split_results};
pub use reason::{Reason, ReasonCode, Stall};
pub use reduce::{ReduceNode, ReduceTree};
pub use split::{Input, InputFile, LineWindow, MAX_FILES, Manifest, Plan};
pub use time::Timestamp;
pub use view::{
    Audit, Counts, Death, DisabledTask, ErrorEntry, Isolation, JobSummary, LivenessTerms, Lost,
    NodeInfo, NodeRecord, NodeState, Recovery, ResultRun, ResultsPage, SchedulerRecord, TaskRecord,
};
