//! What the words of Longshore promise, seen from outside. One binary, because linking is what
//! takes the time.

mod bad_documents;
mod delays;
mod documents;
mod ids;
mod journal;
mod plans;
mod random;
mod schemas;
mod states;
