//! The router on the memory broker and ledger.

mod access;
mod bad_input;
mod batch;
mod bulk;
mod client;
mod control;
mod description;
mod events;
mod fleet;
mod insight;
mod reading;
mod results;
mod server;
mod stage;
