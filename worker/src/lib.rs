//! Does: claims chunks, runs subtasks, commits their outcomes, beats the heart.
//!
//! ```text
//!   broker -- delivery --> pipeline: claim, resolve, run, judge, commit, acknowledge --> ledger
//!                             ^
//!                          holdings <-- what to stop -- heart <-- beats, hints --> ledger
//! ```
//!
//! Deliberately absent: what runs next, where, and in what size; the scheduler decides that. The
//! worker knows the broker and the ledger by their traits, and whatever happens to either, it ends
//! with every chunk committed or handed back.

mod attempt;
mod availability;
mod backoff;
mod batch;
mod builder;
mod commits;
mod config;
mod context;
mod env;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heart;
mod holdings;
mod input;
mod machine;
pub mod metrics;
mod pace;
mod passed;
mod pipeline;
mod plans;
mod records;
mod result_store;
mod results;
mod shim;
mod stop;
mod stretch;
mod supervisor;
mod task;
mod worker;

pub use env::supervise_from_env;

pub use builder::Builder;
pub use config::Config;
pub use context::Context;
pub use error::{BuildError, Error, TaskError, TaskResult};
pub use machine::Machine;
pub use result_store::ResultStore;
pub use shim::{init, init_with, program};
pub use stop::{StopRequests, heeds_hangup};
pub use supervisor::{MALLOC_BOUND, Watched, watch, watched};
pub use task::{Inputs, TaskSpec};
pub use tokio_util::sync::CancellationToken;
pub use worker::Worker;
