//! Why there is no figure.

use longshore_producer as producer;

/// Why the benchmark gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A service can't be reached, or went away.
    #[error("{0}")]
    Connect(#[from] producer::ConnectError),
    /// RabbitMQ did not do as asked.
    #[error("RabbitMQ: {0}")]
    Rabbit(#[from] lapin::Error),
    /// Redis did not do as asked.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A kind of service that can't be measured.
    #[error("{0}")]
    Unsupported(String),
    /// A process of the fleet ended, or could not be started.
    #[error("the {role}: {reason}")]
    Process {
        /// `scheduler` or `worker`.
        role: &'static str,
        /// How it ended, and its last words.
        reason: String,
    },
    /// Something of the system's could not be read or written.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A job could not be submitted.
    #[error("a job was not accepted: {0}")]
    Submit(#[from] producer::SubmitError),
    /// A job could not be followed.
    #[error("{0}")]
    Job(#[from] producer::Error),
    /// The ledger failed under the simulated nodes.
    #[error("{0}")]
    Ledger(#[from] longshore_ledger::Error),
    /// A job ended otherwise than it must.
    #[error("{0}")]
    Unexpected(String),
    /// Whoever started it wants it to stop.
    #[error("interrupted")]
    Interrupted,
    /// It takes too long.
    #[error("still waiting after {seconds} s: {what}")]
    TimedOut {
        /// What did not happen.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
}
