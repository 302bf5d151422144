//! Integration tests of the scheduler, in one binary.

mod cancels;
mod files;
mod journal;
mod lapses;
mod outage;
mod outages;
mod races;
mod reading;
mod service;
mod world;
