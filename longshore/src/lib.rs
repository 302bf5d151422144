//! Longshore for applications: submit jobs, run workers, and test both in one process.
//!
//! A *job* is a task and a rule that splits it into *subtasks*; *workers* run the task for each
//! subtask, on any number of machines. RabbitMQ carries messages, Redis keeps what is known of
//! jobs, and `longshore scheduler` decides what runs where.
//!
//! ```
//! use longshore::{Context, Document, LocalCluster, Split, TaskResult, Worker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), longshore::Error> {
//! // A task is a function from the input of a subtask to its result.
//! let worker = Worker::builder()
//!     .task("square", |_: Context, n: i64| async move { TaskResult::Ok(n * n) })
//!     .build()?;
//!
//! // A scheduler, the worker, and broker and ledger in memory. Production code uses `Client::connect`.
//! let cluster = LocalCluster::start(worker);
//!
//! let job = cluster.client().submit(&Document::new("square", Split::range(0..10))).await?;
//! let end = job.wait().await?;
//! assert_eq!(end.done, 10);
//!
//! let mut results = job.results::<i64>();
//! while let Some(result) = results.next().await {
//!     let result = result?;
//!     assert_eq!(result.value, (result.index * result.index) as i64);
//! }
//! cluster.stop().await
//! # }
//! ```
//!
//! In production the same code runs against RabbitMQ and Redis: [`Client::connect`] in the
//! application, which needs neither of them with [`Client::http`], and [`Worker::run_from_env`] as
//! the whole `main` of a worker program.
//!
//! Every type in a signature is exported here. Structs to which fields will be added are
//! `#[non_exhaustive]`.

mod bulk;
mod client;
mod config;
mod dead_letters;
mod document;
mod error;
mod job;
mod list;
mod local;
mod node;
mod stream;
mod telemetry;
mod worker;

pub use longshore_protocol::state::JobState;
pub use longshore_protocol::{BulkAction, BulkResult, DeadLetterOutcome};
pub use longshore_protocol::{ErrorKind, Invalid, JobId, MAX_PAGE, NodeId, NodeState};
pub use longshore_worker::{Context, TaskError, TaskResult, init};
#[doc(no_inline)]
pub use uuid::Uuid;

pub use bulk::{BulkOutcome, BulkOutcomes, BulkPlan};
pub use client::Client;
pub use config::Config;
pub use dead_letters::{
    DeadLetter, DeadLetterAnswer, DeadLetterAnswers, DeadLetterPage, DeadLetters,
};
pub use document::{Axis, Document, Retry, Split};
pub use error::Error;
pub use job::{Job, JobStatus, SubtaskError, SubtaskResult};
pub use list::{JobCursor, JobFilter, JobPage};
pub use local::LocalCluster;
pub use node::{DisabledTask, IsolatedTask, Node};
pub use stream::{Progress, Results, SubtaskErrors};
pub use worker::{Worker, WorkerBuilder};
