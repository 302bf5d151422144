//! Chaos on real processes: RabbitMQ, Redis, two schedulers and four workers, each of which can be killed, frozen or cut off,
//! and a checker that believes none of them.
//!
//! ```text
//!   nemesis ──kill, freeze, cut──▶ crew ◀──links──▶ RabbitMQ, Redis ◀──restart, purge, flush── nemesis
//!                                   │
//!   submitters ──intent, confirmed──┤
//!                                   ▼
//!                    history: append-only files that neither server knows ──▶ checker ──▶ violations
//! ```
//!
//! What the fleet did is told by the handlers themselves: a line when an attempt begins, a line when it ends, written to
//! files before anybody else hears of it. The checker compares that history with what Longshore says of its jobs.
//! Everything random comes from one seed, which a failing run prints.
//!
//! Deliberately absent: knowledge of Longshore's insides. What the nemesis does, an operator's worst day does too.

pub mod checker;
pub mod clock;
pub mod crew;
pub mod forge;
pub mod history;
pub mod inquest;
pub mod link;
pub mod marks;
pub mod nemesis;
pub mod runaways;
pub mod tasks;
pub mod vitals;
pub mod waits;
