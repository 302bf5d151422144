//! Fuzzes the reader of a served command's answers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("served_answer", bytes));
