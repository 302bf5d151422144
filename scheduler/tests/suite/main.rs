//! The scheduler's tests from outside, one binary.

mod outage;
mod outages;
mod service;
mod world;
