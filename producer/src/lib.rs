//! The client library that applications embed: submits and lists jobs, lists and controls workers.
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use longshore_producer::{Client, JobDocument, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&Settings {
//!     amqp_url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
//!     redis_url: "redis://127.0.0.1:6379".into(),
//!     ..Settings::default()
//! })
//! .await?;
//!
//! let document = JobDocument::parse(
//!     br#"{"task": "thumbnail", "split": {"by": "files", "files": ["/photos/**/*.jpg"]}}"#,
//! )?;
//! let job = client.submit(&document).await?;
//! let (end, results) = job.outcome().await?;
//! println!("{}: {} of {} done", end.state, end.counts.done, end.counts.total);
//!
//! futures_util::pin_mut!(results);
//! while let Some((index, value)) = results.try_next().await? {
//!     println!("{index}: {value}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A client reaches jobs in one of two ways, and has the same methods for both: straight in
//! RabbitMQ and Redis ([`Client::connect`]), or through a server of the HTTP API
//! ([`Client::http`]).
//!
//! ```text
//! Client, Jobs, Job, Nodes, DeadLetters, ApiTokens ─┬─▶ direct ──▶ broker and ledger
//!                                                   └─▶ http ────▶ a server, which has a client
//! ```
//!
//! Deliberately absent: scheduling and running subtasks. A client publishes a document and reads
//! what is known of jobs; schedulers and workers do the rest, on whatever machines they run.

mod bulk;
mod client;
mod dead_letters;
mod direct;
mod error;
mod error_groups;
mod explain;
mod find;
mod http;
mod job;
mod jobs;
mod nodes;
mod submission;
mod timers;
mod tokens;

pub use longshore_ledger::Cancelled;
pub use longshore_protocol::document::JobDocument;
pub use longshore_protocol::{ApiSecret, JobIdPrefix};
pub use longshore_protocol::{BulkAction, BulkOutcome, BulkPlan, BulkResult};
pub use longshore_protocol::{DeadLetter, DeadLetterAnswer, DeadLetterDetails, DeadLetterPage};
pub use longshore_protocol::{ErrorKind, Problem};
pub use longshore_protocol::{JobCursor, JobFilter, JobPage, JobSummary, MAX_PAGE};
pub use longshore_protocol::{JobId, NodeId, NodeRecord};
pub use longshore_storage::AllowedRoots;
pub use longshore_tls::TlsFiles;

pub use bulk::EmptyFilter;
pub use client::{ACCEPTED_WITHIN, Client, Settings};
pub use dead_letters::{DeadLetterError, DeadLetters, LetterSelection, is_id_of};
pub use error::{ConnectError, Error, NoValue, SubmitError};
pub use find::{FindError, JobKey};
pub use http::{ServerError, ServerSettings, check_server_url};
pub use job::Job;
pub use jobs::Jobs;
pub use nodes::Nodes;
pub use tokens::{ApiTokens, TokenError};

/// How a handle reaches what it is about.
#[derive(Clone)]
enum Way<D, H> {
    /// Straight in RabbitMQ and Redis.
    Direct(D),
    /// Through a server.
    Http(H),
}

/// Does the same both ways.
macro_rules! either {
    ($way:expr, $it:ident => $call:expr) => {
        match $way {
            $crate::Way::Direct($it) => $call,
            $crate::Way::Http($it) => $call,
        }
    };
}
use either;
