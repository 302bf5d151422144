//! Shared code of the end-to-end tests, which know only what a user sees.
//!
//! Deliberately absent: knowledge of Longshore's internals. These tests see what a user sees: the
//! binary, its exit codes and output, RabbitMQ and Redis.

mod fleet;

pub use fleet::{Fleet, Run, binary, finish, repository};
