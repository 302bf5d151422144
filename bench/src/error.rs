//! Why a benchmark ended without a report.

use longshore_producer as producer;

/// Why the benchmark ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A service can't be reached.
    #[error("{0}")]
    Connect(#[from] producer::ConnectError),
    /// An operation of RabbitMQ failed.
    #[error("RabbitMQ: {0}")]
    Rabbit(#[from] lapin::Error),
    /// A command of Redis failed.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The benchmark can't measure services of this kind.
    #[error("{0}")]
    Unsupported(String),
    /// A process of the fleet ended, or could not be started.
    #[error("the {role}: {reason}")]
    Process {
        /// `scheduler`, `worker` or `api`.
        role: &'static str,
        /// How the process ended, and the end of its log.
        reason: String,
    },
    /// An operation of the system failed.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A job could not be submitted.
    #[error("a job was not accepted: {0}")]
    Submit(#[from] producer::SubmitError),
    /// A job could not be followed.
    #[error("{0}")]
    Job(#[from] producer::Error),
    /// An operation of the ledger failed for a simulated node.
    #[error("{0}")]
    Ledger(#[from] longshore_ledger::Error),
    /// A job or a server behaved differently than a measurement needs.
    #[error("{0}")]
    Unexpected(String),
    /// The caller stopped the benchmark.
    #[error("interrupted")]
    Interrupted,
    /// A step took too long.
    #[error("still waiting after {seconds} s: {what}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
}
