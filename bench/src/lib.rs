//! The benchmark: what a fleet achieves on this host, as a ratio to RabbitMQ, Redis and the cores.
//!
//! ```text
//!   scenario ── jobs ──> scheduler, workers (processes of their own) ──> RabbitMQ, Redis
//!   baseline ── raw lapin, raw redis ─────────────────────────────────> RabbitMQ, Redis
//! ```
//!
//! Each run measures its baselines right before the scenario, so that every figure can be a ratio,
//! which depends little on the speed and the load of the host. Each scenario has a namespace of its
//! own, which is removed at the end.
//!
//! Deliberately absent: printing, and the servers themselves; `bench/run` starts some.

mod baseline;
mod error;
mod fleet;
mod host;
mod processes;
mod report;
mod runner;
mod scenario;
mod services;
mod spin;
mod testbed;

use std::path::PathBuf;

pub use error::Error;
pub use host::Host;
pub use report::{Figure, Outcome, Report, Target, Unit};
pub use runner::run;
pub use scenario::Name;
pub use spin::spin;

/// What to measure and with which services.
#[derive(Clone)]
pub struct Config {
    /// The URL of RabbitMQ: `amqp://user:password@host:port/vhost`.
    pub amqp_url: String,
    /// The URL of a single Redis: `redis://…`, `rediss://…` or `unix://…`.
    pub redis_url: String,
    /// The kind of the work queues that the fleet uses: `classic` or `quorum`.
    pub work_queues: String,
    /// The path of the `longshore` program, which is started as scheduler and worker.
    pub program: PathBuf,
    /// The scenarios, in the order in which they run.
    pub scenarios: Vec<Name>,
    /// How often each scenario is measured; the report has the medians.
    pub runs: usize,
    /// The factor for the sizes and durations of all scenarios. The targets hold at 1.
    pub scale: f64,
}

impl std::fmt::Debug for Config {
    /// Leaves out both URLs, because they may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("scenarios", &self.scenarios)
            .field("runs", &self.runs)
            .field("scale", &self.scale)
            .finish_non_exhaustive()
    }
}
