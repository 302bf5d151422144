//! Chaos tests on real processes: a nemesis injects faults, and a checker trusts no process.
//!
//! The processes are RabbitMQ, Redis, schedulers and workers, each of which can be killed, frozen
//! or cut off.
//!
//! ```text
//!   nemesis ──kill, freeze, cut─▶ cluster ◀──links──▶ RabbitMQ, Redis ◀─restart, flush─ nemesis
//!                                   │
//!   submitters ──intent, confirmed──┤
//!                                   ▼
//!                    history: append-only files outside of both servers ──▶ checker
//! ```
//!
//! The task handlers write the history: a line when an attempt begins and a line when it ends,
//! written to files before any other process learns of it. The checker compares the history with
//! what Longshore reports about its jobs. All random choices come from one seed, which a failing
//! run prints.
//!
//! Deliberately absent: knowledge of Longshore's internals. Every injected fault can happen in
//! production.

pub mod checker;
pub mod clock;
pub mod cluster;
pub mod history;
pub mod link;
pub mod marks;
pub mod mutant;
pub mod nemesis;
pub mod process_stats;
pub mod report;
pub mod runaways;
pub mod tasks;
pub mod waits;
