//! Private RabbitMQ and Redis servers for tests, on free ports, which leave no process behind.
//!
//! Each has a data folder of its own.
//!
//! ```no_run
//! use longshore_test_servers::{Rabbit, Redis};
//!
//! let mut redis = Redis::start();
//! let rabbit = Rabbit::shared();
//! println!("{} {}", redis.url(), rabbit.url());
//! redis.kill9();
//! redis.restart();
//! ```
//!
//! Every server listens on 127.0.0.1 only. Dropping it kills it and removes its data; a guardian
//! process does the same when the test process itself is killed (see `guardian.rs`). Starting
//! RabbitMQ takes seconds, so tests that don't break it share one ([`Rabbit::shared`]) and use
//! different namespaces.
//!
//! A server that can't be started is a problem of the test machine, not a test result: the
//! functions here panic with the end of the server's log instead of returning an error.
//!
//! Deliberately absent: tokio and client libraries; this crate implements the needed parts of the
//! protocols.

mod amqp;
mod authority;
mod clock;
mod cluster;
mod guardian;
mod port;
mod process;
mod rabbit;
mod redis;
mod resp;
mod sentinel;
mod wait;

pub use amqp::AmqpAttempt;
pub use authority::{Authority, CertificateFiles, ServerTls};
pub use clock::SettableClock;
pub use cluster::RedisCluster;
pub use guardian::is_running;
pub use port::free_port;
pub use process::Process;
pub use rabbit::{Rabbit, RabbitOptions};
pub use redis::{Data as RedisData, Redis, RedisOptions};
pub use resp::Reply;
pub use sentinel::RedisSentinel;
pub use wait::{holds_within, wait_until};
