//! Fuzzes the decoders of what Redis answers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("redis_answers", bytes));
