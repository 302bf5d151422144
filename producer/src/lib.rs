//! The client library that applications embed: submit, wait, progress, results, control.
