//! The worker: claims chunks, runs their subtasks, commits the outcomes, and sends heartbeats.
//!
//! ```text
//!   broker -- delivery --> pipeline: claim, resolve, run, classify, commit, acknowledge --> ledger
//!                             ^
//!                        held chunks <-- stop -- heartbeat <-- heartbeats, hints --> ledger
//! ```
//!
//! Deliberately absent: what runs next, where, and in chunks of what size; the scheduler decides
//! that. The worker knows the broker and the ledger by their traits. Whatever happens to either, a
//! worker that ends has committed or released every chunk.

mod attempt;
mod availability;
mod batch;
mod blocking_run;
mod builder;
mod chunk;
mod classify;
mod commits;
mod config;
mod context;
mod drain_state;
mod environment;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heartbeat;
mod held_chunks;
mod input;
pub mod metrics;
mod pipeline;
mod plans;
mod prefetch;
mod prefetch_controller;
mod recently_requeued;
mod records;
mod result_store;
mod results;
mod retry;
mod run_from_env;
mod shim;
mod stop;
mod supervisor;
mod task;
mod worker;

pub use builder::Builder;
pub use config::Config;
pub use context::Context;
pub use environment::Environment;
pub use error::{BuildError, Error, TaskError, TaskResult};
pub use longshore_storage::AllowedRoots;
pub use result_store::ResultStore;
pub use run_from_env::supervise_from_env;
pub use shim::{PassEnv, init, init_with, program};
pub use stop::{StopRequests, stops_on_hangup};
pub use supervisor::{MALLOC_BOUND, Supervised, supervise, supervised};
pub use task::{BuiltinTasks, HttpAddresses, Inputs, TaskSpec};
pub use tokio_util::sync::CancellationToken;
pub use worker::Worker;
