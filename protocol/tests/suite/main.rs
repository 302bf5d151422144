//! Tests of the public types of `protocol`. One binary, because linking takes most of the time.

mod bad_documents;
mod delays;
mod documents;
mod ids;
mod journal;
mod plans;
mod random;
mod schemas;
mod states;
mod views;
