//! What the end-to-end tests share: a fleet of real processes, and the command line against it.
//!
//! Deliberately absent: knowledge of Longshore's insides. These tests see what a user sees: the binary, its exit
//! codes and output, RabbitMQ and Redis.

mod fleet;

pub use fleet::{Fleet, Run, binary, finish, repository};
