//! Fuzzes the reader of what a command prints.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("output", bytes));
