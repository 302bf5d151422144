//! Fuzzes the decoder of chunk messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longshore_bytes::run("chunk_message", bytes));
