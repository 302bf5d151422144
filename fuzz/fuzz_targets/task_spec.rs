//! Fuzzes the reader of a task's configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("task_spec", bytes));
