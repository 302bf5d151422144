//! The benchmark: what a fleet does on this machine beside what RabbitMQ, Redis and the cores can do.
//!
//! ```text
//!   scenario ── jobs ──> scheduler, workers (processes of their own) ──> RabbitMQ, Redis
//!   yardstick ── raw lapin, raw redis ─────────────────────────────────> RabbitMQ, Redis
//! ```
//!
//! Each run measures its yardsticks right before the scenario, so that every figure is also a ratio, which a slow or busy
//! machine does not change much. Everything happens under a namespace of its own, which is removed at the end.
//!
//! Deliberately absent: printing, and servers; RabbitMQ and Redis have to be there (`bench/run` brings some).

mod error;
mod fleet;
mod ground;
mod machine;
mod processes;
mod report;
mod runner;
mod scenario;
mod services;
mod spin;
mod yardstick;

use std::path::PathBuf;

pub use error::Error;
pub use machine::Machine;
pub use report::{Figure, Outcome, Report, Target, Unit};
pub use runner::run;
pub use scenario::Name;
pub use spin::spin;

/// What to measure, where.
#[derive(Clone)]
pub struct Config {
    /// RabbitMQ: `amqp://user:password@host:port/vhost`.
    pub amqp_url: String,
    /// A single Redis: `redis://…`, `rediss://…` or `unix://…`.
    pub redis_url: String,
    /// The kind of the work queues, `classic` or `quorum`, as the fleet is told.
    pub work_queues: String,
    /// The `longshore` command, of which scheduler and workers are started.
    pub program: PathBuf,
    /// The scenarios, in this order.
    pub scenarios: Vec<Name>,
    /// How often each is measured; medians are reported.
    pub runs: usize,
    /// What the sizes and durations of all scenarios are multiplied with. The targets hold at 1.
    pub scale: f64,
}

impl std::fmt::Debug for Config {
    /// Both URLs may hold passwords, which have no business in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("scenarios", &self.scenarios)
            .field("runs", &self.runs)
            .field("scale", &self.scale)
            .finish_non_exhaustive()
    }
}
